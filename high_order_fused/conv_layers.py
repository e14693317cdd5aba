"""Convolutional layers: ours, and those of high-order-layers-torch with its state dicts."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import bases, init
from .basis import Basis
from .basis_layer import BasisLayer
from .checks import choice, count
from .convolution import Sizes, one_each
from .functional import conv, conv_product, conv_transpose
from .sums import make_periodic, peer_piecewise

ConvNd = nn.modules.conv._ConvNd


class _Conv(BasisLayer):
    """Coefficients `weight` [in / groups, K, *kernel, out]; every link begins as a random constant."""

    axes: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        basis: Basis,
        groups: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        for name, size in sizes.items():
            count(name, size)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: got {groups}, needs to divide {in_channels} and {out_channels}")
        super().__init__(basis, in_channels // groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        kernel = self.kernel_size = one_each("kernel_size", kernel_size, self.axes)
        shape = (in_channels // groups, basis.size, *kernel, out_channels)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients anew: constants from U(-b, b) of variance 1 / (in / groups * taps)."""
        init.random_constants_(
            self.weight, self.basis, inputs=self.weight.shape[0] * math.prod(self.kernel_size)
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, basis={self.basis!r}, "
            f"groups={self.groups}"
        )


class _Forward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        basis: Basis,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, basis, groups, device, dtype)
        self.stride, self.padding, self.dilation, self.padding_mode = stride, padding, dilation, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return conv(
            x,
            self.weight,
            self.basis,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.padding_mode,
        )


class HighOrderConv1d(_Forward):
    """In place of nn.Conv1d: every tap a learned function in a basis. x [B, C, W]; as `conv`."""

    axes = 1


class HighOrderConv2d(_Forward):
    """In place of nn.Conv2d: every tap a learned function in a basis. x [B, C, H, W]; as `conv`."""

    axes = 2


class HighOrderConv3d(_Forward):
    """In place of nn.Conv3d: every tap a learned function in a basis. x [B, C, D, H, W]; as `conv`."""

    axes = 3


class _Transposed(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        basis: Basis,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, basis, groups, device, dtype)
        self.stride, self.padding, self.output_padding, self.dilation = (
            stride,
            padding,
            output_padding,
            dilation,
        )

    def forward(self, x: Tensor) -> Tensor:
        sizes = self.stride, self.padding, self.output_padding, self.dilation
        return conv_transpose(x, self.weight, self.basis, *sizes, self.groups)


class HighOrderConvTranspose1d(_Transposed):
    """In place of nn.ConvTranspose1d; as `convolution.conv_transpose`."""

    axes = 1


class HighOrderConvTranspose2d(_Transposed):
    """In place of nn.ConvTranspose2d; as `convolution.conv_transpose`."""

    axes = 2


# ---- the peer's


class PeerConvolution(nn.Module):
    """A convolution of high-order-layers-torch, with the coefficients `conv.weight` of its expanded one.

    [out, in / groups * K, *kernel], K fastest; transposed [in * K, out / groups, *kernel]. `conv` is torch's
    layer of that name, which holds them and says stride, padding and the like; it is not called. y is
    multiplied by rescale. combine: `conv`, or `conv_product`. Source: high-order-layers-torch, conv_wrapper.
    """

    def __init__(
        self,
        basis: Basis,
        holder: ConvNd,
        periodicity: float | None = None,
        rescale: float = 1.0,
        combine: Callable[..., Tensor] = conv,
    ) -> None:
        super().__init__()
        self.basis, self.periodicity, self.rescale, self.combine = basis, periodicity, rescale, combine
        self.conv = holder

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        held, size = self.conv, self.basis.size
        sizes = {name: getattr(held, name) for name in ("stride", "padding", "dilation", "groups")}
        if held.transposed:  # [groups * in, K, out, *kernel]
            w = held.weight.unflatten(0, (held.groups, -1, size)).movedim(3, -1)
            w = w.movedim(0, -2).flatten(-2)  # from [G, C / G, K, *kernel, O / G]
            y = conv_transpose(x, w, self.basis, output_padding=held.output_padding, **sizes)
        else:
            w = held.weight.unflatten(1, (-1, size)).movedim(0, -1)
            y = self.combine(x, w, self.basis, padding_mode=held.padding_mode, **sizes)
        return y if self.rescale == 1 else y * self.rescale

    def extra_repr(self) -> str:
        return f"basis={self.basis!r}"


