"""The cost model: which kernel, in which tiles, for a contraction of given sizes.

Tiles and limits are those that were fastest on an H100 (docs/performance.md); elsewhere they are guesses.
"""

from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

import torch
import triton.language as tl

from high_order_fused.gpu_cost import gathers, parts

from . import dense, expansion, gather, product
from .basis import Shape
from .library import ROOM
from .library import allowed as library_allowed
from .tiles import Sizes, Tile

LIBRARY_WORK = 2**29  # multiplications from which on launches are not what counts
FEW_ROWS = 64  # of so many a product takes as long as of one: it reads all coefficients
MOST_FUNCTIONS = 64  # of one input, in dense tiles that take all of them: longer kernels compile for minutes


_FACTORS = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


_HALF = (tl.bfloat16, tl.float16)


class Choice(NamedTuple):
    """A kernel, its tile, its launch, the parts its sum is cut into."""

    kernel: str
    tile: Tile
    warps: int
    stages: int
    parts: int = 1

    @property
    def library(self) -> bool:
        """Whether the library makes the product, of what the kernel writes."""
        return self.kernel == "expand"


@cache
def function(kernel: str) -> Any:
    """The kernel of that name."""
    homes = (dense, gather, expansion, product)
    return next(getattr(home, kernel) for home in homes if hasattr(home, kernel))


