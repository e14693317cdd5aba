"""What launches the kernels: the three contractions, with the names and the contract of reference.py."""

from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from high_order_fused.operands import Operands

from .basis import Basis, Shape
from .choice import Choice, chosen
from .tiles import Rows, Sizes

INTERPRETED = bool(triton.knobs.runtime.interpret)


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    call = _call("sum_inputs", x, w.shape[3], w.dtype, basis)
    y = call.partial(w, (x.shape[0], call.sizes.batch, call.sizes.outputs))
    if y.numel() == 0 or call.sizes.inputs == 0:
        return w.new_zeros(y.shape[1:])
    _launch(call, x, w=_read(w.contiguous()), s=_rows(x if s is None else s), y=y, SCALED=s is not None)
    return _whole(y, w.dtype)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    factor = w.dtype if w.dtype == g.dtype else basis.knots.dtype
    call = _call("sum_outputs", x, w.shape[3], factor, basis)
    r = call.partial(x, tuple(x.shape))
    if r.numel() == 0 or call.sizes.outputs == 0:
        return x.new_zeros(x.shape)
    _launch(call, x, w=_read(w.contiguous()), g=_rows(g), r=r)
    return _whole(r, x.dtype)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    call = _call("sum_batch", x, g.shape[2], g.dtype, basis)
    v = call.partial(g, (x.shape[0], call.sizes.inputs, call.shape.size, call.sizes.outputs))
    if v.numel() == 0 or call.sizes.batch == 0:
        return g.new_zeros(v.shape[1:])
    _launch(call, x, g=_rows(g), s=_rows(x if s is None else s), v=v, SCALED=s is not None)
    return _whole(v, g.dtype)


def choice(contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands) -> Choice:
    """What the cost model says of a contraction of x [E, B, I], whose factors are stored in `factor`."""
    return _call(contraction, x, outputs, factor, basis).how


class _Call(NamedTuple):
    """A contraction that is to be launched: how, and what all kernels are told."""

    how: Choice
    sizes: Sizes
    shape: Shape
    basis: Basis

    def partial(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Room for the parts of a result of this shape, in the dtype of `like` if there is one part alone."""
        dtype = like.dtype if self.how.parts == 1 else self.basis.knots.dtype
        return like.new_empty(self.how.parts, *shape, dtype=_computable(dtype))


def _call(contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands) -> _Call:
    sizes, shape = Sizes(*x.shape[1:], outputs), _shape(basis)
    how = chosen(contraction, x.shape[0], sizes, shape, _computable(factor), _processors(x.device))
    pointers = Basis(basis.domain, basis.knots, basis.tables[basis.layout.order], basis.start)
    return _Call(how, sizes, shape, pointers)


def _launch(call: _Call, x: Tensor, **others: Any) -> None:
    how, sizes, shape, basis = call
    kernel = how.function
    if "parts" in kernel.arg_names:
        others["parts"] = how.parts
    options = {"num_warps": how.warps, "num_stages": how.stages}
    with nullcontext() if x.device.type == "cpu" else torch.cuda.device(x.device):
        grid = (programs(how, x.shape[0], sizes, shape),)
        kernel[grid](x=_rows(x), basis=basis, sizes=sizes, SHAPE=shape, TILE=how.tile, **others, **options)


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
