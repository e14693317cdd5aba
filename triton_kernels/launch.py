"""What launches the kernels: the functions of reference.py by their names, and convolutions."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from high_order_fused import gpu_cost
from high_order_fused.geometry import Geometry
from high_order_fused.operands import Operands

from . import library
from .basis import Basis, Shape
from .choice import LIBRARY_WORK, Choice, at_once, chosen, function, written_out
from .launcher import INTERPRETED, launch
from .patches import Axis, Patch
from .product import others
from .tiles import Rows, Sizes, Tile

FEW_SPILLS = 8  # numbers that a thread puts aside, in kernels that were the fastest nevertheless


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    shape = (x.shape[0], x.shape[1], w.shape[3])
    if 0 in shape or x.shape[2] == 0:
        return w.new_zeros(shape)
    call = _call("sum_inputs", x, w.shape[3], w.dtype, basis, s is not None)
    if (how := call.how()).library:
        return library.sum_inputs(partial(call.expand, how), x, w, s)
    return call.result("y", w, shape, x=_rows(x), w=_read(w.contiguous()), s=_rows(x if s is None else s))


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    if x.numel() == 0 or w.shape[3] == 0:
        return x.new_zeros(x.shape)
    call = _call("sum_outputs", x, w.shape[3], _factor(w, g, basis), basis)
    return call.result("r", x, tuple(x.shape), x=_rows(x), w=_read(w.contiguous()), g=_rows(g))


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    shape = (x.shape[0], x.shape[2], basis.layout.size, g.shape[2])
    if 0 in shape or x.shape[1] == 0:
        return g.new_zeros(shape)
    call = _call("sum_batch", x, g.shape[2], g.dtype, basis, s is not None)
    if (how := call.how()).library:
        return library.sum_batch(partial(call.expand, how), x, g, s, basis.layout.size).to(g.dtype)
    return call.result("v", g, shape, x=_rows(x), g=_rows(g), s=_rows(x if s is None else s))


def product(x: Tensor, w: Tensor, basis: Operands) -> Tensor:
    """As reference.product."""
    shape = (x.shape[0], x.shape[1], w.shape[3])
    if 0 in shape or x.shape[2] == 0:
        return w.new_ones(shape)
    call = _call("product", x, w.shape[3], w.dtype, basis)
    parts = call.parts("q", w.dtype, shape, x=_rows(x), w=_read(w.contiguous()))
    return (parts[0] if len(parts) == 1 else parts.prod(0)).to(w.dtype)


def product_gradients(g: Tensor, x: Tensor, w: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """As reference.product_gradients; as many rows at a time as have room for the products of parts."""
    of_x, of_w = torch.empty_like(x), w.new_zeros(w.shape, dtype=basis.knots.dtype)
    if 0 in (x.numel(), w.numel()):
        return of_x.zero_(), of_w.to(w.dtype)
    groups, batch, inputs = x.shape
    outputs, w = w.shape[3], w.contiguous()
    parts = triton.cdiv(inputs, at_once(_shape(basis), _computable(w.dtype)))
    each = 2 * parts * groups * outputs * basis.knots.element_size()
    rows = max(1, min(batch, _ROOM // each))
    for begin in range(0, batch, rows):
        now = slice(begin, begin + rows)
        of_x[:, now], part = _product_gradients(g[:, now], x[:, now], w, basis, parts)
        of_w += part
    return of_x, of_w.to(w.dtype)


_ROOM = 32 * 2**20  # bytes for the products of parts


def _product_gradients(g: Tensor, x: Tensor, w: Tensor, basis: Operands, parts: int) -> tuple[Tensor, Tensor]:
    """Of rows for whose products of parts there is room; that of w in the dtype of the knots."""
    outputs, dtype = w.shape[3], basis.knots.dtype
    tensors = {"x": _rows(x), "w": _read(w)}
    whole = (x.shape[0], x.shape[1], outputs)
    q = _call("product", x, outputs, w.dtype, basis).parts("q", dtype, whole, count=parts, **tensors)
    tensors["h"] = h = torch.empty_like(q)
    count, tile = h[0].numel() // outputs * triton.cdiv(outputs, 256), Tile(1, 1, 256, 1, "ieee", None)
    arguments = {"q": q, "g": _rows(g), "h": h, "sizes": Sizes(*x.shape[1:], outputs), "parts": parts}
    with _on(x.device):
        launch(others, count, x.device, 4, 1, **arguments, TILE=tile)
    of_x = _call("product_of_x", x, outputs, w.dtype, basis).result("r", x, tuple(x.shape), **tensors)
    of_w = _call("product_of_w", x, outputs, w.dtype, basis).parts("v", dtype, tuple(w.shape), **tensors)
    return of_x, _whole(of_w, dtype)


def conv(x: Tensor, w: Tensor, basis: Operands, integers: Sequence[int]) -> Tensor:
    """As backends.Backend says: the form, rows the places of y, inputs the channels and taps."""
    geometry, groups = Geometry.of(integers), w.shape[0]
    shape = (x.shape[0], groups * w.shape[4], *geometry.size)
    if 0 in shape or x.numel() == 0:
        return w.new_zeros(shape)
    if _library_convolves(x, w, basis, geometry):
        return library.conv(_expansion("expand", x, w.dtype, basis), x, w, geometry)
    call = _conv_call("sum_inputs", x, w, shape, w.dtype, basis, geometry)
    images = _images(x, groups)
    return call.result("y", w, shape, x=images, w=_read(w.contiguous()), s=images)


def conv_gradients(
    g: Tensor, x: Tensor, w: Tensor, basis: Operands, integers: Sequence[int], of_x: bool, of_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As backends.Backend says: of x over its pixels and all taps' outputs, of w over the places of g."""
    geometry, groups = Geometry.of(integers), w.shape[0]
    if 0 in (x.numel(), w.numel(), g.numel()):
        return x.new_zeros(x.shape) if of_x else None, w.new_zeros(w.shape) if of_w else None
    shape, factor = tuple(g.shape), _factor(w, g, basis)
    if _library_convolves(x, w, basis, geometry):
        expand, contract = (
            _expansion("expand", x, factor, basis),
            _expansion("contract", x, factor, basis.derivative()),
        )
        slope, v = library.conv_gradients(
            expand, contract, g.to(factor), x, w.to(factor), geometry, (of_x, of_w)
        )
        return slope, None if v is None else v.to(w.dtype)
    images, cotangents = _images(x, groups), _images(g, groups)
    slope = v = None
    if of_x:
        call = _conv_call("sum_outputs", x, w, shape, factor, basis.derivative(), geometry)
        slope = call.result("r", x, tuple(x.shape), x=images, w=_read(w.contiguous()), g=cotangents)
    if of_w:
        call = _conv_call("sum_batch", x, w, shape, factor, basis, geometry)
        v = call.result("v", w, tuple(w.shape), x=images, g=cotangents, s=images)
    return slope, v


