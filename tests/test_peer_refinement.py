"""Initialisation and refinement by the peer's names: its numbers, and what it leaves out or raises at."""

import random

import pytest
import torch
from torch import nn

from high_order_fused import layers, networks, norm
from high_order_fused.layers import high_order_fc_layers
from tests.peer_networks import peer_networks
from tests.support import difference

PIECEWISE = ("continuous", "discontinuous")


def filled(module):
    """With coefficients that are no constants."""
    for parameter in module.parameters():
        if not nn.parameter.is_lazy(parameter):
            nn.init.normal_(parameter, std=0.5)
    return module


def both(make):
    """What make builds of the peer's module and of ours, from one seed."""
    found = []
    for package in (peer_networks(), networks):
        torch.manual_seed(0)
        random.seed(0)
        found.append(make(package))
    return found


def mlp(kind, n, segments, package=networks, **kwargs):
    sizes = {"in_segments": segments, "hidden_segments": segments, "out_segments": segments}
    return package.HighOrderMLP(kind, n, 3, 2, 2, 4, **{**sizes, **kwargs})


def same_weights(ours, theirs):
    """Those that the peer has."""
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        if not key.endswith("result"):
            assert difference(state[key], value) < 1e-6 or torch.equal(state[key], value), key


@pytest.mark.parametrize(
    ("kind", "n"),
    [*((kind, n) for kind in (*PIECEWISE, "discontinuous_prod") for n in (2, 5)), ("discontinuous", 1)],
)
def test_row_20_initial_lines_are_the_peers(kind, n):
    arguments = {"n": n, "segments": 3, "in_features": 4, "out_features": 3}

    def make(package):
        layer = package.high_order_fc_layers(layer_type=kind, **arguments)
        package.initialize_polynomial_layer(layer, max_slope=2.0, max_offset=0.5)
        return layer

    theirs, ours = both(make)
    same_weights(ours, theirs)


@pytest.mark.parametrize("kind", ["continuous", "discontinuous", "polynomial"])
def test_row_20_every_edge_becomes_a_line(kind):
    layer = high_order_fc_layers(kind, n=4, segments=3, in_features=1, out_features=6)
    networks.initialize_polynomial_layer(layer, 1.0, 0.5)
    x = torch.linspace(-1, 1, 50)[:, None]
    y = layer(x)
    slope, offset = y[-1] - y[0], (y[-1] + y[0]) / 2
    assert difference(y, 0.5 * slope * x + offset) < 1e-5 and len(set(slope.tolist())) == 6


def test_row_21_slopes_and_offsets_stay_within_their_limits():
    layer = high_order_fc_layers("continuous", n=3, segments=2, in_features=16, out_features=64)
    networks.initialize_network_polynomial_layers(
        nn.Sequential(layer), 3.0, 0.25, scale_slope=lambda inputs: 1 / inputs
    )
    ends = layer.w[..., -1], layer.w[..., 0]
    slope, offset = ((ends[0] - ends[1]) / 2).abs(), ((ends[0] + ends[1]) / 2).abs()
    assert 0.9 * 3 / 16 < slope.max() <= 3 / 16 * 1.00001 and 0.9 * 0.25 < offset.max() <= 0.25 * 1.00001


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize(
    "kind", [*PIECEWISE, "switch_continuous", "discontinuous_prod", "polynomial", "fourier"]
)
def test_row_20_initial_networks_are_the_peers(kind, resnet):
    """In whose resnets the hidden layers beyond the first stay constants; here they become lines."""

    def make(package):
        net = mlp(kind, 3, 2, package, resnet=resnet)
        package.initialize_network_polynomial_layers(net, 1.0, 0.5, scale_slope=lambda inputs: inputs**-0.5)
        return net

    theirs, ours = both(make)
    same_weights(ours, theirs)
    if kind == "switch_continuous":
        for held, switch in zip(theirs.model, ours.model, strict=True):
            if not resnet:
                for expected, layer in zip(held._layers, switch.layers, strict=True):
                    assert difference(layer.w, expected.w) < 1e-6
    if kind == "continuous" and resnet:
        assert ours.model[2].layers[0].w.diff(dim=-1).abs().min() > 0
    x = torch.rand(5, 3)
    if kind in PIECEWISE and not resnet:
        assert difference(ours(x), theirs(x)) < 1e-5