def chosen(
    contraction: str,
    groups: int,
    sizes: Sizes,
    shape: Shape,
    dtype: torch.dtype,
    processors: int,
    spilled: Collection[Choice] = (),
    images: bool = False,
    cores: bool = True,
) -> Choice:
    """How `contraction` of factors in `dtype` runs on so many multiprocessors.

    spilled: choices, of one part, whose compiled code was seen to spill registers. images: rows are the
    places of a convolution's images, for which there are no gathers. cores: tensor cores that take
    float32 rounded to TF32 or bfloat16.
    """
    if contraction.startswith("product"):
        tiles = _without(spilled, _product(contraction, shape, dtype))
        return tiles._replace(parts=_product_parts(contraction, groups, sizes, shape, tiles.tile, processors))
    precision = _precision(contraction, dtype, cores)
    tiles = _without(spilled, _dense(contraction, sizes, shape, dtype, precision, images))
    library = not images and contraction != "sum_outputs" and _by_library(sizes, shape, dtype)
    if contraction != "sum_batch" and not images:
        padded = (
            max(sizes.batch, FEW_ROWS) if library else -(-sizes.batch // tiles.tile.rows) * tiles.tile.rows
        )
        hopeless = not library and (tiles in spilled or shape.size > MOST_FUNCTIONS)  # down to the smallest
        if gathers(sizes.batch * shape.n, padded * shape.size, precision, hopeless):
            gather = _without(spilled, _gather(contraction))
            return gather._replace(parts=_gather_parts(contraction, groups, sizes, gather.tile, processors))
    if library:
        return written_out(sizes, shape, dtype)
    return _sum_batch(groups, sizes, shape, tiles, processors) if contraction == "sum_batch" else tiles


def _precision(contraction: str, dtype: torch.dtype, cores: bool) -> str:
    """How factors are multiplied: float32 as three products of tensor cores, which lose nothing of it.

    Each of them takes a number's high or low half, in TF32, or in bfloat16 where torch's own may lose bits.
    There TF32 alone is faster only where coefficients lie as tensor cores read them.
    """
    if dtype.itemsize == 2:
        return "16 bits"
    rounded = torch.get_float32_matmul_precision() != "highest"
    if dtype == torch.float64 or not (cores or rounded):
        return "ieee"
    if not rounded:
        return "tf32x3"
    return "bf16x3" if cores and contraction != "sum_outputs" else "tf32"


def _by_library(sizes: Sizes, shape: Shape, dtype: torch.dtype) -> bool:
    """Whether the library's product of written out functions is faster than tiles that make them.

    Its functions are written and read again, which many outputs pay for, and it takes more launches.
    """
    work = sizes.batch * sizes.inputs * shape.size * sizes.outputs
    fit = ROOM // (sizes.inputs * shape.size * dtype.itemsize)
    enough = work >= LIBRARY_WORK and sizes.outputs >= 64 and fit >= min(sizes.batch, FEW_ROWS)
    return enough and library_allowed()


def written_out(sizes: Sizes, shape: Shape, dtype: torch.dtype) -> Choice:
    """What writes functions out for the library, in tiles of 512 points."""
    inputs = min(64, 1 << (sizes.inputs - 1).bit_length())
    functions = min(8, 1 << (shape.size - 1).bit_length())
    tile = Tile(512 // inputs, inputs, 1, functions, "ieee", _FACTORS[dtype])
    return Choice("expand", tile, 4, 1)


def _dense(
    contraction: str, sizes: Sizes, shape: Shape, dtype: torch.dtype, precision: str, images: bool
) -> Choice:
    """The fastest tile of those measured, if its compiled code keeps all of its numbers in registers."""
    held = shape.tables == 1 and not shape.own_table  # table rows can stay in registers for the whole loop
    simple = held and shape.n == shape.size and shape.m <= 8
    by_batch, by_outputs = contraction == "sum_batch", contraction == "sum_outputs"
    many, warps, stages = shape.size >= 8, 4, 1
    if dtype == torch.float64:
        rows, inputs, outputs, functions = 32 if simple else 16, 8, 32 if shape.m <= 8 else 16, 2
    elif precision == "ieee":
        rows, inputs, outputs, functions = 64, 16, 32 if by_outputs and not simple else 64, 4
        if by_batch:
            rows, inputs, functions = 64 if held else 32, 32, 1
    elif (
        by_outputs
    ):  # a product, and functions once at its end: the only loop whose loads gain by being ahead
        rows, inputs, outputs, functions = 64, 16, 128 if precision == "16 bits" else 64, 4
        if precision == "16 bits" and many:
            functions = 8
        elif precision != "tf32x3":
            rows, warps, stages = 128, 8, 2
    elif by_batch:
        rows, inputs, outputs, functions = 64, 16, 64 if precision == "tf32x3" else 128, 4
        if precision == "16 bits" and shape.size >= 16:
            inputs, functions = 8, 16
        elif precision == "bf16x3" and many:
            rows, inputs, functions, warps = 128, 8, 8, 8
    elif precision == "16 bits":
        rows, inputs, outputs, functions = 64, 16, 128, 4
        if many:
            rows, inputs, outputs, functions, warps = (
                (128, 8, 256, 8, 8) if sizes.outputs >= 256 else (64, 8, 128, 8, 4)
            )
    else:
        rows, inputs, outputs, functions, warps = (128, 8, 128, 8, 8) if many else (128, 16, 128, 4, 8)
    if shape.m > 8:
        rows, functions = min(rows, 32 if precision == "ieee" else 64), min(functions, 4)
        if dtype == torch.float64:
            inputs, functions = 16, 1
        elif precision == "ieee" and by_outputs:
            functions = 1
    if images and contraction == "sum_inputs" and dtype == torch.float64 and shape.m <= 8:
        rows = 32  # of fewer, ptxas settles on 72 registers and spills
    if images and by_outputs:  # every number of g has an address of its own
        rows, outputs = min(rows, 32 if precision == "ieee" else 64), 64 if precision == "16 bits" else 32
        functions, stages = min(functions, 4), 1
    functions = min(functions, 1 << (shape.size.bit_length() - 1))
    functions = max(functions, 16 // inputs)
    warps = _warps(warps, rows)
    tile = Tile(
        rows, inputs, outputs, functions, "ieee" if precision == "16 bits" else precision, _FACTORS[dtype]
    )
    return Choice(f"{contraction}_dense", tile, warps, stages)


def _warps(warps: int, rows: int) -> int:
    """At most one for each 16 rows, but four: of a factor in registers a warp has 16 rows."""
    return min(warps, max(4, rows // 16))


def _without(spilled: Collection[Choice], how: Choice) -> Choice:
    """how, or the first smaller one that is not among the spilled, if there is one."""
    least = how
    while least in spilled:
        after = smaller(least)
        if after is None:
            return how
        least = after
    return least


def smaller(how: Choice) -> Choice | None:
    """The next tile to take where the compiled code spills registers; None after the smallest."""
    tile = how.tile
    if how.kernel.startswith("product"):
        return _smaller_product(how)
    if how.kernel.endswith("gather"):
        return how._replace(tile=tile._replace(outputs=tile.outputs // 2)) if tile.outputs > 16 else None
    fewer = how._replace(tile=tile._replace(rows=tile.rows // 2), warps=_warps(how.warps, tile.rows // 2))
    if tile.rows > (64 if tile.precision != "ieee" or tile.factor in _HALF else 16):
        return fewer
    if tile.functions > max(1, 16 // tile.inputs):
        return how._replace(tile=tile._replace(functions=tile.functions // 2))
    if tile.outputs > 16:
        return how._replace(tile=tile._replace(outputs=tile.outputs // 2))
    if tile.rows > 16:
        return fewer
    if how.stages > 1:
        return how._replace(stages=1)
    return None


def _sum_batch(groups: int, sizes: Sizes, shape: Shape, how: Choice, processors: int) -> Choice:
    tile = how.tile
    programs = groups * -(-sizes.inputs // tile.inputs) * -(-sizes.outputs // tile.outputs)
    programs *= -(-shape.size // tile.functions)
    return how._replace(parts=parts(programs, 2 * processors, -(-sizes.batch // (4 * tile.rows))))


def _gather(contraction: str) -> Choice:
    return Choice(f"{contraction}_gather", Tile(1, 8, 64, 1, "ieee", tl.float32), 4, 1)


def _gather_parts(contraction: str, groups: int, sizes: Sizes, tile: Tile, processors: int) -> int:
    if contraction == "sum_outputs":
        return 1
    programs = groups * sizes.batch * -(-sizes.outputs // tile.outputs)
    return parts(programs, 4 * processors, -(-sizes.inputs // tile.inputs))


def at_once(shape: Shape, dtype: torch.dtype) -> int:
    """How many inputs' factors are held in registers for the gradients of a product."""
    return (1 if dtype == torch.float64 else 2) * (1 if shape.m > 5 else 2)


def _product(contraction: str, shape: Shape, dtype: torch.dtype) -> Choice:
    """Few rows, many outputs: what x meets is found once for a row, the coefficients lie side by side."""
    double = dtype == torch.float64
    rows, functions = {
        "product": (4 if double and shape.m > 8 else 8, 1),
        "product_of_x": (8 if shape.m > 8 and not double else 4, 1),
        "product_of_w": (
            4,
            min(8 if dtype == torch.float32 and shape.m <= 5 else 4, 1 << (shape.size.bit_length() - 1)),
        ),
    }[contraction]
    tile = Tile(rows, at_once(shape, dtype), 64, functions, "ieee", _FACTORS[dtype])
    return Choice(contraction, tile, 4, 1)


def _smaller_product(how: Choice) -> Choice | None:
    tile = how.tile
    if tile.functions > 1:
        return how._replace(tile=tile._replace(functions=tile.functions // 2))
    if tile.rows > 2:
        return how._replace(tile=tile._replace(rows=tile.rows // 2))
    if tile.outputs > 16:
        return how._replace(tile=tile._replace(outputs=tile.outputs // 2))
    return None


def _product_parts(
    contraction: str, groups: int, sizes: Sizes, shape: Shape, tile: Tile, processors: int
) -> int:
    """Of the inputs for the output, of the rows for the gradient of w: what fills the device."""
    programs, rows = groups * -(-sizes.outputs // tile.outputs), -(-sizes.batch // tile.rows)
    inputs = -(-sizes.inputs // tile.inputs)
    if contraction == "product":
        return parts(programs * rows, 2 * processors, inputs)
    if contraction == "product_of_x":
        return 1
    programs *= inputs * -(-shape.size // tile.functions)
    return parts(programs, 2 * processors, -(-rows // 8))
