"""Products over inputs, and their first gradients: the functions of every edge, a tile at a time, by gathers.

The inputs are cut into parts. The product of a part's factors is one tile of numbers; those of all the other
parts, times g, are what the gradients inside a part begin with. No factor is divided by.
"""

import triton
import triton.language as tl

from .basis import Basis, Shape, ends_of, rows_held, value
from .dense import functions
from .tiles import Tile, at, met


@triton.constexpr_function
def few(shape, tile):
    """Whether a table is small enough to be held in registers, of which gradients need many."""
    shape, tile = Shape(*shape), Tile(*tile)
    return shape.n * shape.m * (2 if tile.factor == tl.float64 else 1) <= 32


@triton.jit
def held(basis, k0, COUNT: tl.constexpr, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """`rows_held` of a small table."""
    numbers = ()
    if few(SHAPE, TILE):
        numbers = rows_held(basis, k0, COUNT, SHAPE)
    return numbers


@triton.jit
def edges(w, first, table, phi, numbers, sizes, i, o, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """f_oi at a tile of rows x outputs, of one input; 0 where there is no such input or output."""
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    N: tl.constexpr = SHAPE.n
    IN_HAND: tl.constexpr = len(numbers) > 0
    there = (i < sizes.inputs) & (o < sizes.outputs)
    if SHAPE.n == SHAPE.size:  # every row meets the same coefficients
        begin = w + i.to(tl.int64) * N * sizes.outputs + o
    else:
        begin = w + (i.to(tl.int64) * SHAPE.size + first) * sizes.outputs + o
    total = tl.zeros([BB, BO], phi[0].dtype)
    if IN_HAND:
        for j in tl.static_range(N):
            coefficient = tl.load(begin + j * sizes.outputs, mask=there, other=0.0)
            total += value(phi, table, numbers, 0, j, SHAPE) * coefficient.to(total.dtype)
    else:  # a table that is not held must not be loaded at once
        for j in range(N):
            coefficient = tl.load(begin + j * sizes.outputs, mask=there, other=0.0)
            total += value(phi, table, numbers, 0, j, SHAPE) * coefficient.to(total.dtype)
    return total


@triton.jit
def product(x, w, q, basis, sizes, parts, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """q [parts, E, B, O]: a tile of rows x outputs, the product of the factors of one part of the inputs."""
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    BI: tl.constexpr = TILE.inputs
    K: tl.constexpr = SHAPE.size
    row_tiles, out_tiles = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.outputs, BO)
    pid = tl.program_id(0)
    row, pid = pid % row_tiles * BB + tl.arange(0, BB)[:, None], pid // row_tiles
    o, pid = pid % out_tiles * BO + tl.arange(0, BO)[None, :], pid // out_tiles
    part, e = pid % parts, pid // parts
    share = tl.cdiv(tl.cdiv(sizes.inputs, BI), parts) * BI
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    ends, numbers = ends_of(basis, SHAPE), held(basis, 0, K, SHAPE, TILE)
    acc = tl.full([BB, BO], 1.0, basis.knots.dtype.element_ty)
    for at_i in range(part * share, tl.minimum((part + 1) * share, sizes.inputs)):
        i = tl.full([1, 1], at_i, tl.int32)
        first, table, phi = met(x, x, basis, ends, sizes, e, row, i, SHAPE)
        acc *= 1 + edges(w, first, table, phi, numbers, sizes, i, o, SHAPE, TILE)
    groups = tl.num_programs(0) // (row_tiles * out_tiles * parts)
    place = ((part.to(tl.int64) * groups + e) * sizes.batch + row) * sizes.outputs + o
    tl.store(q + place, acc.to(q.dtype.element_ty), mask=(row < sizes.batch) & (o < sizes.outputs))


@triton.jit
def others(q, g, h, sizes, parts, TILE: tl.constexpr):
    """h [parts, E, B, O]: g times the products q of all other parts."""
    BO: tl.constexpr = TILE.outputs
    out_tiles = tl.cdiv(sizes.outputs, BO)
    pid = tl.program_id(0)
    o, pid = pid % out_tiles * BO + tl.arange(0, BO), pid // out_tiles
    row, e = pid % sizes.batch, pid // sizes.batch
    inside = o < sizes.outputs
    place = pid.to(tl.int64) * sizes.outputs + o
    step = tl.num_programs(0).to(tl.int64) // out_tiles * sizes.outputs
    before = tl.load(at(g, e, row, o), mask=inside, other=0.0).to(q.dtype.element_ty)
    for part in range(parts):
        tl.store(h + part * step + place, before, mask=inside)
        before *= tl.load(q + part * step + place, mask=inside, other=0.0)
    behind = tl.full([BO], 1.0, q.dtype.element_ty)
    for back in range(parts):
        part = parts - 1 - back
        before = tl.load(h + part * step + place, mask=inside, other=0.0)
        tl.store(h + part * step + place, before * behind, mask=inside)
        behind *= tl.load(q + part * step + place, mask=inside, other=0.0)


@triton.jit
def exclusive(factors, h):
    """h times all factors but one, for each of them: a tuple."""
    COUNT: tl.constexpr = len(factors)
    behind = (tl.full(factors[0].shape, 1.0, factors[0].dtype),)
    for back in tl.static_range(1, COUNT):
        behind = (behind[0] * factors[COUNT - back],) + behind
    found = ()
    for t in tl.static_range(COUNT):
        found = found + (h * behind[t],)
        h = h * factors[t]
    return found


@triton.jit
def product_of_x(x, w, h, r, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """r: a tile of rows x the inputs of one part."""
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    BI: tl.constexpr = TILE.inputs
    K: tl.constexpr = SHAPE.size
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    row_tiles, parts = tl.cdiv(sizes.batch, BB), tl.cdiv(sizes.inputs, BI)
    pid = tl.program_id(0)
    row, pid = pid % row_tiles * BB + tl.arange(0, BB)[:, None], pid // row_tiles
    part, e = pid % parts, pid // parts
    groups = tl.num_programs(0) // (row_tiles * parts)
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    h += ((part.to(tl.int64) * groups + e) * sizes.batch + row) * sizes.outputs
    # the table of the next derivative lies behind this one
    distance = (sizes.inputs if SHAPE.own_table else 1) * (SHAPE.tables * SHAPE.n * SHAPE.m)
    steep = Basis(basis.domain, basis.knots, basis.table + distance, basis.start)
    ends, numbers = ends_of(basis, SHAPE), held(basis, 0, K, SHAPE, TILE)
    slopes = held(steep, 0, K, SHAPE, TILE)
    column = tl.arange(0, BI)[None, :]
    total = tl.zeros([BB, BI], COMPUTE)
    for o0 in range(0, sizes.outputs, BO):
        o = o0 + tl.arange(0, BO)[None, :]
        there = (row < sizes.batch) & (o < sizes.outputs)
        rest = tl.load(h + o, mask=there, other=0.0)
        factors, slants = (), ()
        for t in tl.static_range(BI):
            i = tl.full([1, 1], part * BI + t, tl.int32)
            first, table, phi = met(x, x, basis, ends, sizes, e, row, i, SHAPE)
            factor = 1 + edges(w, first, table, phi, numbers, sizes, i, o, SHAPE, TILE)
            slant = edges(w, first, table + distance, phi, slopes, sizes, i, o, SHAPE, TILE)
            factors, slants = factors + (factor,), slants + (slant,)
        pulled = exclusive(factors, rest)
        for t in tl.static_range(BI):
            total += tl.where(column == t, tl.sum(pulled[t] * slants[t], 1)[:, None], 0.0)
    i = part * BI + column
    there = (row < sizes.batch) & (i < sizes.inputs)
    tl.store(at(r, e, row, i), total.to(r.data.dtype.element_ty), mask=there)


@triton.jit
def product_of_w(x, w, h, v, basis, sizes, parts, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """v [parts, E, I, K, O]: the inputs of one part of the product, some functions, a tile of outputs.

    Summed over one of `parts` of the rows.
    """
    BB: tl.constexpr = TILE.rows
    BO: tl.constexpr = TILE.outputs
    BI: tl.constexpr = TILE.inputs
    COUNT: tl.constexpr = TILE.functions
    K: tl.constexpr = SHAPE.size
    COMPUTE: tl.constexpr = basis.knots.dtype.element_ty
    in_tiles, out_tiles = tl.cdiv(sizes.inputs, BI), tl.cdiv(sizes.outputs, BO)
    BLOCKS: tl.constexpr = (K + COUNT - 1) // COUNT
    pid = tl.program_id(0)
    k0, pid = pid % BLOCKS * COUNT, pid // BLOCKS
    o, pid = pid % out_tiles * BO + tl.arange(0, BO)[None, :], pid // out_tiles
    cut, pid = pid % in_tiles, pid // in_tiles
    part, e = pid % parts, pid // parts
    groups = tl.num_programs(0) // (BLOCKS * out_tiles * in_tiles * parts)
    share = tl.cdiv(tl.cdiv(sizes.batch, BB), parts) * BB
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    h += (cut.to(tl.int64) * groups + e) * sizes.batch * sizes.outputs
    ends, numbers = ends_of(basis, SHAPE), held(basis, 0, K, SHAPE, TILE)
    block = numbers
    if SHAPE.n == SHAPE.size:
        block = held(basis, k0, COUNT, SHAPE, TILE)
    acc = ()
    for _ in tl.static_range(BI * COUNT):
        acc = acc + (tl.zeros([BB, BO], COMPUTE),)
    for row0 in range(part * share, tl.minimum((part + 1) * share, sizes.batch), BB):
        row = row0 + tl.arange(0, BB)[:, None]
        there = (row < sizes.batch) & (o < sizes.outputs)
        rest = tl.load(h + row.to(tl.int64) * sizes.outputs + o, mask=there, other=0.0)
        factors, values = (), ()
        for t in tl.static_range(BI):
            i = tl.full([1, 1], cut * BI + t, tl.int32)
            first, table, phi = met(x, x, basis, ends, sizes, e, row, i, SHAPE)
            factor = 1 + edges(w, first, table, phi, numbers, sizes, i, o, SHAPE, TILE)
            factors = factors + (factor,)
            values = values + functions(first, table, phi, block, k0, COUNT, SHAPE)
        pulled = exclusive(factors, rest)
        more = ()
        for c in tl.static_range(BI * COUNT):
            more = more + (acc[c] + values[c] * pulled[c // COUNT],)
        acc = more
    v += (part.to(tl.int64) * groups + e) * sizes.inputs * K * sizes.outputs
    for c in tl.static_range(BI * COUNT):
        i, k = tl.full([1, 1], cut * BI + c // COUNT, tl.int32), k0 + c % COUNT
        there = (i < sizes.inputs) & (k < K) & (o < sizes.outputs)
        total = tl.sum(acc[c], 0)[None, :].to(v.dtype.element_ty)
        tl.store(v + (i.to(tl.int64) * K + k) * sizes.outputs + o, total, mask=there)
