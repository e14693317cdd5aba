"""Networks by the names, arguments and state dicts of high-order-layers-torch, and what it does with them."""

from .combined import SumLayer, SwitchLayer, peer_state_dict
from .conv_layers import high_order_convolution_layers, high_order_convolution_transpose_layers
from .conv_networks import (
    HighOrderFullyConvolutionalNetwork,
    HighOrderFullyDeconvolutionalNetwork,
    HighOrderTailFocusNetwork,
)
from .embeddings import fixed_rotation_layer
from .layers import high_order_fc_layers
from .mlps import (
    HighOrderMLP,
    HighOrderMLPList,
    HighOrderMultiMLP,
    LowOrderMLP,
    scalar_to_list,
    transform_low_mlp,
    transform_mlp,
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
from .sums import PiecewiseDiscontinuousPolynomial, PiecewisePolynomial
from .vae import VanillaVAE

__all__ = [
    "HighOrderFullyConvolutionalNetwork",
    "HighOrderFullyDeconvolutionalNetwork",
    "HighOrderMLP",
    "HighOrderMLPList",
    "HighOrderMultiMLP",
    "HighOrderTailFocusNetwork",
    "LowOrderMLP",
    "PiecewiseDiscontinuousPolynomial",
    "PiecewisePolynomial",
    "SumLayer",
    "SwitchLayer",
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
    "peer_state_dict",
    "refine_discontinuous_polynomial_layer",
    "refine_polynomial_layer",
    "scalar_to_list",
    "smooth_discontinuous_layer",
    "smooth_discontinuous_network",
    "transform_low_mlp",
    "transform_mlp",
]
