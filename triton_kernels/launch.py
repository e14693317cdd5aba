"""What launches the kernels: the three contractions, with the names and the contract of reference.py."""

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from high_order_fused.operands import Operands

from . import form
from .basis import Basis, Shape
from .choice import Choice, chosen
from .form import Rows, Sizes

INTERPRETED = bool(triton.knobs.runtime.interpret)


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    how, sizes = choice("sum_inputs", x, w.shape[3], w.dtype, basis), Sizes(*x.shape[1:], w.shape[3])
    dtype = w.dtype if how.parts == 1 else basis.knots.dtype
    y = w.new_empty(how.parts, x.shape[0], sizes.batch, sizes.outputs, dtype=_computable(dtype))
    if y.numel() == 0 or sizes.inputs == 0:
        return w.new_zeros(y.shape[1:])
    split = (how.parts,) if how.kernel == "sum_inputs_gather" else ()
    constants = (_shape(basis), how.tile, s is not None)
    _launch(
        how,
        x,
        _read(w.contiguous()),
        _rows(x if s is None else s),
        y,
        _basis(basis),
        sizes,
        *split,
        *constants,
    )
    return _whole(y, w.dtype)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    factor = w.dtype if w.dtype == g.dtype else basis.knots.dtype
    how, sizes = choice("sum_outputs", x, w.shape[3], factor, basis), Sizes(*x.shape[1:], w.shape[3])
    r = x.new_empty(1, *x.shape, dtype=_computable(x.dtype))
    if r.numel() == 0 or sizes.outputs == 0:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    _launch(how, x, _read(w.contiguous()), _rows(g), r, _basis(basis), sizes, _shape(basis), how.tile)
    return _whole(r, x.dtype)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    how, sizes = choice("sum_batch", x, g.shape[2], g.dtype, basis), Sizes(*x.shape[1:], g.shape[2])
    dtype = g.dtype if how.parts == 1 else basis.knots.dtype
    shape = (how.parts, x.shape[0], sizes.inputs, basis.layout.size, sizes.outputs)
    v = g.new_empty(shape, dtype=_computable(dtype))
    if v.numel() == 0 or sizes.batch == 0:
        return g.new_zeros(v.shape[1:])
    constants = (_shape(basis), how.tile, s is not None)
    _launch(how, x, _rows(g), _rows(x if s is None else s), v, _basis(basis), sizes, how.parts, *constants)
    return _whole(v, g.dtype)


def choice(contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands) -> Choice:
    """What the cost model says of a contraction of x [E, B, I], whose factors are stored in `factor`."""
    sizes = Sizes(*x.shape[1:], outputs)
    return chosen(contraction, x.shape[0], sizes, _shape(basis), _computable(factor), _processors(x.device))


def _launch(how: Choice, x: Tensor, *arguments: Any) -> None:
    sizes = next(a for a in arguments if isinstance(a, Sizes))
    shape = next(a for a in arguments if isinstance(a, Shape))
    device = nullcontext() if x.device.type == "cpu" else torch.cuda.device(x.device)
    with device:
        kernel = getattr(form, how.kernel)[programs(how, x.shape[0], sizes, shape),]
        kernel(_rows(x), *arguments, num_warps=how.warps, num_stages=how.stages)


def programs(how: Choice, groups: int, sizes: Sizes, shape: Shape) -> int:
    """How many programs a launch has."""
    tile = how.tile
    rows, inputs = triton.cdiv(sizes.batch, tile.rows), triton.cdiv(sizes.inputs, tile.inputs)
    outputs = triton.cdiv(sizes.outputs, tile.outputs)
    each = {
        "sum_inputs_dense": rows * outputs,
        "sum_outputs_dense": rows * inputs,
        "sum_batch_dense": how.parts * inputs * outputs * triton.cdiv(shape.size, tile.functions),
        "sum_inputs_gather": how.parts * sizes.batch * outputs,
        "sum_outputs_gather": sizes.batch * inputs,
    }
    return groups * each[how.kernel]


def _computable(dtype: torch.dtype) -> torch.dtype:
    """The interpreter knows no bfloat16."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def _read(t: Tensor) -> Tensor:
    return t.to(_computable(t.dtype))


def _rows(t: Tensor) -> Rows:
    t = _read(t)
    return Rows(t, *t.stride())


def _whole(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the parts, always in their order."""
    return (parts[0] if len(parts) == 1 else parts.sum(0)).to(dtype)


def _basis(basis: Operands) -> Basis:
    return Basis(basis.domain, basis.knots, basis.tables[basis.layout.order], basis.start)


def _shape(basis: Operands) -> Shape:
    domain, knots, tables, start, layout = basis
    integers = (layout.kind, layout.uniform, layout.outer, len(start), layout.size, *tables.shape[3:])
    return Shape(*integers, len(domain) > 1, len(knots) > 1, tables.shape[1] > 1, tables.shape[2])


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; the interpreter has few, so that small sums are split there, too."""
    if device.type == "cpu":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
