"""The module FunctionalConvolutionTranspose."""

import logging
from abc import ABC
from collections.abc import Callable
from typing import Any, Optional

from torch.nn import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

from ...conv_layers import ConvNd, transposed_convolutions
from . import PolynomialLayers as _layers
from .FunctionalConvolution import Expansion1d, Expansion2d, _Convolution, conv_wrapper
from .PolynomialLayers import *  # noqa: F403

__all__ = [
    "ABC",
    "Any",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Expansion1d",
    "Expansion2d",
    "Optional",
    "PiecewisePolynomialConvolutionTranspose",
    "PiecewisePolynomialConvolutionTranspose2d",
    "conv_transpose_wrapper",
    "logger",
    "logging",
]
__all__ += _layers.__all__

logger = logging.getLogger(__name__)


class PiecewisePolynomialConvolutionTranspose(_Convolution):
    """`PiecewisePolynomialConvolutionTranspose2d`."""

    kinds = transposed_convolutions


class PiecewisePolynomialConvolutionTranspose2d(PiecewisePolynomialConvolutionTranspose):
    """The transposed layer "continuous2d"."""

    kind = "continuous2d"
    order = ("n", "segments", "in_channels", "kernel_size", "length", "rescale_output", "periodicity")


def conv_transpose_wrapper(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    weight_magnitude: float = 1.0,
    rescale_output: bool = False,
    verbose: bool = False,
    convolution: Callable[..., ConvNd] = ConvTranspose2d,
    **ignored: Any,
) -> ConvNd:
    """`conv_wrapper` of a transposed convolution, which has an output_padding too."""

    def padded(*sizes: Any, **others: Any) -> ConvNd:
        return convolution(*sizes, output_padding=output_padding, **others)

    sizes = in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
    return conv_wrapper(*sizes, weight_magnitude, rescale_output, convolution=padded)
