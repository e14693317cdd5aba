"""The form by dense tiles: functions at a tile of x, side by side in registers, a factor for tensor cores."""

import triton
import triton.language as tl

from .basis import ends_of, rows_held, value
from .patches import tapped, taps
from .tiles import Tile, at, met


@triton.jit
def beside(a, b):
    """[R, C] and [R, C] as [R, 2 C], in registers."""
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (a.shape[0], 2 * a.shape[1]))


@triton.jit
def functions(first, table, phi, numbers, k0, COUNT: tl.constexpr, SHAPE: tl.constexpr):
    """The functions k0 .. k0 + COUNT - 1 at a tile, a tuple; numbers are those of `rows_held`."""
    N: tl.constexpr = SHAPE.n
    parts = ()
    if SHAPE.n == SHAPE.size:
        for k in tl.static_range(COUNT):
            parts = parts + (value(phi, table, numbers, k0, k, SHAPE),)
    else:
        for _ in tl.static_range(COUNT):
            parts = parts + (tl.zeros_like(phi[0]),)
        for j in tl.static_range(N):
            function = value(phi, table, numbers, 0, j, SHAPE)
            chosen = ()
            for k in tl.static_range(COUNT):
                chosen = chosen + (tl.where(first == k0 + k - j, function, parts[k]),)
            parts = chosen
    return parts