def choice(contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands) -> Choice:
    """What the cost model says of a contraction of x [E, B, I], whose factors are stored in `factor`."""
    return _call(contraction, x, outputs, factor, basis).how()


class Call(NamedTuple):
    """A contraction with factors stored in `factor`; x: of its dtype and device; scaled: with s."""

    contraction: str
    groups: int
    sizes: Sizes
    x: Tensor
    factor: torch.dtype
    basis: Operands
    shape: Shape
    scaled: bool = False
    patch: Patch | None = None

    def how(self) -> Choice:
        """What the cost model says, given what was seen of the compiled code."""
        globally = torch.get_float32_matmul_precision(), gpu_cost.preferred(), library.allowed()
        return _remembered(
            globally,
            self.contraction,
            self.groups,
            self.sizes,
            self.shape,
            _computable(self.factor),
            _processors(self.x.device),
            frozenset(_spilled.get(self._kind(), ())),
            self.patch is not None,
            _cores(self.x.device),
        )

    def result(self, name: str, like: Tensor, shape: tuple[int, ...], **others: Any) -> Tensor:
        """The result of this shape in the dtype of `like`, which the kernel calls by this name."""
        return _whole(self.parts(name, like.dtype, shape, **others), like.dtype)

    def parts(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...], count: int | None = None, **others: Any
    ) -> Tensor:
        """[parts, *shape] of the result, `count` of them or as many as the cost model says.

        Of more than one in the dtype of the knots. Where the code of a tile turns out to spill, a smaller one
        takes its place, from this call on.
        """
        while True:
            how = self.how()
            how = how if count is None else how._replace(parts=count)
            stored = _computable(dtype if how.parts == 1 else self.basis.knots.dtype)
            parts = torch.empty(how.parts, *shape, dtype=stored, device=self.x.device)
            room: Any = parts
            if how.kernel in ("sum_inputs_dense", "sum_outputs_dense", "product_of_x"):
                room = _rows(parts[0]) if self.patch is None else _images(parts[0], self.groups)
            compiled = self._launch(how, **{name: room}, **others)
            if getattr(compiled, "n_spills", 0) <= FEW_SPILLS:
                return parts
            _spilled.setdefault(self._kind(), set()).add(how._replace(parts=1))
            if self.how()._replace(parts=1) == how._replace(parts=1):  # there is no smaller one
                return parts

    def expand(self, how: Choice, x: Tensor, s: Tensor | None, phi: Tensor) -> None:
        """As library.Expand."""
        room, points = _read(phi), _points(x)
        self._some(phi)._launch(how, x=points, s=points if s is None else _rows(s), phi=room)
        if room is not phi:
            phi.copy_(room)

    def contract(self, how: Choice, x: Tensor, t: Tensor, r: Tensor) -> None:
        """As library.Contract."""
        room = _read(r)
        self._some(t)._launch(how, x=_points(x), t=_read(t), r=_points(room))
        if room is not r:
            r.copy_(room)

    def _some(self, rows: Tensor) -> "Call":
        return self._replace(groups=1, sizes=self.sizes._replace(batch=rows.shape[0]))

    def _kind(self) -> tuple[Any, ...]:
        """What code is compiled for, besides a choice."""
        return self.shape, self.x.dtype, self.factor, self.scaled, self.patch, self.x.device

    def _launch(self, how: Choice, **others: Any) -> Any:
        basis, kernel, shape = self.basis, function(how.kernel), self.shape
        for name, constant in (("parts", how.parts), ("SCALED", self.scaled), ("PATCH", self.patch)):
            if name in kernel.arg_names:
                others[name] = constant
        pointers = Basis(basis.domain, basis.knots, basis.tables[basis.layout.order], basis.start)
        others |= {"basis": pointers, "sizes": self.sizes, "SHAPE": shape, "TILE": how.tile}
        count, device = programs(how, self.groups, self.sizes, shape.size), self.x.device
        with _on(device):
            return launch(kernel, count, device, how.warps, how.stages, **others)