class ProductConv2d(nn.Module):
    """Layer "product2d": prod (1 + t) - 1 - (1 - alpha) sum t + bias over channels and taps, t = weight x.

    `weight` [out, in / groups, *kernel] and `bias` [out] or None are drawn as by nn.Conv2d. Arguments of
    nn.Conv2d, and alpha and periodicity of the layer "product", whose sum has that sign, too.
    Source: the key of high-order-layers-torch that has nothing behind it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        alpha: float = 1.0,
        periodicity: float | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        self.sizes |= {"groups": groups, "padding_mode": padding_mode}
        height, width = one_each("kernel_size", kernel_size, 2)
        drawn = nn.Conv2d(
            count("in_channels", in_channels),
            count("out_channels", out_channels),
            (height, width),
            bias=bias,
            **self.sizes,
        )
        self.weight, self.bias = drawn.weight, drawn.bias
        self.alpha, self.periodicity = alpha, periodicity
        self.basis = bases.monomial(1, outside="extrapolate")

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        factors = self.weight.movedim(0, -1)
        w = torch.stack([torch.zeros_like(factors), factors], 1)
        y = conv_product(x, w, self.basis, **self.sizes)
        if self.alpha != 1:
            y = y - (1 - self.alpha) * conv(x, w, self.basis, **self.sizes)
        return y if self.bias is None else y + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, alpha={self.alpha}"


def peer_basis(kind: str, n: int, segments: int | None, length: float) -> Basis:
    """That of the convolutions of this kind; TypeError for a piecewise one without segments."""
    half = 0.5 * length
    if kind == "polynomial":
        return bases.lagrange(n, (-half, half), "extrapolate")
    if kind == "fourier":
        return bases.fourier(n, (-half, half))
    if segments is None:
        raise TypeError("segments: got None, needs a whole number of at least 1")
    return peer_piecewise(n, segments, length, kind == "continuous", scaled=True)


def _peer(
    kind: str, convolution: Callable[..., ConvNd], combine: Callable[..., Tensor] = conv
) -> Callable[..., PeerConvolution]:
    """What builds such a layer and draws its coefficients as the peer does, with the peer's keywords.

    rescale_output divides by in_channels kernel_size^2, in one dimension too; bias is ignored.
    """

    def build(
        n: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        segments: int | None = None,
        length: float = 2.0,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        weight_magnitude: float = 1.0,
        rescale_output: bool = False,
        periodicity: float | None = None,
        **ignored: Any,
    ) -> PeerConvolution:
        basis = peer_basis(kind, n, segments, length)
        expanded = count("in_channels", in_channels) * basis.size
        sizes: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        if convolution in (nn.ConvTranspose1d, nn.ConvTranspose2d):
            sizes["output_padding"] = output_padding
        holder = convolution(
            expanded, out_channels, kernel_size, padding_mode=padding_mode, bias=False, **sizes
        )
        taps, area = math.prod(holder.kernel_size), holder.kernel_size[0] ** 2
        bound = weight_magnitude / (expanded * area)
        with torch.no_grad():
            holder.weight.uniform_(-bound, bound)
            if convolution is nn.Conv2d and kind != "fourier":
                shape = (out_channels, in_channels // groups, *holder.kernel_size)
                links = torch.rand(shape) * weight_magnitude / (taps * in_channels)
                holder.weight.copy_(links.repeat_interleave(basis.size, 1))
        rescale = 1.0 / (in_channels * area) if rescale_output else 1.0
        periodicity = None if kind == "fourier" else periodicity
        return PeerConvolution(basis, holder, periodicity, rescale, combine)

    return build


KINDS = ("continuous", "discontinuous", "polynomial", "fourier")
convolutions: dict[str, Callable[..., nn.Module]] = {
    f"{kind}{axes}d": _peer(kind, convolution)
    for axes, convolution in ((1, nn.Conv1d), (2, nn.Conv2d))
    for kind in KINDS
}
convolutions |= {f"{kind}_prod2d": _peer(kind, nn.Conv2d, conv_product) for kind in KINDS[:3]}
convolutions["product2d"] = ProductConv2d
transposed_convolutions: dict[str, Callable[..., nn.Module]] = {
    f"{kind}{axes}d": _peer(kind, convolution)
    for axes, convolution in ((1, nn.ConvTranspose1d), (2, nn.ConvTranspose2d))
    for kind in KINDS
}


def high_order_convolution_layers(layer_type: str, **kwargs: Any) -> nn.Module:
    """The convolution of that name, built with the keywords; ValueError lists the names.

    Unknown keywords are ignored, as by the peer, whose fourier1d raises and whose products are None.
    Source: high-order-layers-torch.
    """
    return convolutions[choice("layer_type", layer_type, convolutions)](**kwargs)


def high_order_convolution_transpose_layers(layer_type: str, **kwargs: Any) -> nn.Module:
    """The transposed convolution of that name; the peer has continuous2d alone. Source: as above."""
    return transposed_convolutions[choice("layer_type", layer_type, transposed_convolutions)](**kwargs)
