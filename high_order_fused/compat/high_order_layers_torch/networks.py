"""The module networks."""

import logging
import math
from collections.abc import Callable
from typing import Any, List, Optional, Union  # noqa: UP035

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear

from ...networks import (
    HighOrderFullyConvolutionalNetwork,
    HighOrderFullyDeconvolutionalNetwork,
    HighOrderMLP,
    HighOrderMLPList,
    HighOrderMultiMLP,
    HighOrderTailFocusNetwork,
    LowOrderMLP,
    VanillaVAE,
    hp_refine_high_order_mlp,
    initialize_network_polynomial_layers,
    interpolate_high_order_mlp,
    scalar_to_list,
    smooth_discontinuous_network,
    transform_low_mlp,
    transform_mlp,
)
from ._lightning import LightningModule
from .layers import (
    SumLayer,
    SwitchLayer,
    fixed_rotation_layer,
    high_order_convolution_layers,
    high_order_convolution_transpose_layers,
    high_order_fc_layers,
)
from .PolynomialLayers import (
    PiecewiseDiscontinuous,
    PiecewiseDiscontinuousPolynomial,
    PiecewisePolynomial,
    initialize_polynomial_layer,
    interpolate_polynomial_layer,
    refine_discontinuous_polynomial_layer,
    refine_polynomial_layer,
    smooth_discontinuous_layer,
)

__all__ = [
    "Any",
    "Callable",
    "F",
    "HighOrderFullyConvolutionalNetwork",
    "HighOrderFullyDeconvolutionalNetwork",
    "HighOrderMLP",
    "HighOrderMLPList",
    "HighOrderMLPMixerBlock",
    "HighOrderMultiMLP",
    "HighOrderTailFocusNetwork",
    "LightningModule",
    "Linear",
    "List",
    "LowOrderMLP",
    "Optional",
    "PiecewiseDiscontinuous",
    "PiecewiseDiscontinuousPolynomial",
    "PiecewisePolynomial",
    "SumLayer",
    "SwitchLayer",
    "Tensor",
    "Union",
    "VanillaVAE",
    "fixed_rotation_layer",
    "high_order_convolution_layers",
    "high_order_convolution_transpose_layers",
    "high_order_fc_layers",
    "hp_refine_high_order_mlp",
    "initialize_network_polynomial_layers",
    "initialize_polynomial_layer",
    "interpolate_high_order_mlp",
    "interpolate_polynomial_layer",
    "logger",
    "logging",
    "math",
    "nn",
    "refine_discontinuous_polynomial_layer",
    "refine_polynomial_layer",
    "scalar_to_list",
    "smooth_discontinuous_layer",
    "smooth_discontinuous_network",
    "torch",
    "transform_low_mlp",
    "transform_mlp",
]

logger = logging.getLogger(__name__)


class HighOrderMLPMixerBlock(nn.Module):
    """A name without a network: the peer's class is empty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("HighOrderMLPMixerBlock: high-order-layers-torch has no network behind it")