@lru_cache(4096)
def _remembered(globally: tuple[Any, ...], *arguments: Any) -> Choice:
    """`chosen`, which also depends on what is set globally."""
    return chosen(*arguments)


def _on(device: torch.device) -> Any:
    """Launches go to the current device."""
    here = device.type == "cpu" or device.index == torch.cuda.current_device()
    return nullcontext() if here else torch.cuda.device(device)


_spilled: dict[tuple[Any, ...], set[Choice]] = {}


def _call(
    contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands, scaled: bool = False
) -> Call:
    """Of x [E, B, I]."""
    groups, *rows = x.shape
    return Call(contraction, groups, Sizes(*rows, outputs), x, factor, basis, _shape(basis), scaled)


def _conv_call(
    contraction: str,
    x: Tensor,
    w: Tensor,
    y_shape: tuple[int, ...],
    factor: torch.dtype,
    basis: Operands,
    geometry: Geometry,
) -> Call:
    """Of x [N, G C, *image] and w [G, C, K, T, O]: rows are places of y, for the gradient of x those of x."""
    groups, channels, _, taps, outputs = w.shape
    own, other, patch = y_shape[2:], tuple(x.shape[2:]), patch_of(geometry)
    columns = channels * taps, outputs
    if contraction == "sum_outputs":
        own, other, patch = other, own, patch.inverse()
        columns = channels, taps * outputs
    sizes = Sizes(x.shape[0] * math.prod(own), *columns, *own, *other)
    return Call(contraction, groups, sizes, x, factor, basis, _shape(basis), False, patch)


