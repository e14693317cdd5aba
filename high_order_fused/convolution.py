"""Convolutions and transposed convolutions of learned functions, in one, two and three dimensions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import convolved
from .backends import get, resolve
from .basis import Basis, lookup_dtype
from .checks import autocast, choice, lowered, needs_basis, tensors
from .geometry import Geometry
from .ops import Plan
from .packing import contiguous

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
_NEUTRAL = (1, 1, 0, 1, 1)  # kernel, stride, padding, dilation and size of an axis that is not there

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
    x, reach = _reach(x, weight, basis, stride, padding, dilation, groups, padding_mode)
    return _convolved(_sum, x, weight, basis, groups, *reach)


def conv_product(
    x: Tensor,
    weight: Tensor,
    basis: Basis,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """The product of learned functions over channels and taps, prod (1 + f) - 1; arguments as of `conv`.

    Taps outside the image are absent. It holds the outputs of all taps. Differentiable to any order.
    Source: the key continuous_prod2d of high-order-layers-torch, which has nothing behind it.
    """
    x, reach = _reach(x, weight, basis, stride, padding, dilation, groups, padding_mode)
    return _convolved(convolved.product, x, weight, basis, groups, *reach)


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
    reach = kernel, strides, before, dilations, size
    return _convolved(_sum, x, weight, basis, groups, *reach, transposed=True)


def _reach(
    x: Tensor,
    weight: Tensor,
    basis: Basis,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
    padding_mode: str,
) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """x, continued as the padding mode has it, and kernel, stride, padding, dilation, size for `phases`."""
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
    return x, (kernel, strides, before, dilations, size)


def _sum(plan: Plan, x: Tensor, w: Tensor, basis: tuple[Tensor, ...], integers: tuple[int, ...]) -> Tensor:
    over = convolved.conv if get(plan.backend).conv else convolved.composite
    return over(plan, x, w, basis, integers)


def _convolved(
    combine: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    basis: Basis,
    groups: int,
    *reach: tuple[int, ...],
    transposed: bool = False,
) -> Tensor:
    """`combine` on images of three axes, those that are missing of size 1."""
    missing = 6 - weight.dim()
    kernel, stride, before, dilation, size = (
        (*sizes, *(fill,) * missing) for sizes, fill in zip(reach, _NEUTRAL, strict=True)
    )
    geometry = Geometry(kernel, stride, before, dilation, size, transposed)
    images = x if x.dim() == weight.dim() - 1 else x.unsqueeze(0)
    images = images.reshape(*images.shape, *(1,) * missing)
    taps = weight.flatten(2, -2).unflatten(-1, (groups, -1)).permute(3, 0, 1, 2, 4)  # [G, C/G, K, T, O/G]
    if autocast(x):
        taps = lowered(taps, x)
    operands = basis.operands(lookup_dtype(x), x.device)
    plan = Plan("g", resolve(x), operands.layout)
    w = contiguous(taps.flatten(2, 3), get(plan.backend).transpose).contiguous().view(taps.shape)
    y = combine(plan, images.contiguous(), w, operands.tensors, geometry.integers())
    y = y.reshape(y.shape[: y.dim() - missing])
    return y if x.dim() == weight.dim() - 1 else y.squeeze(0)


def _kernel(x: Tensor, weight: Tensor, basis: Basis, groups: int) -> tuple[int, ...]:
    """The sizes of the kernel, of arguments that fit together."""
    tensors(x, weight=weight)
    axes = weight.dim() - 3
    if axes not in (1, 2, 3):
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, needs [in / groups, K, *kernel, out] of 1 to 3 axes"
        )
    if 0 in weight.shape[2:-1]:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, needs kernel sizes of at least 1")
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
    if weight.shape[1] != needs_basis(basis).size:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, needs K = {basis.size} on axis 1")
    if basis.inputs not in (None, weight.shape[0]):
        raise ValueError(f"basis: got knots for {basis.inputs} features, needs one row or {weight.shape[0]}")
    return tuple(weight.shape[2:-1])


def one_each(name: str, value: Sizes, axes: int, least: int = 1) -> tuple[int, ...]:
    """One whole number for each axis."""
    sizes: tuple[int, ...] = ()
    if isinstance(value, int):
        sizes = (value,) * axes
    elif isinstance(value, Sequence):
        sizes = tuple(value)
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
