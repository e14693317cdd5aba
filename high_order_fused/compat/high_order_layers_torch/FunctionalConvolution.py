"""The module FunctionalConvolution."""

import logging
from abc import ABC
from collections.abc import Callable
from typing import Any, Optional

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import Conv1d, Conv2d, Conv3d

from ...conv_layers import ConvNd, PeerConvolution, convolutions
from . import PolynomialLayers as _layers
from .PolynomialLayers import *  # noqa: F403

__all__ = [
    "ABC",
    "Any",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Expansion1d",
    "Expansion2d",
    "FourierConvolution",
    "FourierConvolution1d",
    "FourierConvolution2d",
    "Optional",
    "PiecewiseDiscontinuousPolynomialConvolution",
    "PiecewiseDiscontinuousPolynomialConvolution1d",
    "PiecewiseDiscontinuousPolynomialConvolution2d",
    "PiecewisePolynomialConvolution",
    "PiecewisePolynomialConvolution1d",
    "PiecewisePolynomialConvolution2d",
    "PolynomialConvolution",
    "PolynomialConvolution1d",
    "PolynomialConvolution2d",
    "constant_random_initialization_conv2d",
    "conv_wrapper",
    "logger",
    "logging",
]
__all__ += _layers.__all__

logger = logging.getLogger(__name__)


class Expansion2d(nn.Module):
    """Images [B, C, H, W] to [B, C V, H, W], the V functions of a channel side by side.

    basis: makes [V, B, C, H, W] of the images, as `PiecewiseExpand` does. Our convolutions do without.
    """

    def __init__(self, basis: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(basis):
            raise TypeError(f"basis: got {basis!r}, needs a function of images")
        self.basis = basis

    def forward(self, x: Tensor) -> Tensor:
        return self.basis(x).movedim(0, 2).flatten(1, 2)


class Expansion1d(Expansion2d):
    """`Expansion2d` of [B, C, W]."""


class _Convolution(PeerConvolution):
    """A convolution of the peer by its class's name; the classes without a number of axes are bases of them.

    Arguments as of `high_order_convolution_layers`, `order` says which come by position.
    """

    kinds = convolutions
    kind: str
    order: tuple[str, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        if not hasattr(self, "kind"):
            raise TypeError(f"{name}: has no number of axes, needs to be {name}1d, {name}2d or the like")
        if len(args) > len(self.order):
            raise TypeError(f"{name}: got {len(args)} arguments by position, takes {len(self.order)}")
        made = self.kinds[self.kind](**dict(zip(self.order, args, strict=False)), **kwargs)
        assert isinstance(made, PeerConvolution)
        super().__init__(made.basis, made.conv, made.periodicity, made.rescale, made.combine)


_SIZES = ("in_channels", "kernel_size", "length", "rescale_output")
_SIZES_2D = ("in_channels", "out_channels", *_SIZES[1:], "periodicity", "weight_magnitude", "device")


class FourierConvolution(_Convolution):
    """`FourierConvolution1d` and `2d`."""


class FourierConvolution1d(FourierConvolution):
    """Layer "fourier1d", which the peer cannot build."""

    kind, order = "fourier1d", ("n", *_SIZES)


class FourierConvolution2d(FourierConvolution):
    """Layer "fourier2d"."""

    kind, order = "fourier2d", ("n", *_SIZES)


class PolynomialConvolution(_Convolution):
    """`PolynomialConvolution1d` and `2d`."""


class PolynomialConvolution1d(PolynomialConvolution):
    """Layer "polynomial1d"."""

    kind, order = "polynomial1d", ("n", *_SIZES, "periodicity")


class PolynomialConvolution2d(PolynomialConvolution):
    """Layer "polynomial2d"."""

    kind, order = "polynomial2d", ("n", *_SIZES_2D)


class PiecewisePolynomialConvolution(_Convolution):
    """`PiecewisePolynomialConvolution1d` and `2d`."""


class PiecewisePolynomialConvolution1d(PiecewisePolynomialConvolution):
    """Layer "continuous1d"."""

    kind, order = "continuous1d", ("n", "segments", *_SIZES, "periodicity")


class PiecewisePolynomialConvolution2d(PiecewisePolynomialConvolution):
    """Layer "continuous2d"."""

    kind, order = "continuous2d", ("n", "segments", *_SIZES_2D)


class PiecewiseDiscontinuousPolynomialConvolution(_Convolution):
    """`PiecewiseDiscontinuousPolynomialConvolution1d` and `2d`."""


class PiecewiseDiscontinuousPolynomialConvolution1d(PiecewiseDiscontinuousPolynomialConvolution):
    """Layer "discontinuous1d"."""

    kind, order = "discontinuous1d", ("n", "segments", *_SIZES, "periodicity")


class PiecewiseDiscontinuousPolynomialConvolution2d(PiecewiseDiscontinuousPolynomialConvolution):
    """Layer "discontinuous2d"."""

    kind, order = "discontinuous2d", ("n", "segments", *_SIZES_2D)


def conv_wrapper(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    weight_magnitude: float = 1.0,
    rescale_output: bool = False,
    verbose: bool = False,
    convolution: Callable[..., ConvNd] = Conv2d,
    **ignored: Any,
) -> ConvNd:
    """A convolution of torch without bias, its weights from U(-b, b).

    b is weight_magnitude / (in_channels kernel_size^2), with rescale_output weight_magnitude.
    """
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    made = convolution(in_channels, out_channels, kernel_size, bias=False, padding_mode=padding_mode, **sizes)
    bound = weight_magnitude / (1 if rescale_output else in_channels * kernel_size**2)
    nn.init.uniform_(made.weight, -bound, bound)
    return made


def constant_random_initialization_conv2d(
    w: nn.Parameter,
    num_nodes: int,
    out_channels: int,
    in_channels: int,
    kernel_height: int,
    kernel_width: int,
    weight_magnitude: float,
    device: torch.device | str,
) -> None:
    """Fill w [out, in, height, width] in place: the num_nodes channels of a tap one value.

    It is from U[0, weight_magnitude num_nodes / (in height width)). in_channels counts the expanded ones.
    """
    channels = in_channels // num_nodes
    links = torch.rand(out_channels, channels, kernel_height, kernel_width, device=device)
    links = links * weight_magnitude / (kernel_height * kernel_width * channels)
    with torch.no_grad():
        w.copy_(links.repeat_interleave(num_nodes, 1))