def test_row_20_layers_without_lines():
    net = networks.LowOrderMLP(3, 2, 2, 4)
    before = [p.clone() for p in net.parameters()]
    networks.initialize_network_polynomial_layers(net, 1.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    with pytest.raises(TypeError, match="model: got Linear, needs fully connected layers"):
        networks.initialize_polynomial_layer(nn.Linear(2, 2))


KINDS = (
    *PIECEWISE,
    "continuous_prod",
    "discontinuous_prod",
    "polynomial",
    "polynomial_prod",
    "fourier",
    "switch_continuous",
    "switch_discontinuous",
    "product",
    "baseline_relu",
)


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_row_22_p_refinement_keeps_the_outputs(kind, resnet):
    shared = {"normalization": norm.MaxAbsNormalization, "resnet": resnet}
    for n, finer in ((2, 3), (3, 8)):
        source, target = filled(mlp(kind, n, 2, **shared)).double(), mlp(kind, finer, 2, **shared).double()
        x = 2 * torch.rand(20, 3, dtype=torch.float64) - 1
        networks.interpolate_high_order_mlp(source, target)
        assert difference(target(x), source(x)) < 1e-11
        assert target.output_layer is target.model[-1]
        doubled = mlp(kind, finer, 2, **shared).double()
        networks.interpolate_high_order_mlp(source.double(), doubled)
        assert difference(doubled(x.double()), source(x.double())) < 1e-9


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "continuous" in kind])
def test_row_23_hp_refinement_keeps_the_outputs(kind, resnet):
    shared = {"normalization": norm.MaxAbsNormalization, "resnet": resnet}
    for n, segments in ((2, 6), (4, 4)):
        source, target = filled(mlp(kind, 2, 2, **shared)), mlp(kind, n, segments, **shared)
        x = 2 * torch.rand(20, 3) - 1
        networks.hp_refine_high_order_mlp(source, target)
        assert difference(target(x), source(x)) < 1e-4


@pytest.mark.parametrize("normalization", [nn.LazyBatchNorm1d, norm.LazyLayerNormLastDim])
def test_row_22_normalisation_is_kept_too_also_where_the_finer_network_has_seen_no_input(normalization):
    source, target = (mlp("continuous", n, 2, normalization=normalization) for n in (2, 4))
    x = 2 * torch.rand(30, 3) - 1
    source(x), filled(source), source(x)
    networks.interpolate_high_order_mlp(source, target)
    assert difference(target.eval()(x), source.eval()(x)) < 1e-5
    assert not any(nn.parameter.is_lazy(p) for p in target.parameters())
    fresh = (
        mlp("continuous", 3, 2, normalization=normalization),
        mlp("continuous", 4, 2, normalization=normalization),
    )
    networks.interpolate_high_order_mlp(*fresh)  # nothing to keep yet
    assert fresh[1](x).shape == (30, 2)
    with pytest.raises(ValueError, match="target at 1: got weight of another shape"):
        networks.interpolate_high_order_mlp(mlp("continuous", 2, 2, normalization=normalization), target)


REFINED = [(kind, "interpolate_high_order_mlp") for kind in KINDS if kind.endswith("continuous")]
REFINED += [(kind, "hp_refine_high_order_mlp") for kind in ("continuous", "switch_continuous")]


@pytest.mark.parametrize(("kind", "name"), REFINED)
def test_rows_22_and_23_refined_networks_are_the_peers(kind, name):
    segments = 2 if name.startswith("interpolate") else 4

    def make(package):
        source, target = mlp(kind, 3, 2, package), mlp(kind, 4, segments, package)
        for layer in source.model:
            for held in getattr(layer, "_layers", None) or getattr(layer, "layers", None) or [layer]:
                nn.init.normal_(held.w, std=0.3)
        getattr(package, name)(source, target)
        return target

    theirs, ours = both(make)
    same_weights(ours, theirs)
    x = 0.1 * torch.rand(9, 3)
    assert difference(ours(x), theirs(x)) < 1e-4


@pytest.mark.parametrize(
    ("kind", "n", "segments", "finer"),
    [
        ("continuous", 5, 3, (3, 3)),
        ("discontinuous", 5, 3, (3, 3)),
        ("discontinuous", 7, 5, (1, 5)),
        ("continuous", 3, 5, (3, 7)),
        ("continuous", 4, 4, (2, 2)),
    ],
)
def test_row_23_coarser_layers_are_the_peers(kind, n, segments, finer):
    """Whose curve meets the finer one's at its nodes."""
    function = "interpolate_polynomial_layer" if segments == finer[1] else "refine_polynomial_layer"

    def make(package):
        sizes = {"in_features": 2, "out_features": 3}
        source = package.high_order_fc_layers(layer_type=kind, n=n, segments=segments, **sizes)
        target = package.high_order_fc_layers(layer_type=kind, n=finer[0], segments=finer[1], **sizes)
        nn.init.normal_(source.w)
        getattr(package, function)(source, target)
        return target

    theirs, ours = both(make)
    assert difference(ours.w, theirs.w) < 1e-5


