"""Convolutions and transposed convolutions of learned functions, in one, two and three dimensions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import functional
from .basis import Basis
from .checks import choice
from .geometry import Phase, phases, place, transposed_phases

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
_TAP_OUTPUTS = 2**20  # numbers of a few images that exist at a time, one for each pixel, tap and output

Sizes = int | Sequence[int]


def conv(
    x: Tensor,
    weight: Tensor,
    basis: Basis,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Convolution of learned functions: every tap is a function f(x) where torch's has a factor times x.

    x [B, C, *image] or [C, *image] of 1, 2 or 3 axes; weight [C / groups, K, *kernel, O]; y [B, O, *image].
    stride, padding ("same", "valid" too), dilation and groups as torch.nn.functional.conv2d. Taps outside the
    image are absent: they contribute 0, not f(0); the other padding modes continue x. TypeError and
    ValueError name a wrong argument. Differentiable to any order.
    Source: high-order-layers-torch, FunctionalConvolution.
    """
    kernel = _kernel(x, weight, basis, groups)
    axes = len(kernel)
    strides, dilations = one_each("stride", stride, axes), one_each("dilation", dilation, axes)
    before, behind = _padding(padding, kernel, strides, dilations)
    if choice("padding_mode", padding_mode, PADDING_MODES) != "zeros" and any((*before, *behind)):
        ends = [end for pair in zip(reversed(before), reversed(behind), strict=True) for end in pair]
        x = torch.nn.functional.pad(x, ends, PADDING_MODES[padding_mode])
        before = behind = (0,) * axes
    size = tuple(
        (count + b + e - d * (k - 1) - 1) // s + 1
        for count, b, e, d, k, s in zip(
            x.shape[-axes:], before, behind, dilations, kernel, strides, strict=True
        )
    )
    if min(size) < 1:
        raise ValueError(f"x: got image {tuple(x.shape[-axes:])}, needs one of at least the kernel's reach")
    return _convolved(x, weight, basis, groups, phases(kernel, strides, before, dilations, size))


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    basis: Basis,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution of learned functions, as torch.nn.functional.conv_transpose2d of their values.

    x [B, C, *image] or [C, *image]; weight [C / groups, K, *kernel, O]; y [B, O, *image]. Errors as `conv`.
    Source: high-order-layers-torch, FunctionalConvolutionTranspose.
    """
    kernel = _kernel(x, weight, basis, groups)
    axes = len(kernel)
    strides, dilations = one_each("stride", stride, axes), one_each("dilation", dilation, axes)
    before, more = one_each("padding", padding, axes, 0), one_each("output_padding", output_padding, axes, 0)
    for extra, s, d in zip(more, strides, dilations, strict=True):
        if extra >= max(s, d):
            raise ValueError(f"output_padding: got {extra}, needs less than stride or dilation, {max(s, d)}")
    size = tuple(
        (count - 1) * s - 2 * b + d * (k - 1) + extra + 1
        for count, s, b, d, k, extra in zip(
            x.shape[-axes:], strides, before, dilations, kernel, more, strict=True
        )
    )
    if min(size) < 1:
        raise ValueError(f"padding: got {padding}, needs less for an image {tuple(x.shape[-axes:])}")
    return _convolved(x, weight, basis, groups, transposed_phases(kernel, strides, before, dilations, size))


def _convolved(x: Tensor, weight: Tensor, basis: Basis, groups: int, parts: list[Phase]) -> Tensor:
    size = parts[0].placement.size
    axes, outputs = len(size), weight.shape[-1]
    images = x if x.dim() == axes + 2 else x.unsqueeze(0)
    taps = weight.flatten(2, -2).unflatten(-1, (groups, -1)).permute(3, 0, 1, 2, 4)  # [G, C/G, K, T, O/G]
    whole = math.prod(images.shape[2:]) * taps.shape[3] * outputs
    few = max(1, _TAP_OUTPUTS // max(1, whole))
    coefficients = [
        (taps if len(part.taps) == taps.shape[3] else taps[:, :, :, list(part.taps)]).flatten(3).contiguous()
        for part in parts
    ]
    made = []
    for some in images.split(few):
        y = None
        for part, w in zip(parts, coefficients, strict=True):
            met = _met(some, part, basis, w, groups)
            if met is not None:
                y = met if y is None else y + met
        if y is None:
            y = weight.new_zeros(len(some), *size, outputs) + 0 * some.sum()
        made.append(y.movedim(-1, 1))
    image = torch.cat(made) if len(made) > 1 else made[0]
    return (image if x.dim() == axes + 2 else image.squeeze(0)).contiguous()


def _met(images: Tensor, part: Phase, basis: Basis, w: Tensor, groups: int) -> Tensor | None:
    """What the pixels of a phase bring to the image [images, *size, O]; None if it has no pixels."""
    axes = len(part.first)
    for axis, (first, every) in enumerate(zip(part.first, part.every, strict=True), 2):
        images = images[(slice(None),) * axis + (slice(first, None, every),)]
    pixels = tuple(images.shape[2:])
    if 0 in pixels:
        return None
    rows = images.unflatten(1, (groups, -1)).movedim(1, 0).movedim(2, -1)  # [G, images, *pixels, C/G]
    y = functional.link(rows.contiguous(), w, basis).unflatten(-1, (len(part.taps), -1))
    merged = y.flatten(0, 1)
    image = place(merged, part.placement).unflatten(0, (groups, -1))  # [G, images, *size, O/G]
    joined: Tensor = image.movedim(0, axes + 1).flatten(-2)
    return joined


def _kernel(x: Tensor, weight: Tensor, basis: Basis, groups: int) -> tuple[int, ...]:
    """The sizes of the kernel, of arguments that fit together."""
    for name, t in (("x", x), ("weight", weight)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: got {type(t).__name__}, needs a tensor")
    axes = weight.dim() - 3
    if axes not in (1, 2, 3):
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, needs [in / groups, K, *kernel, out] of 1 to 3 axes"
        )
    if x.dim() not in (axes + 1, axes + 2):
        raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, in, *image] with {axes} image axes")
    channels, outputs = x.shape[-axes - 1], weight.shape[-1]
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups: got {groups!r}, needs a whole number of at least 1")
    if channels != groups * weight.shape[0] or outputs % groups:
        raise ValueError(
            f"x: got {channels} channels, needs {groups * weight.shape[0]} for weight {tuple(weight.shape)} "
            f"and {groups} groups, which must divide the {outputs} outputs"
        )
    if weight.shape[1] != basis.size:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, needs K = {basis.size} on axis 1")
    return tuple(weight.shape[2:-1])


def one_each(name: str, value: Sizes, axes: int, least: int = 1) -> tuple[int, ...]:
    """One whole number for each axis."""
    sizes = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(sizes) != axes or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in sizes):
        raise ValueError(
            f"{name}: got {value!r}, needs a whole number of at least {least}, or one for each of {axes} axes"
        )
    return sizes


def _padding(
    padding: Sizes | str, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pixels before and behind each axis."""
    if not isinstance(padding, str):
        sizes = one_each("padding", padding, len(kernel), 0)
        return sizes, sizes
    if choice("padding", padding, ("same", "valid")) == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    if any(s > 1 for s in strides):
        raise ValueError(f"padding: got 'same', needs stride 1, not {tuple(strides)}")
    both = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    return tuple(b // 2 for b in both), tuple(b - b // 2 for b in both)