@triton.jit
def side_by_side(parts):
    """Tiles [R, C], a power of two of them, as [R, len(parts) * C]: the k-th in the k-th C columns."""
    COUNT: tl.constexpr = len(parts)
    LEVELS: tl.constexpr = levels(COUNT)
    for level in tl.static_range(LEVELS):
        pairs = ()
        for pair in tl.static_range(COUNT // 2 ** (level + 1)):
            pairs = pairs + (beside(parts[2 * pair], parts[2 * pair + 1]),)
        parts = pairs
    return parts[0]


@triton.constexpr_function
def levels(count):
    """The exponent of a power of two."""
    return count.bit_length() - 1


@triton.constexpr_function
def apart(tile):
    """Whether each function makes a product of its own: where float32 is not rounded.

    Such products have no tensor cores to fill, and for sm_100 Triton 3.7 rounds a factor that was joined from
    several tiles to TF32, whatever is asked of it.
    """
    tile = Tile(*tile)
    return tile.factor == tl.float32 and tile.precision == "ieee"


@triton.constexpr_function
def rest(size, tile):
    """The functions of an input that are left after whole blocks: (where it begins, how many) of each block.

    Powers of two, the largest first; the last may count functions that are not there: `tl.dot` wants 16.
    """
    tile = Tile(*tile)
    found, first, least = [], size // tile.functions * tile.functions, max(1, 16 // tile.inputs)
    while first < size:
        count = max(1 << ((size - first).bit_length() - 1), least)
        found.append((first, count))
        first += count
    return found


@triton.constexpr_function
def rest_number(size, tile):
    """In how many blocks the rest is taken."""
    return len(rest(size, tile))


@triton.constexpr_function
def rest_begin(size, tile, index):
    """The first function of a block of the rest."""
    return rest(size, tile)[index][0]


@triton.constexpr_function
def rest_count(size, tile, index):
    """The number of functions of a block of the rest."""
    return rest(size, tile)[index][1]


@triton.jit
def multiplied(left, right, acc, TILE: tl.constexpr):
    """acc plus the product of two tiles, rounded to the dtype that is multiplied."""
    FACTOR: tl.constexpr = TILE.factor
    return tl.dot(left.to(FACTOR), right.to(FACTOR), acc, input_precision=TILE.precision, out_dtype=acc.dtype)


@triton.jit
def load_g(g, sizes, e, row, o, PATCH: tl.constexpr = None):
    """g of rows and outputs, or of the taps' outputs that are reached; 0 where there is none."""
    there = (row < sizes.batch) & (o < sizes.outputs)
    if PATCH is None:
        pointers = at(g, e, row, o)
    else:
        own = sizes.outputs // taps(PATCH)
        pointers, reached = tapped(g, sizes, e, row, o % own, o // own, PATCH)
        there = there & reached
    return tl.load(pointers, mask=there, other=0.0)


@triton.jit
def edge(sizes, i, k, o, K: tl.constexpr, PATCH: tl.constexpr):
    """Where the coefficient of i, k and o lies: [i, k, o]; of a channel and tap, [channel, k, tap, o]."""
    T: tl.constexpr = taps(PATCH)
    return (((i // T).to(tl.int64) * K + k) * T + i % T) * sizes.outputs + o


@triton.jit
def load_w(w, sizes, i, k, o, K: tl.constexpr, PATCH: tl.constexpr = None):
    """Coefficients of inputs, functions and outputs of a group, 0 where there are none."""
    there = (i < sizes.inputs) & (k < K) & (o < sizes.outputs)
    return tl.load(w + edge(sizes, i, k, o, K, PATCH), mask=there, other=0.0)


@triton.jit
def add_inputs(
    acc,
    x,
    w,
    s,
    basis,
    sizes,
    e,
    row,
    o,
    k0,
    COUNT: tl.constexpr,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
    PATCH: tl.constexpr,
):
    """acc plus what functions k0 .. k0 + COUNT - 1 of every input bring to a tile of rows x outputs."""
    BI: tl.constexpr = TILE.inputs
    ends, numbers = ends_of(basis, SHAPE), rows_held(basis, k0, COUNT, SHAPE)
    c = tl.arange(0, COUNT * BI)[:, None]
    b = tl.arange(0, BI)
    for i0 in range(0, sizes.inputs, BI):
        first, table, phi = met(x, s, basis, ends, sizes, e, row, i0 + b[None, :], SHAPE, SCALED, PATCH)
        parts = functions(first, table, phi, numbers, k0, COUNT, SHAPE)
        if apart(TILE):
            for k in tl.static_range(COUNT):
                right = load_w(w, sizes, i0 + b[:, None], k0 + k, o, SHAPE.size, PATCH)
                acc = multiplied(parts[k], right, acc, TILE)
        else:
            right = load_w(w, sizes, i0 + c % BI, k0 + c // BI, o, SHAPE.size, PATCH)
            acc = multiplied(side_by_side(parts), right, acc, TILE)
    return acc


@triton.jit
def sum_inputs_dense(
    x,
    w,
    s,
    y,
    basis,
    sizes,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
    PATCH: tl.constexpr,
):
    """y: a tile of rows x outputs, the functions of the inputs as the left factor of a product."""
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    COUNT: tl.constexpr = TILE.functions
    row_tiles, out_tiles = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.outputs, BO)
    pid = tl.program_id(0)
    e, pid = pid // (row_tiles * out_tiles), pid % (row_tiles * out_tiles)
    row = pid % row_tiles * BB + tl.arange(0, BB)[:, None]  # programs side by side share coefficients
    o = pid // row_tiles * BO + tl.arange(0, BO)[None, :]
    w += e.to(tl.int64) * sizes.inputs * SHAPE.size * sizes.outputs
    acc = tl.zeros([BB, BO], basis.knots.dtype.element_ty)
    for block in range(SHAPE.size // COUNT):
        acc = add_inputs(
            acc, x, w, s, basis, sizes, e, row, o, block * COUNT, COUNT, SHAPE, TILE, SCALED, PATCH
        )
    for block in tl.static_range(rest_number(SHAPE.size, TILE)):
        acc = add_inputs(
            acc,
            x,
            w,
            s,
            basis,
            sizes,
            e,
            row,
            o,
            rest_begin(SHAPE.size, TILE, block),
            rest_count(SHAPE.size, TILE, block),
            SHAPE,
            TILE,
            SCALED,
            PATCH,
        )
    there = (row < sizes.batch) & (o < sizes.outputs)
    tl.store(at(y, e, row, o), acc.to(y.data.dtype.element_ty), mask=there)


@triton.jit
def reach(
    x,
    w,
    g,
    basis,
    sizes,
    e,
    row,
    i0,
    k0,
    COUNT: tl.constexpr,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
    PATCH: tl.constexpr,
):
    """What functions k0 .. k0 + COUNT - 1 of BI inputs make of g: [BB, BI]."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    c = tl.arange(0, COUNT * BI)[None, :]
    acc = tl.zeros([BB, COUNT * BI], basis.knots.dtype.element_ty)
    for o0 in range(0, sizes.outputs, BO):
        o = o0 + tl.arange(0, BO)
        right = load_w(w, sizes, i0 + c % BI, k0 + c // BI, o[:, None], SHAPE.size)
        acc = multiplied(load_g(g, sizes, e, row, o[None, :], PATCH), right, acc, TILE)
    i = i0 + tl.arange(0, BI)[None, :]
    first, table, phi = met(x, x, basis, ends_of(basis, SHAPE), sizes, e, row, i, SHAPE)
    parts = functions(first, table, phi, rows_held(basis, k0, COUNT, SHAPE), k0, COUNT, SHAPE)
    return tl.sum(tl.reshape(side_by_side(parts) * acc, (BB, COUNT, BI)), 1)


@triton.jit
def sum_outputs_dense(x, w, g, r, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr, PATCH: tl.constexpr):
    """r: a tile of rows x inputs: g times coefficients, for each function; then times the functions."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    COUNT: tl.constexpr = TILE.functions
    row_tiles, in_tiles = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.inputs, BI)
    pid = tl.program_id(0)
    e, pid = pid // (row_tiles * in_tiles), pid % (row_tiles * in_tiles)
    row = pid % row_tiles * BB + tl.arange(0, BB)[:, None]
    i0 = pid // row_tiles * BI
    w += e.to(tl.int64) * sizes.inputs * SHAPE.size * sizes.outputs
    total = tl.zeros([BB, BI], basis.knots.dtype.element_ty)
    for block in range(SHAPE.size // COUNT):
        total += reach(x, w, g, basis, sizes, e, row, i0, block * COUNT, COUNT, SHAPE, TILE, PATCH)
    for block in tl.static_range(rest_number(SHAPE.size, TILE)):
        total += reach(
            x,
            w,
            g,
            basis,
            sizes,
            e,
            row,
            i0,
            rest_begin(SHAPE.size, TILE, block),
            rest_count(SHAPE.size, TILE, block),
            SHAPE,
            TILE,
            PATCH,
        )
    i = i0 + tl.arange(0, BI)[None, :]
    there = (row < sizes.batch) & (i < sizes.inputs)
    tl.store(at(r, e, row, i), total.to(r.data.dtype.element_ty), mask=there)


@triton.jit
def sum_batch_dense(
    x,
    g,
    s,
    v,
    basis,
    sizes,
    parts,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
    PATCH: tl.constexpr,
):
    """v [parts, E, I, K, O]: a tile of inputs x functions x outputs, summed over one part of the rows."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    COUNT: tl.constexpr = TILE.functions
    K: tl.constexpr = SHAPE.size
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    in_tiles, out_tiles = tl.cdiv(sizes.inputs, BI), tl.cdiv(sizes.outputs, BO)
    GROUPS: tl.constexpr = (K + COUNT - 1) // COUNT
    pid = tl.program_id(0)
    k0, pid = pid % GROUPS * COUNT, pid // GROUPS
    o = pid % out_tiles * BO + tl.arange(0, BO)
    pid = pid // out_tiles
    i0, pid = pid % in_tiles * BI, pid // in_tiles
    part, e = pid % parts, pid // parts
    i = i0 + tl.arange(0, BI)[None, :]
    share = tl.cdiv(tl.cdiv(sizes.batch, BB), parts) * BB
    ends, numbers = ends_of(basis, SHAPE), rows_held(basis, k0, COUNT, SHAPE)
    acc = tl.zeros([BO, COUNT * BI], COMPUTE)
    for row0 in range(part * share, tl.minimum((part + 1) * share, sizes.batch), BB):
        row = row0 + tl.arange(0, BB)[:, None]
        first, table, phi = met(x, s, basis, ends, sizes, e, row, i, SHAPE, SCALED, PATCH)
        right = side_by_side(functions(first, table, phi, numbers, k0, COUNT, SHAPE))
        left = tl.trans(load_g(g, sizes, e, row, o[None, :]))
        acc = multiplied(left, right, acc, TILE)
    c = tl.arange(0, COUNT * BI)[None, :]
    k, of = k0 + c // BI, i0 + c % BI
    groups = tl.num_programs(0) // (GROUPS * out_tiles * in_tiles * parts)
    v += (part.to(tl.int64) * groups + e) * sizes.inputs * K * sizes.outputs
    there = (of < sizes.inputs) & (k < K) & (o[:, None] < sizes.outputs)
    tl.store(v + edge(sizes, of, k, o[:, None], K, PATCH), acc.to(v.dtype.element_ty), mask=there)