@pytest.mark.parametrize("kind", ["continuous2d", "polynomial2d", "fourier2d"])
def test_networks_of_convolutions_are_refined_too(kind):
    make = networks.HighOrderFullyConvolutionalNetwork
    source, target = (make(kind, n, [2, 3, 2], 2, 3, normalization=nn.BatchNorm2d).eval() for n in (3, 5))
    filled(source)
    networks.interpolate_high_order_mlp(source, target)
    x = 2 * torch.rand(3, 2, 7, 7) - 1
    assert difference(target(x), source(x)) < 1e-4


def test_row_23_each_side_of_a_knot_keeps_its_value():
    source = filled(high_order_fc_layers("discontinuous", n=2, segments=2, in_features=1, out_features=1))
    target = high_order_fc_layers("discontinuous", n=3, segments=4, in_features=1, out_features=1)
    networks.refine_discontinuous_polynomial_layer(source, target)
    a, b, c, d = source.w.flatten().tolist()
    first, second = [a, 0.75 * a + 0.25 * b, (a + b) / 2], [(a + b) / 2, 0.25 * a + 0.75 * b, b]
    third, fourth = [c, 0.75 * c + 0.25 * d, (c + d) / 2], [(c + d) / 2, 0.25 * c + 0.75 * d, d]
    torch.testing.assert_close(target.w.flatten(), torch.tensor(first + second + third + fourth))


def test_what_cannot_be_refined_is_named():
    with pytest.raises(ValueError, match="layer_out: got 3 segments, needs 2"):
        networks.interpolate_high_order_mlp(mlp("continuous", 2, 2), mlp("continuous", 3, 3))
    with pytest.raises(ValueError, match=r"target at 0: got .*kind"):
        networks.interpolate_high_order_mlp(mlp("continuous", 2, 2), mlp("continuous_prod", 3, 2))
    with pytest.raises(TypeError, match="target: got Sequential"):
        networks.hp_refine_high_order_mlp(
            mlp("continuous", 2, 2), mlp("continuous", 3, 2, normalization=norm.MaxAbsNormalization)
        )
    layer = high_order_fc_layers("polynomial", n=3, in_features=2, out_features=2)
    with pytest.raises(ValueError, match=r"target: got edges \(2, 3\)"):
        layer.interpolate(high_order_fc_layers("polynomial", n=4, in_features=3, out_features=2))


@pytest.mark.parametrize("kind", ["polynomial", "fourier", "continuous_prod"])
def test_every_kind_has_the_methods(kind):
    made = [high_order_fc_layers(kind, n=n, segments=2, in_features=2, out_features=3) for n in (3, 5)]
    filled(made[0])
    x = 2 * torch.rand(9, 2) - 1
    for method in ("interpolate", "refine"):
        nn.init.zeros_(made[1].w)
        getattr(made[0], method)(made[1])
        assert difference(made[1](x), made[0](x)) < 1e-5


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_row_24_smoothing_is_the_peers(factor):
    def make(package):
        net = mlp("discontinuous", 3, 4, package)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
        before = [layer.w.detach().clone() for layer in net.model]
        package.smooth_discontinuous_network(net, factor)
        return net, before

    (theirs, _), (ours, before) = both(make)
    same_weights(ours, theirs)
    for layer, w in zip(ours.model, before, strict=True):
        jumps = [v[..., 3:-1:3] - v[..., 2:-1:3] for v in (layer.w, w)]
        assert torch.allclose(jumps[0], (1 - factor) * jumps[1], atol=1e-6)
    layer = filled(high_order_fc_layers("discontinuous", n=2, segments=3, in_features=2, out_features=1))
    networks.smooth_discontinuous_layer(layer, 1.0)
    assert torch.allclose(layer.w[..., 1:-1:2], layer.w[..., 2:-1:2])


def test_layers_exports_them_as_the_peers_module_does():
    for name in ("initialize_polynomial_layer", "interpolate_polynomial_layer", "refine_polynomial_layer",
                 "refine_discontinuous_polynomial_layer", "smooth_discontinuous_layer"):  # fmt: skip
        assert getattr(layers, name) is getattr(networks, name) and name in layers.__all__


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_other_segments_raise_in_convolutions_too(sizes):
    make = layers.high_order_convolution_layers
    ours, theirs = (
        nn.Sequential(make("continuous2d", n=3, segments=s, in_channels=2, out_channels=2, kernel_size=3))
        for s in sizes
    )
    with pytest.raises(ValueError, match=f"layer_out: got {sizes[1]} segments, needs {sizes[0]}"):
        networks.interpolate_polynomial_layer(ours, theirs)
