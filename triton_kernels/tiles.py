"""What every kernel of the form takes and begins with: strided tensors, sizes, tiles, what x meets.

The letters are those of reference.py. A program works on one tile of the result; which one, it reads from
`tl.program_id(0)`. w and the results are contiguous, the others come with their strides.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .basis import meet


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
def met(x, s, basis, ends, sizes, e, row, i, SHAPE: tl.constexpr, SCALED: tl.constexpr):
    """`meet` for the points of rows and inputs, 0 where there are none; features times s, if there is one."""
    there = (row < sizes.batch) & (i < sizes.inputs)
    points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(basis.knots.dtype.element_ty)
    first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
    if SCALED:
        scale = tl.load(at(s, e, row, i), mask=there, other=0.0).to(points.dtype)
        product = ()
        for f in tl.static_range(len(phi)):
            product = product + (phi[f] * scale,)
        phi = product
    return first, table, phi
