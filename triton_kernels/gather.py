"""The form by gathers: the coefficients that a row meets, by index; for few rows, or many functions."""

import triton
import triton.language as tl

from .basis import ends_of, value
from .tiles import at, met


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
    ends = ends_of(basis, SHAPE)
    acc = tl.zeros([BI, BO], COMPUTE)
    for i0 in range(part * share, tl.minimum((part + 1) * share, sizes.inputs), BI):
        i = i0 + tl.arange(0, BI)[:, None]
        there = i < sizes.inputs
        first, table, phi = met(x, s, basis, ends, sizes, e, row, i, SHAPE, SCALED)
        begin = w + (i.to(tl.int64) * K + first) * sizes.outputs + o
        for j in range(N):
            coefficient = tl.load(begin + j * sizes.outputs, mask=there & (o < sizes.outputs), other=0.0)
            acc += value(phi, table, (), 0, j, SHAPE) * coefficient.to(COMPUTE)
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
    first, table, phi = met(x, x, basis, ends_of(basis, SHAPE), sizes, e, row, i, SHAPE)
    w += e.to(tl.int64) * sizes.inputs * K * sizes.outputs
    begin = w + (i.to(tl.int64) * K + first) * sizes.outputs
    acc = tl.zeros([BI, BO], COMPUTE)
    for o0 in range(0, sizes.outputs, BO):
        o = o0 + tl.arange(0, BO)[None, :]
        inside = o < sizes.outputs
        cotangent = tl.load(at(g, e, row, o), mask=inside, other=0.0).to(COMPUTE)
        function = tl.zeros([BI, BO], COMPUTE)
        for j in range(N):
            coefficient = tl.load(begin + j * sizes.outputs + o, mask=there & inside, other=0.0)
            function += value(phi, table, (), 0, j, SHAPE) * coefficient.to(COMPUTE)
        acc += function * cotangent
    at_r = r + (e.to(tl.int64) * sizes.batch + row) * sizes.inputs + i
    tl.store(at_r, tl.sum(acc, 1)[:, None].to(r.dtype.element_ty), mask=there)