def _library_convolves(x: Tensor, w: Tensor, basis: Operands, geometry: Geometry) -> bool:
    """Whether the library's convolution of written out functions is faster, and the same convolution."""
    groups, channels, functions, taps, outputs = w.shape
    shape, places = _shape(basis), math.prod(x.shape[2:] if geometry.transposed else geometry.size)
    work = x.shape[0] * places * taps * groups * channels * functions * outputs
    own = shape.own_domain or shape.own_knots or shape.own_table  # by channels of a group
    return (
        library.CONVOLVES
        and work >= LIBRARY_WORK
        and library.allowed()
        and gpu_cost.preferred() == "auto"
        and not (own and groups > 1)
        and x[0].numel() * functions * w.element_size() <= library.ROOM
        and library.convolves(x.shape[2:], geometry)
    )


def _expansion(kernel: str, x: Tensor, factor: torch.dtype, basis: Operands) -> Any:
    """library.Expand or library.Contract, of images like x."""
    shape = _shape(basis)
    sizes = Sizes(1, x.shape[1], 1)
    call = Call(kernel, 1, sizes, x, factor, basis, shape)
    how = written_out(sizes, shape, _computable(factor))._replace(kernel=kernel)
    return partial(getattr(call, kernel), how)


def patch_of(geometry: Geometry) -> Patch:
    """What the taps of a convolution reach of x from the places of y."""
    axes = []
    for taps, stride, before, dilation, _ in zip(*geometry[:5], strict=True):
        axis = Axis(taps, stride, dilation, -before, 1)
        axes.append(Axis(taps, 1, -dilation, before, stride) if geometry.transposed else axis)
    return Patch(*axes)


@lru_cache(4096)
def programs(how: Choice, groups: int, sizes: Sizes, size: int) -> int:
    """How many programs a launch has, for so many functions of an input."""
    tile = how.tile
    rows, inputs, outputs, functions = (
        -(-axis // of) for axis, of in zip((*sizes[:3], size), tile[:4], strict=True)
    )
    each = {
        "sum_inputs_dense": rows * outputs,
        "sum_outputs_dense": rows * inputs,
        "sum_batch_dense": how.parts * inputs * outputs * functions,
        "sum_inputs_gather": how.parts * sizes.batch * outputs,
        "sum_outputs_gather": sizes.batch * inputs,
        "expand": rows * inputs,
        "contract": rows * inputs,
        "product": how.parts * rows * outputs,
        "product_of_x": rows * inputs,
        "product_of_w": how.parts * inputs * outputs * functions,
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


def _points(t: Tensor) -> Rows:
    """Of a group, or of images that have none."""
    return _rows(t) if t.dim() == 3 else _images(t, 1)


def _images(t: Tensor, groups: int) -> Rows:
    """[N, groups * columns, *image], the places of an image adjacent."""
    t = _read(t.contiguous())
    plane = math.prod(t.shape[2:])
    return Rows(t, t.shape[1] // groups * plane, t.shape[1] * plane, plane, plane)


def _factor(w: Tensor, g: Tensor, basis: Operands) -> torch.dtype:
    """What w and g are multiplied in."""
    return w.dtype if w.dtype == g.dtype else basis.knots.dtype


def _whole(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the parts, always in their order."""
    return (parts[0] if parts.shape[0] == 1 else parts.sum(0)).to(dtype)


def _shape(basis: Operands) -> Shape:
    domain, knots, tables, start, layout = basis
    _, own, segments, n, m = tables.shape
    owns = domain.shape[0] > 1, knots.shape[0] > 1, own > 1
    return Shape(
        layout.kind, layout.uniform, layout.outer, start.shape[0], layout.size, n, m, *owns, segments
    )


@cache
def _cores(device: torch.device) -> bool:
    """Whether there are tensor cores for float32; the interpreter has what tests want."""
    return device.type == "cpu" or (
        not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)
    )


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; the interpreter has few, so that small sums are split there, too."""
    if device.type == "cpu":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
