"""Initialisation and refinement by the names of high-order-layers-torch; refinement.py does the work.

Where the peer's functions leave a layer out in silence, or raise, these change it or say why not. Unlike
`refinement.refine` they go on where the target cannot hold the functions: with fewer nodes, or segments that
are no multiple. Then its curves meet the given ones at its nodes. Edges of one number, and layers of a length
other than 2, come as near as they can, otherwise than the peer's.
"""

from collections.abc import Callable

from torch import nn

from .domain import bases_of
from .refinement import initialize_linear, refine, smooth
from .sums import PiecewiseLayer, PiecewisePolynomial


def initialize_polynomial_layer(layer_in: nn.Module, max_slope: float = 1.0, max_offset: float = 0.0) -> None:
    """Make every edge of a layer a line, as `refinement.initialize_linear`.

    Segments of one node take the line's value in their middle. TypeError for a layer without such edges.
    Source: high-order-layers-torch.
    """
    initialize_linear(layer_in, max_slope, max_offset, exact=False)


def initialize_network_polynomial_layers(
    network: nn.Module,
    max_slope: float,
    max_offset: float,
    scale_slope: Callable[[int], float] = lambda input_size: 1,
) -> None:
    """Make every edge of a network's piecewise layers a line with slopes up to max_slope scale_slope(inputs).

    Kinds "continuous", "discontinuous", "discontinuous_prod" and switches of them; all other layers stay as
    they are, as with the peer, so that seeds give its numbers. Source: high-order-layers-torch.
    """
    for layer in network.modules():
        if isinstance(layer, PiecewisePolynomial) or (
            isinstance(layer, PiecewiseLayer) and not layer.continuous
        ):
            slope = max_slope * scale_slope(layer.in_features)
            initialize_polynomial_layer(layer, slope, max_offset)


def interpolate_polynomial_layer(layer_in: nn.Module, layer_out: nn.Module) -> None:
    """Give layer_out the functions of layer_in, with other nodes in the same segments (p-refinement).

    Any layer, or network, that `refinement.refine` takes. ValueError for other segments.
    Source: high-order-layers-torch.
    """
    for ours, theirs in zip(layer_in.modules(), layer_out.modules(), strict=False):  # refine finds the rest
        needed, got = ([basis.segments for basis in bases_of(layer)] for layer in (ours, theirs))
        if needed and got and needed != got:
            raise ValueError(f"layer_out: got {_listed(got)} segments, needs {_listed(needed)}")
    refine(layer_in, layer_out, exact=False)


def refine_polynomial_layer(layer_in: nn.Module, layer_out: nn.Module) -> None:
    """Give layer_out the functions of layer_in, with other nodes and segments (hp-refinement).

    Exact with at least the nodes and a multiple of the segments. Source: high-order-layers-torch.
    """
    refine(layer_in, layer_out, exact=False)


def refine_discontinuous_polynomial_layer(layer_in: nn.Module, layer_out: nn.Module) -> None:
    """`refine_polynomial_layer`; each segment takes the values of its own side. The peer's raises."""
    refine(layer_in, layer_out, exact=False)


def interpolate_high_order_mlp(network_in: nn.Module, network_out: nn.Module) -> None:
    """`interpolate_polynomial_layer` for all layers; everything else, normalization too, is copied.

    Source: high-order-layers-torch, which leaves layers without pieces and normalization as they are.
    """
    interpolate_polynomial_layer(network_in.get_submodule("model"), network_out.get_submodule("model"))


def hp_refine_high_order_mlp(network_in: nn.Module, network_out: nn.Module) -> None:
    """`refine_polynomial_layer` for all layers; everything else, normalization too, is copied.

    Source: high-order-layers-torch, which leaves layers without pieces and normalization as they are.
    """
    refine_polynomial_layer(network_in.get_submodule("model"), network_out.get_submodule("model"))


def smooth_discontinuous_layer(layer: PiecewiseLayer, factor: float) -> None:
    """`refinement.smooth`, by the peer's name."""
    smooth(layer, factor)


def smooth_discontinuous_network(network_in: nn.Module, factor: float) -> None:
    """`refinement.smooth` for all discontinuous layers of a network. Source: high-order-layers-torch."""
    for layer in network_in.get_submodule("model").modules():
        if isinstance(layer, PiecewiseLayer) and not layer.continuous:
            smooth(layer, factor)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
