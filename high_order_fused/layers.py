"""The peers' layers, by their names, arguments and state dicts.

`high_order_fc_layers` and its classes are those of high-order-layers-torch; `PolynomialLayer` of
polynomial-mlp and `PRePU` can be imported from here too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activations import CustomActivationLayer, PRePU
from .checks import choice
from .combined import SumLayer, SwitchLayer, switch_continuous, switch_discontinuous
from .conv_layers import (
    HighOrderConv1d,
    HighOrderConv2d,
    HighOrderConv3d,
    HighOrderConvTranspose1d,
    HighOrderConvTranspose2d,
    high_order_convolution_layers,
    high_order_convolution_transpose_layers,
)
from .embeddings import fixed_rotation_layer
from .kan import KANLinear
from .linear import HighOrderLinear
from .multiplied import (
    HighOrderProduct,
    PiecewiseDiscontinuousPolynomialProd,
    PiecewisePolynomialProd,
    PolynomialProd,
    Product,
)
from .nd import (
    HighOrderLinearND,
    PiecewiseDiscontinuousND,
    PiecewiseND,
    Polynomial2D,
    Polynomial3D,
    Polynomial4D,
    Polynomial5D,
    PolynomialND,
)
from .norm import (
    L2Normalization,
    LazyLayerNormLastDim,
    MaxAbsNormalization,
    MaxAbsNormalizationLast,
    MaxAbsNormalizationND,
    MaxCenterNormalization,
    MaxCenterNormalizationLast,
    MaxCenterNormalizationND,
    normalization_layers,
)
from .peer_refinement import (
    hp_refine_high_order_mlp,
    initialize_network_polynomial_layers,
    initialize_polynomial_layer,
    interpolate_high_order_mlp,
    interpolate_polynomial_layer,
    refine_discontinuous_polynomial_layer,
    refine_polynomial_layer,
    smooth_discontinuous_layer,
    smooth_discontinuous_network,
)
from .polynomial_mlp import PolynomialLayer, calculate_input_powers
from .sums import (
    FourierSeries,
    PiecewiseDiscontinuousPolynomial,
    PiecewisePolynomial,
    Polynomial,
    make_periodic,
)

__all__ = [
    "CustomActivationLayer",
    "FourierSeries",
    "HighOrderConv1d",
    "HighOrderConv2d",
    "HighOrderConv3d",
    "HighOrderConvTranspose1d",
    "HighOrderConvTranspose2d",
    "HighOrderLinear",
    "HighOrderLinearND",
    "HighOrderProduct",
    "KANAdapter",
    "L2Normalization",
    "LazyLayerNormLastDim",
    "LinearAdapter",
    "LinearReluAdapter",
    "MaxAbsNormalization",
    "MaxAbsNormalizationLast",
    "MaxAbsNormalizationND",
    "MaxCenterNormalization",
    "MaxCenterNormalizationLast",
    "MaxCenterNormalizationND",
    "PRePU",
    "PiecewiseDiscontinuousND",
    "PiecewiseDiscontinuousPolynomial",
    "PiecewiseDiscontinuousPolynomialProd",
    "PiecewiseND",
    "PiecewisePolynomial",
    "PiecewisePolynomialProd",
    "Polynomial",
    "Polynomial2D",
    "Polynomial3D",
    "Polynomial4D",
    "Polynomial5D",
    "PolynomialLayer",
    "PolynomialND",
    "PolynomialProd",
    "Product",
    "SumLayer",
    "SwitchLayer",
    "calculate_input_powers",
    "fc_layers",
    "fixed_rotation_layer",
    "high_order_convolution_layers",
    "high_order_convolution_transpose_layers",
    "high_order_fc_layers",
    "hp_refine_high_order_mlp",
    "initialize_network_polynomial_layers",
    "initialize_polynomial_layer",
    "interpolate_high_order_mlp",
    "interpolate_polynomial_layer",
    "make_periodic",
    "normalization_layers",
    "refine_discontinuous_polynomial_layer",
    "refine_polynomial_layer",
    "smooth_discontinuous_layer",
    "smooth_discontinuous_network",
    "switch_continuous",
    "switch_discontinuous",
]


class LinearReluAdapter(nn.Module):
    """Layer "baseline_relu": relu of nn.Linear, which is the submodule `f`."""

    def __init__(self, *args: Any, in_features: int, out_features: int, **ignored: Any) -> None:
        super().__init__()
        self.f = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.f(x))


def LinearAdapter(*args: Any, in_features: int, out_features: int, **ignored: Any) -> nn.Linear:
    """Layer "baseline": nn.Linear, all other arguments ignored."""
    return nn.Linear(in_features, out_features)


def KANAdapter(
    n: int,
    in_features: int,
    out_features: int,
    segments: int,
    device: torch.device | str | None = None,
    **ignored: Any,
) -> KANLinear:
    """Layer "kan", not the peer's: a `KANLinear` with splines of degree n - 1 in that many segments."""
    with torch.device(torch.get_default_device() if device is None else device):
        return KANLinear(in_features, out_features, grid_size=segments, spline_order=n - 1)


fc_layers: dict[str, Callable[..., nn.Module]] = {
    "continuous": PiecewisePolynomial,
    "continuous_prod": PiecewisePolynomialProd,
    "discontinuous": PiecewiseDiscontinuousPolynomial,
    "discontinuous_prod": PiecewiseDiscontinuousPolynomialProd,
    "polynomial": Polynomial,
    "polynomial_prod": PolynomialProd,
    "polynomial_2d": Polynomial2D,
    "polynomial_3d": Polynomial3D,
    "polynomial_4d": Polynomial4D,
    "polynomial_5d": Polynomial5D,
    "continuous_nd": PiecewiseND,
    "discontinuous_nd": PiecewiseDiscontinuousND,
    "product": Product,
    "switch_continuous": switch_continuous,
    "switch_discontinuous": switch_discontinuous,
    "fourier": FourierSeries,
    "kan": KANAdapter,
    "baseline": LinearAdapter,
    "baseline_relu": LinearReluAdapter,
}


def high_order_fc_layers(layer_type: str, **kwargs: Any) -> nn.Module:
    """The fully connected layer of that name, built with the keywords; ValueError lists the names.

    Keywords a layer does not know are ignored, as by the peer. Source: high-order-layers-torch.
    """
    return fc_layers[choice("layer_type", layer_type, fc_layers)](**kwargs)
