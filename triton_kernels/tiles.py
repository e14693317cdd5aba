"""What every kernel of the form takes and begins with: strided tensors, sizes, tiles, what x meets.

The letters are those of reference.py. A program works on one tile of the result; which one, it reads from
`tl.program_id(0)`. w and the results are contiguous, the others come with their strides.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .basis import meet
from .patches import tapped, taps


class Rows(NamedTuple):
    """A tensor [E, B, columns] with its strides; the rows of images are `plane` adjacent places of each."""

    data: Any
    group: int
    row: int
    column: int
    plane: int = 1


class Sizes(NamedTuple):
    """The axes of a call; of a convolution, too, the images whose places are rows, and those its taps reach.

    Where x is reached, inputs count a channel for each tap, the tap fastest; where g is reached, outputs do,
    the tap slowest.
    """

    batch: int
    inputs: int
    outputs: int
    own0: int = 1
    own1: int = 1
    own2: int = 1
    other0: int = 1
    other1: int = 1
    other2: int = 1


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
    place = (row // t.plane).to(tl.int64) * t.row + row % t.plane
    return t.data + e.to(tl.int64) * t.group + place + column.to(tl.int64) * t.column


@triton.jit
def met(
    x,
    s,
    basis,
    ends,
    sizes,
    e,
    row,
    i,
    SHAPE: tl.constexpr,
    SCALED: tl.constexpr = False,
    PATCH: tl.constexpr = None,
):
    """`meet` for the points of rows and inputs; features times s, if any; 0 where a tap reaches nothing."""
    there = (row < sizes.batch) & (i < sizes.inputs)
    if PATCH is None:
        points = tl.load(at(x, e, row, i), mask=there, other=0.0).to(basis.knots.dtype.element_ty)
        first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1), basis, ends, SHAPE)
    else:
        T: tl.constexpr = taps(PATCH)
        pointers, reached = tapped(x, sizes, e, row, i // T, i % T, PATCH)
        points = tl.load(pointers, mask=there & reached, other=0.0).to(basis.knots.dtype.element_ty)
        first, table, phi = meet(points, tl.minimum(i, sizes.inputs - 1) // T, basis, ends, SHAPE)
        present = ()
        for f in tl.static_range(len(phi)):
            present = present + (tl.where(reached, phi[f], 0.0),)
        phi = present
    if SCALED:
        scale = tl.load(at(s, e, row, i), mask=there, other=0.0).to(points.dtype)
        product = ()
        for f in tl.static_range(len(phi)):
            product = product + (phi[f] * scale,)
        phi = product
    return first, table, phi
