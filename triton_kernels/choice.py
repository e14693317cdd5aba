"""The cost model: which kernel, in which tiles, for a contraction of given sizes.

Estimates from compiled code and published rates, none of them measured on a device.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import triton.language as tl

from high_order_fused.gpu_cost import gathers, parts

from . import dense, gather, product
from .basis import Shape
from .tiles import Sizes, Tile

MOST_FUNCTIONS = 64  # of one input, in dense tiles that take all of them: longer kernels compile for minutes


_FACTORS = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


_HALF = (tl.bfloat16, tl.float16)


class Choice(NamedTuple):
    """A kernel of dense.py, gather.py or product.py, its tile, its launch, the parts its sum is cut into."""

    kernel: str
    tile: Tile
    warps: int
    stages: int
    parts: int = 1

    @property
    def function(self) -> Any:
        """The kernel itself."""
        for home in (dense, gather):
            if hasattr(home, self.kernel):
                return getattr(home, self.kernel)
        return getattr(product, self.kernel)


def chosen(
    contraction: str,
    groups: int,
    sizes: Sizes,
    shape: Shape,
    dtype: torch.dtype,
    processors: int,
    spilled: Collection[Choice] = (),
    images: bool = False,
) -> Choice:
    """How `contraction` of factors in `dtype` runs on so many multiprocessors.

    spilled: choices, of one part, whose compiled code was seen to spill registers. images: rows are the
    places of a convolution's images, for which there are no gathers.
    """
    if contraction.startswith("product"):
        tiles = _without(spilled, _product(contraction, shape, dtype))
        return tiles._replace(parts=_product_parts(contraction, groups, sizes, shape, tiles.tile, processors))
    precision = (
        "16 bits" if dtype.itemsize == 2 else _float32_precision() if dtype == torch.float32 else "ieee"
    )
    tiles = _without(spilled, _dense(contraction, shape, dtype, precision, images))
    hopeless = tiles in spilled  # down to the smallest
    if contraction == "sum_batch":
        return _sum_batch(groups, sizes, shape, tiles, processors)
    padded = -(-sizes.batch // tiles.tile.rows) * tiles.tile.rows
    if images:
        return tiles
    hopeless = hopeless or shape.size > MOST_FUNCTIONS
    if gathers(sizes.batch * shape.n, padded * shape.size, precision, hopeless):
        gather = _without(spilled, _gather(contraction))
        return gather._replace(parts=_gather_parts(contraction, groups, sizes, gather.tile, processors))
    return tiles


def _float32_precision() -> str:
    """Tensor cores round float32 to 10 bits: only where torch's own products may."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _dense(contraction: str, shape: Shape, dtype: torch.dtype, precision: str, images: bool) -> Choice:
    """The largest tile whose compiled code keeps all of its numbers in registers."""
    held = shape.tables == 1 and not shape.own_table  # table rows can stay in registers for the whole loop
    simple = held and shape.n == shape.size and shape.m <= 8
    by_batch, by_outputs = contraction == "sum_batch", contraction == "sum_outputs"
    warps = 4
    if dtype == torch.float64:
        rows, inputs, outputs, functions = 32 if simple else 16, 8, 32 if shape.m <= 8 else 16, 2
    elif precision == "ieee":
        rows, inputs, outputs, functions = 64, 16, 32 if by_outputs and not simple else 64, 4
        if by_batch:
            rows, inputs, functions = 64 if held else 32, 32, 1
    else:
        rows, inputs, outputs, functions, warps = 128, 8, 64 if precision == "tf32" else 128, 8, 8
        if simple and shape.m <= 4:
            inputs = 16
        if by_batch:
            rows = 64 if held else 32
        if by_outputs and not held:
            rows, functions = 64, 4
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
        functions = min(functions, 4)
    functions = min(functions, 1 << (shape.size.bit_length() - 1))
    functions = max(functions, 16 // inputs)
    # a pipelined loop copies every number of gathered tables ahead into shared memory
    stages = 2 if simple and not (precision == "ieee" and (by_batch or shape.m > 4)) else 1
    tile = Tile(rows, inputs, outputs, functions, "tf32" if precision == "tf32" else "ieee", _FACTORS[dtype])
    return Choice(f"{contraction}_dense", tile, warps, stages)


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
    if tile.rows > (64 if tile.precision == "tf32" or tile.factor in _HALF else 16):
        return how._replace(tile=tile._replace(rows=tile.rows // 2))
    if tile.functions > max(1, 16 // tile.inputs):
        return how._replace(tile=tile._replace(functions=tile.functions // 2))
    if tile.outputs > 16:
        return how._replace(tile=tile._replace(outputs=tile.outputs // 2))
    if tile.rows > 16:
        return how._replace(tile=tile._replace(rows=tile.rows // 2))
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
