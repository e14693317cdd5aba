"""The form by the library's products and convolutions, of functions written out for some rows at a time.

What is written out hardly leaves the cache between a device's processors and its memory.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from high_order_fused.geometry import Geometry

ROOM = 64 * 2**20  # bytes of functions at a time
CONVOLVES = False  # until its results have been seen on a device, not in the interpreter alone

# expand(x, s, phi) writes the functions at x [1, B, I], times s, to phi [B, I * K]. contract(x, t, r) takes t
# [B, I * K] times the functions at x, summed over them. x and r may be images [N, I, *image] of B places.
Expand = Callable[[Tensor, Tensor | None, Tensor], None]
Contract = Callable[[Tensor, Tensor, Tensor], None]


def allowed() -> bool:
    """Where it was measured; not where results may not vary and the library promises nothing."""
    promised = os.environ.get("CUBLAS_WORKSPACE_CONFIG") in (":4096:8", ":16:8")
    return torch.version.hip is None and (promised or not torch.are_deterministic_algorithms_enabled())


def sum_inputs(expand: Expand, x: Tensor, w: Tensor, s: Tensor | None) -> Tensor:
    """As reference.sum_inputs."""
    y = w.new_empty(*x.shape[:2], w.shape[3])
    flat = w.contiguous().flatten(1, 2)
    with _precise(x):
        for e, right in enumerate(flat):
            for phi, rows in _written(expand, x, s, e, flat.shape[1], y):
                torch.mm(phi, right, out=rows)
    return y


def sum_batch(expand: Expand, x: Tensor, g: Tensor, s: Tensor | None, functions: int) -> Tensor:
    """As reference.sum_batch, in the dtype of sums."""
    groups, _, inputs = x.shape
    v = g.new_zeros(groups, inputs * functions, g.shape[2], dtype=_summed(g))
    with _precise(x):
        for e, total in enumerate(v):
            for phi, rows in _written(expand, x, s, e, inputs * functions, g):
                if phi.dtype == total.dtype:
                    total.addmm_(phi.T, rows)
                else:
                    total += _widened(phi.T, rows)
    return v.view(groups, inputs, functions, -1)


def conv(expand: Expand, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """As backends.Backend says."""
    y = w.new_empty(x.shape[0], w.shape[0] * w.shape[4], *geometry.size)
    plan = _Convolution(x, w, geometry)
    with _precise(x), _rounding():
        for points, out in zip(plan.split(x), plan.split(y), strict=True):
            phi = plan.room(points, w.dtype)
            expand(points, None, phi)
            out.copy_(torch.ops.aten.convolution(plan.image(phi, points), plan.weight, None, *plan.how))
    return y


def conv_gradients(
    expand: Expand,
    contract: Contract,
    g: Tensor,
    x: Tensor,
    w: Tensor,
    geometry: Geometry,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """As backends.Backend says; g and w are of one dtype, that of w is in the dtype of sums."""
    of_x, of_w = wanted
    plan = _Convolution(x, w, geometry)
    r = torch.empty_like(x, memory_format=torch.contiguous_format) if of_x else None
    total = torch.zeros_like(plan.weight, dtype=_summed(w)) if of_w else None
    pieces = zip(plan.split(x), plan.split(g), plan.split(x if r is None else r), strict=True)
    with _precise(x), _rounding():
        for points, cotangent, pulled_to in pieces:
            phi = plan.room(points, w.dtype)
            if of_w:
                expand(points, None, phi)
            pulled, summed, _ = torch.ops.aten.convolution_backward(
                cotangent, plan.image(phi, points), plan.weight, None, *plan.how, [of_x, of_w, False]
            )
            if r is not None:
                contract(points, pulled.movedim(1, -1).reshape(phi.shape), pulled_to)
            if total is not None:
                total += summed
    return r, None if total is None else plan.coefficients(total)


def convolves(image: Sequence[int], geometry: Geometry) -> bool:
    """Whether the library can be told of a convolution of images of three axes: its output's size follows."""
    lists = zip(image, *geometry[:5], strict=True)
    if geometry.transposed:
        more = [out - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for n, k, s, p, d, out in lists]
        return all(
            0 <= m < max(s, d) for m, s, d in zip(more, geometry.stride, geometry.dilation, strict=True)
        )
    return all((n + 2 * p - d * (k - 1) - 1) // s + 1 == out for n, k, s, p, d, out in lists)


class _Convolution:
    """A convolution of functions as the library takes it: two axes or three, the functions the fastest."""

    def __init__(self, x: Tensor, w: Tensor, geometry: Geometry) -> None:
        self.groups, self.channels, self.functions, _, self.outputs = w.shape
        flat = x.shape[4] == geometry.kernel[2] == geometry.size[2] == 1
        axes = 2 if flat else 3
        self.transposed, self.axes = geometry.transposed, axes
        kernel, stride, before, dilation, size = (list(axis[:axes]) for axis in geometry[:5])
        self.kernel, more = kernel, [0] * axes
        if self.transposed:
            lists = zip(x.shape[2:], kernel, stride, before, dilation, size, strict=False)
            more = [out - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for n, k, s, p, d, out in lists]
        self.how = (stride, before, dilation, self.transposed, more, self.groups)
        self.step = max(1, ROOM // (x[0].numel() * self.functions * w.element_size()))
        parts = w.view(*w.shape[:3], *kernel, self.outputs)
        parts = parts.movedim(-1, 3 if self.transposed else 1)
        rows = self.groups * (self.outputs if not self.transposed else self.channels * self.functions)
        self.weight = parts.reshape(rows, -1, *kernel).contiguous(memory_format=_LAST[axes])

    def split(self, images: Tensor) -> tuple[Tensor, ...]:
        """Some images at a time, without the axes that are not there."""
        return (images.flatten(-2) if self.axes == 2 else images).split(self.step)

    def room(self, points: Tensor, factor: torch.dtype) -> Tensor:
        """[places, channels * functions] for the functions at the points."""
        places = points.shape[0] * math.prod(points.shape[2:])
        return points.new_empty(places, points.shape[1] * self.functions, dtype=factor)

    def image(self, phi: Tensor, points: Tensor) -> Tensor:
        """Functions as channels of images, which lie the fastest."""
        return phi.view(points.shape[0], *points.shape[2:], -1).movedim(-1, 1)

    def coefficients(self, weight: Tensor) -> Tensor:
        """[G, C, K, T, O] of what lies as the library has it."""
        if self.transposed:
            parts = weight.reshape(self.groups, self.channels, self.functions, self.outputs, -1).movedim(3, 4)
        else:
            parts = weight.reshape(self.groups, self.outputs, self.channels, self.functions, -1).movedim(1, 4)
        return parts.contiguous()


_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def _written(
    expand: Expand, x: Tensor, s: Tensor | None, e: int, width: int, beside: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The functions of some rows of a group, in the place of the last, and those rows of another tensor."""
    batch, row = x.shape[1], width * beside.element_size()
    most = max(1, ROOM // row)
    step = -(-batch // -(-batch // most))  # pieces of one size, of whole tiles if there is room
    step = min(-(-step // 128) * 128, most) if step > 128 else step
    room = beside.new_empty(step, width)
    one = slice(e, e + 1)
    scales = [None] * -(-batch // step) if s is None else s[one].split(step, 1)
    for points, scale, rows in zip(x[one].split(step, 1), scales, beside[e].split(step), strict=True):
        phi = room[: rows.shape[0]] if rows.shape[0] < room.shape[0] else room
        expand(points, scale, phi)
        yield phi, rows


def _summed(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _widened(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of 16-bit numbers, in float32."""
    if a.device.type == "cpu":  # under the interpreter
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


def _rounding() -> AbstractContextManager[Any]:
    """Convolutions round float32 to TF32 where products may, and are the same every time."""
    rounds = torch.get_float32_matmul_precision() != "highest"
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=True, allow_tf32=rounds)


def _precise(x: Tensor) -> AbstractContextManager[Any]:
    """Casts were made before: none by autocast."""
    on = torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if on else nullcontext()
