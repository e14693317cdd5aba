"""The three contractions of the form as kernels: dense tiles for tensor cores, and gathers.

The letters are those of reference.py. A program works on one tile of the result; which one, it reads from
`tl.program_id(0)`. w and the results are contiguous, the others come with their strides.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .basis import held, meet, value


class Rows(NamedTuple):
    """A tensor [E, B, columns] with its strides."""

    data: Any
    group: int
    row: int
    column: int


class Sizes(NamedTuple):
    """The axes of a call."""

    batch: int
    inputs: int
    outputs: int


class Tile(NamedTuple):
    """What one program computes at a time: rows, inputs, outputs, and at most so many functions of an input.

    precision: of products of float32 numbers, as for `tl.dot`; factor: the dtype of what is multiplied.
    """

    rows: int
    inputs: int
    outputs: int
    functions: int
    precision: str
    factor: Any


@triton.jit
def at(t, e, row, column):
    """Pointers to t[e, row, column]."""
    return t.data + e.to(tl.int64) * t.group + row.to(tl.int64) * t.row + column.to(tl.int64) * t.column


@triton.jit
def beside(a, b):
    """[R, C] and [R, C] as [R, 2 C], in registers."""
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (a.shape[0], 2 * a.shape[1]))


@triton.jit
def side_by_side(first, table, phi, numbers, k0, COUNT: tl.constexpr, SHAPE: tl.constexpr):
    """The functions k0 .. k0 + COUNT - 1 at a tile [R, C]: [R, COUNT * C], function k in the k-th C columns.

    COUNT is a power of two. numbers are the table's rows from k0 on where every window is all of the
    coefficients, else all rows.
    """
    N: tl.constexpr = SHAPE.n
    parts = ()
    if SHAPE.n == SHAPE.size:
        for k in tl.static_range(COUNT):
            parts = parts + (value(phi, table, numbers, k0, k, True, SHAPE),)
    else:
        for _ in tl.static_range(COUNT):
            parts = parts + (tl.zeros_like(phi[0]),)
        for j in tl.static_range(N):
            met = value(phi, table, numbers, 0, j, True, SHAPE)
            chosen = ()
            for k in tl.static_range(COUNT):
                chosen = chosen + (tl.where(first == k0 + k - j, met, parts[k]),)
            parts = chosen
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
def blocks(size, tile):
    """The functions of an input in powers of two, the largest first: (where it begins, how many) of each.

    The last may count functions that are not there: `tl.dot` wants 16 columns.
    """
    found, first, least = [], 0, max(1, 16 // tile.inputs)
    while first < size:
        count = max(min(tile.functions, 1 << ((size - first).bit_length() - 1)), least)
        found.append((first, count))
        first += count
    return found


@triton.constexpr_function
def block_number(size, tile):
    """In how many blocks the functions of an input are taken."""
    return len(blocks(size, tile))


@triton.constexpr_function
def block_begin(size, tile, index):
    """The first function of a block."""
    return blocks(size, tile)[index][0]


@triton.constexpr_function
def block_count(size, tile, index):
    """The number of functions of a block, a power of two."""
    return blocks(size, tile)[index][1]


@triton.jit
def times(phi, s, there, e, row, feature, SCALED: tl.constexpr):
    """The features times s, if there is one."""
    if SCALED:
        scale = tl.load(at(s, e, row, feature), mask=there, other=0.0).to(phi[0].dtype)
        product = ()
        for part in tl.static_range(len(phi)):
            product = product + (phi[part] * scale,)
        return product
    else:
        return phi


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
    K0: tl.constexpr,
    COUNT: tl.constexpr,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
):
    """acc plus what the functions K0 .. K0 + COUNT - 1 of every input bring to a tile of rows x outputs."""
    BI: tl.constexpr = TILE.inputs
    K: tl.constexpr = SHAPE.size
    FACTOR: tl.constexpr = TILE.factor
    COMPUTE: tl.constexpr = acc.dtype
    ROWS: tl.constexpr = COUNT if SHAPE.n == K else SHAPE.n
    ends, numbers = held(basis, K0 if SHAPE.n == K else 0, ROWS, SHAPE)
    c = tl.arange(0, COUNT * BI)[:, None]
    for i0 in range(0, sizes.inputs, BI):
        i = i0 + tl.arange(0, BI)[None, :]
        there = (row < sizes.batch) & (i < sizes.inputs)
        points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(COMPUTE)
        first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
        left = side_by_side(first, table, times(phi, s, there, e, row, i, SCALED), numbers, K0, COUNT, SHAPE)
        of = i0 + c % BI
        at_w = w + (of.to(tl.int64) * K + (K0 + c // BI)) * sizes.outputs + o
        of_w = (of < sizes.inputs) & (K0 + c // BI < K) & (o < sizes.outputs)
        right = tl.load(at_w, mask=of_w, other=0.0)
        acc = tl.dot(
            left.to(FACTOR), right.to(FACTOR), acc, input_precision=TILE.precision, out_dtype=COMPUTE
        )
    return acc


@triton.jit
def sum_inputs_dense(x, w, s, y, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr, SCALED: tl.constexpr):
    """y: a tile of rows x outputs, the functions of the inputs as the left factor of a product."""
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    K: tl.constexpr = SHAPE.size
    row_tiles, out_tiles = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.outputs, BO)
    pid = tl.program_id(0)
    e, pid = pid // (row_tiles * out_tiles), pid % (row_tiles * out_tiles)
    row = pid % row_tiles * BB + tl.arange(0, BB)[:, None]  # programs side by side share coefficients
    o = pid // row_tiles * BO + tl.arange(0, BO)[None, :]
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    acc = tl.zeros([BB, BO], basis.knots.dtype.element_ty)
    for block in tl.static_range(block_number(K, TILE)):
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
            block_begin(K, TILE, block),
            block_count(K, TILE, block),
            SHAPE,
            TILE,
            SCALED,
        )
    at_y = y + (e.to(tl.int64) * sizes.batch + row) * sizes.outputs + o
    tl.store(at_y, acc.to(y.dtype.element_ty), mask=(row < sizes.batch) & (o < sizes.outputs))


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
    K0: tl.constexpr,
    COUNT: tl.constexpr,
    SHAPE: tl.constexpr,
    TILE: tl.constexpr,
):
    """What the functions K0 .. K0 + COUNT - 1 of BI inputs make of g: [BB, BI]."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    FACTOR: tl.constexpr = TILE.factor
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    c = tl.arange(0, COUNT * BI)[None, :]
    of = i0 + c % BI
    begin = w + (of.to(tl.int64) * SHAPE.size + (K0 + c // BI)) * sizes.outputs
    acc = tl.zeros([BB, COUNT * BI], COMPUTE)
    for o0 in range(0, sizes.outputs, BO):
        o = o0 + tl.arange(0, BO)
        of_g = (row < sizes.batch) & (o[None, :] < sizes.outputs)
        of_w = (of < sizes.inputs) & (K0 + c // BI < SHAPE.size) & (o[:, None] < sizes.outputs)
        left = tl.load(at(g, e, row, o[None, :]), mask=of_g, other=0.0)
        right = tl.load(begin + o[:, None], mask=of_w, other=0.0)
        acc = tl.dot(
            left.to(FACTOR), right.to(FACTOR), acc, input_precision=TILE.precision, out_dtype=COMPUTE
        )
    i = i0 + tl.arange(0, BI)[None, :]
    there = (row < sizes.batch) & (i < sizes.inputs)
    points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(COMPUTE)
    ROWS: tl.constexpr = COUNT if SHAPE.n == SHAPE.size else SHAPE.n
    ends, numbers = held(basis, K0 if SHAPE.n == SHAPE.size else 0, ROWS, SHAPE)
    first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
    functions = side_by_side(first, table, phi, numbers, K0, COUNT, SHAPE)
    return tl.sum(tl.reshape(functions * acc, (BB, COUNT, BI)), 1)


@triton.jit
def sum_outputs_dense(x, w, g, r, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """r: a tile of rows x inputs: g times coefficients, for each function; then times the functions."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    K: tl.constexpr = SHAPE.size
    row_tiles, in_tiles = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.inputs, BI)
    pid = tl.program_id(0)
    e, pid = pid // (row_tiles * in_tiles), pid % (row_tiles * in_tiles)
    row = pid % row_tiles * BB + tl.arange(0, BB)[:, None]
    i0 = pid // row_tiles * BI
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    total = tl.zeros([BB, BI], basis.knots.dtype.element_ty)
    for block in tl.static_range(block_number(K, TILE)):
        total += reach(
            x,
            w,
            g,
            basis,
            sizes,
            e,
            row,
            i0,
            block_begin(K, TILE, block),
            block_count(K, TILE, block),
            SHAPE,
            TILE,
        )
    i = i0 + tl.arange(0, BI)[None, :]
    at_r = r + (e.to(tl.int64) * sizes.batch + row) * sizes.inputs + i
    tl.store(at_r, total.to(r.dtype.element_ty), mask=(row < sizes.batch) & (i < sizes.inputs))


@triton.jit
def sum_batch_dense(
    x, g, s, v, basis, sizes, parts, SHAPE: tl.constexpr, TILE: tl.constexpr, SCALED: tl.constexpr
):
    """v [parts, E, I, K, O]: a tile of inputs x functions x outputs, summed over one part of the rows."""
    BB: tl.constexpr = TILE.rows
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    COUNT: tl.constexpr = TILE.functions
    K: tl.constexpr = SHAPE.size
    FACTOR: tl.constexpr = TILE.factor
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    ROWS: tl.constexpr = COUNT if SHAPE.n == K else SHAPE.n
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
    ends, numbers = held(basis, k0 if SHAPE.n == K else 0, ROWS, SHAPE)
    acc = tl.zeros([BO, COUNT * BI], COMPUTE)
    for row0 in range(part * share, tl.minimum((part + 1) * share, sizes.batch), BB):
        row = row0 + tl.arange(0, BB)[:, None]
        there = (row < sizes.batch) & (i < sizes.inputs)
        points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(COMPUTE)
        first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
        right = side_by_side(first, table, times(phi, s, there, e, row, i, SCALED), numbers, k0, COUNT, SHAPE)
        left = tl.load(
            at(g, e, row, o[None, :]), mask=(row < sizes.batch) & (o[None, :] < sizes.outputs), other=0.0
        )
        acc = tl.dot(
            tl.trans(left).to(FACTOR),
            right.to(FACTOR),
            acc,
            input_precision=TILE.precision,
            out_dtype=COMPUTE,
        )
    c = tl.arange(0, COUNT * BI)[None, :]
    k, of = k0 + c // BI, i0 + c % BI
    edge = (
        part.to(tl.int64) * (tl.num_programs(0) // (GROUPS * out_tiles * in_tiles * parts)) + e
    ) * sizes.inputs + of
    at_v = v + (edge * K + k) * sizes.outputs + o[:, None]
    there = (of < sizes.inputs) & (k < K) & (o[:, None] < sizes.outputs)
    tl.store(at_v, acc.to(v.dtype.element_ty), mask=there)


@triton.jit
def sum_inputs_gather(
    x, w, s, y, basis, sizes, parts, SHAPE: tl.constexpr, TILE: tl.constexpr, SCALED: tl.constexpr
):
    """y [parts, E, B, O]: outputs of one row, the coefficients it meets of one part of the inputs."""
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    K: tl.constexpr = SHAPE.size
    N: tl.constexpr = SHAPE.n
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    out_tiles = tl.cdiv(sizes.outputs, BO)
    pid = tl.program_id(0)
    o, pid = pid % out_tiles * BO + tl.arange(0, BO)[None, :], pid // out_tiles
    part, pid = pid % parts, pid // parts
    row, e = pid % sizes.batch, pid // sizes.batch
    share = tl.cdiv(tl.cdiv(sizes.inputs, BI), parts) * BI
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    ends, _ = held(basis, 0, 0, SHAPE)
    acc = tl.zeros([BI, BO], COMPUTE)
    for i0 in range(part * share, tl.minimum((part + 1) * share, sizes.inputs), BI):
        i = i0 + tl.arange(0, BI)[:, None]
        there = i < sizes.inputs
        points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(COMPUTE)
        first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
        phi = times(phi, s, there, e, row, i, SCALED)
        begin = w + (i.to(tl.int64) * K + first) * sizes.outputs + o
        for j in range(N):
            met = tl.load(begin + j * sizes.outputs, mask=there & (o < sizes.outputs), other=0.0)
            acc += value(phi, table, (), 0, j, False, SHAPE) * met.to(COMPUTE)
    total = tl.sum(acc, 0)[None, :]
    groups = tl.num_programs(0) // (out_tiles * parts * sizes.batch)
    at_y = y + ((part.to(tl.int64) * groups + e) * sizes.batch + row) * sizes.outputs + o
    tl.store(at_y, total.to(y.dtype.element_ty), mask=o < sizes.outputs)


@triton.jit
def sum_outputs_gather(x, w, g, r, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """r: some inputs of one row, by the coefficients they meet."""
    BI: tl.constexpr = TILE.inputs
    BO: tl.constexpr = TILE.outputs
    K: tl.constexpr = SHAPE.size
    N: tl.constexpr = SHAPE.n
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    in_tiles = tl.cdiv(sizes.inputs, BI)
    pid = tl.program_id(0)
    i, pid = pid % in_tiles * BI + tl.arange(0, BI)[:, None], pid // in_tiles
    row, e = pid % sizes.batch, pid // sizes.batch
    there = i < sizes.inputs
    points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(COMPUTE)
    ends, _ = held(basis, 0, 0, SHAPE)
    first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    begin = w + (i.to(tl.int64) * K + first) * sizes.outputs
    acc = tl.zeros([BI, BO], COMPUTE)
    for o0 in range(0, sizes.outputs, BO):
        o = o0 + tl.arange(0, BO)[None, :]
        inside = o < sizes.outputs
        cotangent = tl.load(at(g, e, row, o), mask=inside, other=0.0).to(COMPUTE)
        function = tl.zeros([BI, BO], COMPUTE)
        for j in range(N):
            met = tl.load(begin + j * sizes.outputs + o, mask=there & inside, other=0.0)
            function += value(phi, table, (), 0, j, False, SHAPE) * met.to(COMPUTE)
        acc += function * cotangent
    at_r = r + (e.to(tl.int64) * sizes.batch + row) * sizes.inputs + i
    tl.store(at_r, tl.sum(acc, 1)[:, None].to(r.dtype.element_ty), mask=there)
