"""What launches the kernels: the functions of reference.py by their names, and convolutions."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from high_order_fused import gpu_cost
from high_order_fused.geometry import Geometry
from high_order_fused.operands import Operands

from . import library
from .call import Call, call_of, computable, images_of, on, read, rows_of, shape_of, whole
from .choice import LIBRARY_WORK, Choice, at_once, written_out
from .launcher import launch
from .patches import Axis, Patch
from .product import others
from .tiles import Sizes, Tile


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    shape = (x.shape[0], x.shape[1], w.shape[3])
    if 0 in shape or x.shape[2] == 0:
        return w.new_zeros(shape)
    call = call_of("sum_inputs", x, w.shape[3], w.dtype, basis, s is not None)
    if (how := call.how()).library:
        return library.sum_inputs(partial(call.expand, how), x, w, s)
    return call.result("y", w, shape, x=rows_of(x), w=read(w.contiguous()), s=rows_of(x if s is None else s))


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    if x.numel() == 0 or w.shape[3] == 0:
        return x.new_zeros(x.shape)
    call = call_of("sum_outputs", x, w.shape[3], _factor(w, g, basis), basis)
    return call.result("r", x, tuple(x.shape), x=rows_of(x), w=read(w.contiguous()), g=rows_of(g))


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    shape = (x.shape[0], x.shape[2], basis.layout.size, g.shape[2])
    if 0 in shape or x.shape[1] == 0:
        return g.new_zeros(shape)
    call = call_of("sum_batch", x, g.shape[2], g.dtype, basis, s is not None)
    if (how := call.how()).library:
        return library.sum_batch(partial(call.expand, how), x, g, s, basis.layout.size).to(g.dtype)
    return call.result("v", g, shape, x=rows_of(x), g=rows_of(g), s=rows_of(x if s is None else s))


def product(x: Tensor, w: Tensor, basis: Operands) -> Tensor:
    """As reference.product."""
    shape = (x.shape[0], x.shape[1], w.shape[3])
    if 0 in shape or x.shape[2] == 0:
        return w.new_ones(shape)
    call = call_of("product", x, w.shape[3], w.dtype, basis)
    parts = call.parts("q", w.dtype, shape, x=rows_of(x), w=read(w.contiguous()))
    return (parts[0] if len(parts) == 1 else parts.prod(0)).to(w.dtype)


def product_gradients(g: Tensor, x: Tensor, w: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """As reference.product_gradients; as many rows at a time as have room for the products of parts."""
    of_x, of_w = torch.empty_like(x), w.new_zeros(w.shape, dtype=basis.knots.dtype)
    if 0 in (x.numel(), w.numel()):
        return of_x.zero_(), of_w.to(w.dtype)
    groups, batch, inputs = x.shape
    outputs, w = w.shape[3], w.contiguous()
    parts = triton.cdiv(inputs, at_once(shape_of(basis), computable(w.dtype)))
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
    tensors = {"x": rows_of(x), "w": read(w)}
    shape = (x.shape[0], x.shape[1], outputs)
    q = call_of("product", x, outputs, w.dtype, basis).parts("q", dtype, shape, count=parts, **tensors)
    tensors["h"] = h = torch.empty_like(q)
    count, tile = h[0].numel() // outputs * triton.cdiv(outputs, 256), Tile(1, 1, 256, 1, "ieee", None)
    arguments = {"q": q, "g": rows_of(g), "h": h, "sizes": Sizes(*x.shape[1:], outputs), "parts": parts}
    with on(x.device):
        launch(others, count, x.device, 4, 1, **arguments, TILE=tile)
    of_x = call_of("product_of_x", x, outputs, w.dtype, basis).result("r", x, tuple(x.shape), **tensors)
    of_w = call_of("product_of_w", x, outputs, w.dtype, basis).parts("v", dtype, tuple(w.shape), **tensors)
    return of_x, whole(of_w, dtype)


def conv(x: Tensor, w: Tensor, basis: Operands, integers: Sequence[int]) -> Tensor:
    """As backends.Backend says: the form, rows the places of y, inputs the channels and taps."""
    geometry, groups = Geometry.of(integers), w.shape[0]
    shape = (x.shape[0], groups * w.shape[4], *geometry.size)
    if 0 in shape or x.numel() == 0:
        return w.new_zeros(shape)
    if _library_convolves(x, w, basis, geometry):
        return library.conv(_expansion("expand", x, w.dtype, basis), x, w, geometry)
    call = _conv_call("sum_inputs", x, w, shape, w.dtype, basis, geometry)
    images = images_of(x, groups)
    return call.result("y", w, shape, x=images, w=read(w.contiguous()), s=images)


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
    images, cotangents = images_of(x, groups), images_of(g, groups)
    slope = v = None
    if of_x:
        call = _conv_call("sum_outputs", x, w, shape, factor, basis.derivative(), geometry)
        slope = call.result("r", x, tuple(x.shape), x=images, w=read(w.contiguous()), g=cotangents)
    if of_w:
        call = _conv_call("sum_batch", x, w, shape, factor, basis, geometry)
        v = call.result("v", w, tuple(w.shape), x=images, g=cotangents, s=images)
    return slope, v


def choice(contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands) -> Choice:
    """What the cost model says of a contraction of x [E, B, I], whose factors are stored in `factor`."""
    return call_of(contraction, x, outputs, factor, basis).how()


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
    return Call(contraction, groups, sizes, x, factor, basis, shape_of(basis), False, patch)


def _library_convolves(x: Tensor, w: Tensor, basis: Operands, geometry: Geometry) -> bool:
    """Whether the library's convolution of written out functions is faster, and the same convolution."""
    groups, channels, functions, taps, outputs = w.shape
    shape, places = shape_of(basis), math.prod(x.shape[2:] if geometry.transposed else geometry.size)
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
    shape = shape_of(basis)
    sizes = Sizes(1, x.shape[1], 1)
    call = Call(kernel, 1, sizes, x, factor, basis, shape)
    how = written_out(sizes, shape, computable(factor))._replace(kernel=kernel)
    return partial(getattr(call, kernel), how)


def patch_of(geometry: Geometry) -> Patch:
    """What the taps of a convolution reach of x from the places of y."""
    axes = []
    for taps, stride, before, dilation, _ in zip(*geometry[:5], strict=True):
        axis = Axis(taps, stride, dilation, -before, 1)
        axes.append(Axis(taps, 1, -dilation, before, stride) if geometry.transposed else axis)
    return Patch(*axes)


def _factor(w: Tensor, g: Tensor, basis: Operands) -> torch.dtype:
    """What w and g are multiplied in."""
    return w.dtype if w.dtype == g.dtype else basis.knots.dtype
