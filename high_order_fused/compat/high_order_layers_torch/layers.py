"""The module layers, whose public names are those of nearly all the others too."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.nn import Linear

from ...checks import choice
from ...conv_layers import convolutions, transposed_convolutions
from ...layers import (
    L2Normalization,
    LazyLayerNormLastDim,
    LinearAdapter,
    LinearReluAdapter,
    MaxAbsNormalization,
    MaxAbsNormalizationLast,
    MaxAbsNormalizationND,
    MaxCenterNormalization,
    MaxCenterNormalizationLast,
    MaxCenterNormalizationND,
    SumLayer,
    SwitchLayer,
    fc_layers,
    fixed_rotation_layer,
    high_order_fc_layers,
    normalization_layers,
    switch_continuous,
    switch_discontinuous,
)
from . import FunctionalConvolution as _convolution
from . import FunctionalConvolutionTranspose as _transpose
from . import ProductLayer as _product
from .FunctionalConvolution import *  # noqa: F403
from .FunctionalConvolution import (
    FourierConvolution1d,
    FourierConvolution2d,
    PiecewiseDiscontinuousPolynomialConvolution1d,
    PiecewiseDiscontinuousPolynomialConvolution2d,
    PiecewisePolynomialConvolution1d,
    PiecewisePolynomialConvolution2d,
    PolynomialConvolution1d,
    PolynomialConvolution2d,
)
from .FunctionalConvolutionTranspose import *  # noqa: F403
from .FunctionalConvolutionTranspose import PiecewisePolynomialConvolutionTranspose2d
from .ProductLayer import *  # noqa: F403

__all__ = [
    "F",
    "L2Normalization",
    "LazyLayerNormLastDim",
    "Linear",
    "LinearAdapter",
    "LinearReluAdapter",
    "MaxAbsNormalization",
    "MaxAbsNormalizationLast",
    "MaxAbsNormalizationND",
    "MaxCenterNormalization",
    "MaxCenterNormalizationLast",
    "MaxCenterNormalizationND",
    "SumLayer",
    "SwitchLayer",
    "convolutional_layers",
    "convolutional_transpose_layers",
    "fc_layers",
    "fixed_rotation_layer",
    "high_order_convolution_layers",
    "high_order_convolution_transpose_layers",
    "high_order_fc_layers",
    "normalization_layers",
    "switch_continuous",
    "switch_discontinuous",
]
__all__ += _convolution.__all__
__all__ += _transpose.__all__
__all__ += _product.__all__

convolutional_layers: dict[str, Callable[..., nn.Module]] = {
    **convolutions,
    "continuous1d": PiecewisePolynomialConvolution1d,
    "continuous2d": PiecewisePolynomialConvolution2d,
    "discontinuous1d": PiecewiseDiscontinuousPolynomialConvolution1d,
    "discontinuous2d": PiecewiseDiscontinuousPolynomialConvolution2d,
    "fourier1d": FourierConvolution1d,
    "fourier2d": FourierConvolution2d,
    "polynomial1d": PolynomialConvolution1d,
    "polynomial2d": PolynomialConvolution2d,
}
convolutional_transpose_layers: dict[str, Callable[..., nn.Module]] = {
    **transposed_convolutions,
    "continuous2d": PiecewisePolynomialConvolutionTranspose2d,
}


def high_order_convolution_layers(layer_type: str, **kwargs: Any) -> nn.Module:
    """As `high_order_fused.layers` has it, an instance of the class by the peer's name."""
    return convolutional_layers[choice("layer_type", layer_type, convolutional_layers)](**kwargs)


def high_order_convolution_transpose_layers(layer_type: str, **kwargs: Any) -> nn.Module:
    """As `high_order_fused.layers` has it, an instance of the class by the peer's name."""
    return convolutional_transpose_layers[choice("layer_type", layer_type, convolutional_transpose_layers)](
        **kwargs
    )
