"""Side by side with high-order-layers-torch 2.6.0, where it is installed."""

import pytest
import torch

from high_order_fused.layers import high_order_fc_layers
from tests.support import difference, seeds

peer = pytest.importorskip(
    "high_order_layers_torch.layers", reason="high-order-layers-torch is not installed"
)

KINDS = ("continuous", "discontinuous", "polynomial", "fourier")


def pair(kind, seed, **kwargs):
    """The peer's layer and ours, each initialised from the same seed, with the peer's weights made random."""
    torch.manual_seed(seed)
    theirs = peer.high_order_fc_layers(layer_type=kind, **kwargs)
    torch.manual_seed(seed)
    ours = high_order_fc_layers(layer_type=kind, **kwargs)
    assert torch.equal(ours.w, theirs.w), "initialisation differs"
    torch.nn.init.normal_(theirs.w)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def in_double(layer):
    """The peer's layer in float64, its nodes too, which it leaves in float32."""
    basis = getattr(getattr(layer, "_poly", None) or layer.poly, "basis", None)
    if hasattr(basis, "denominators"):
        scale = basis.X.double().abs().max()
        basis.X = scale * -torch.cos(torch.arange(basis.n, dtype=torch.float64) * torch.pi / (basis.n - 1))
        apart = basis.X[:, None] - basis.X
        basis.denominators = torch.where(torch.eye(basis.n, dtype=torch.bool), 1.0, apart)
    return layer.double()


def choose(generator, options):
    return options[int(torch.randint(len(options), (), generator=generator))]


def run(layer, x, g):
    x = x.clone().requires_grad_()
    y = layer(x)
    gradients = torch.autograd.grad(y, (x, layer.w), g, allow_unused=True)
    return y, *(torch.zeros_like(t) if d is None else d for d, t in zip(gradients, (x, layer.w), strict=True))


@pytest.mark.parametrize("seed", seeds(240))
def test_random_configurations(seed):
    generator = torch.Generator().manual_seed(seed)
    kind = KINDS[seed % 4]
    arguments = {
        "n": choose(generator, (1, 2, 3, 4, 5, 6)),
        "segments": choose(generator, (1, 2, 3, 5, 7, 8)),
        "in_features": choose(generator, (1, 2, 5, 7)),
        "out_features": choose(generator, (1, 3, 8)),
        "length": choose(generator, (2.0, 2.0, 2.0, 4.0, 1.0)),
        "periodicity": choose(generator, (None, None, 2.0, 1.0)),
        "weight_magnitude": choose(generator, (1.0, 0.3)),
        "initialize": choose(generator, ("constant_random", "uniform")),
        "rescale_output": True,
    }
    theirs, ours = pair(kind, seed, **arguments)
    x = (torch.rand(choose(generator, (1, 4, 17)), arguments["in_features"], generator=generator) * 2 - 1) * 3
    g = torch.randn(x.shape[0], arguments["out_features"], generator=generator)
    peer32, exact = run(theirs, x, g), run(in_double(theirs), x.double(), g.double())
    for actual, expected, double in zip(run(ours, x, g), peer32, exact, strict=True):
        assert difference(actual, double) < 1e-5
        rounding = difference(expected, double)  # of the peer: over 1e-5 where n = 6 is extrapolated far
        assert difference(actual, expected) < max(1e-5, 2 * rounding)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("segments", range(1, 13))
@pytest.mark.parametrize("kind", ["continuous", "discontinuous"])
def test_segment_boundaries(kind, segments, n):
    """At every boundary and one ulp either side: the same segment to the bit, values, gradients."""
    theirs, ours = pair(kind, 0, n=n, segments=segments, in_features=1, out_features=2)
    k = torch.arange(segments + 1)
    exact = (2 * k.double() / segments - 1).float()
    rounded = 2 * (k / float(segments)) - 1  # as the peer computes its segment ends
    edges = torch.cat([exact, rounded])
    x = torch.cat([edges, edges.nextafter(torch.tensor(-9.0)), edges.nextafter(torch.tensor(9.0))])[:, None]
    assert torch.equal(ours.which_segment(x), theirs.which_segment(x))
    g = torch.randn(len(x), 2)
    for actual, expected in zip(run(ours, x, g), run(theirs, x, g), strict=True):
        assert difference(actual, expected) < 1e-5


@pytest.mark.parametrize("periodicity", [None, 2.0, 1.0])
@pytest.mark.parametrize("length", [2.0, 4.0, 0.7])
@pytest.mark.parametrize("segments", [1, 2, 3, 5, 6, 7, 9, 11, 12, 64, 100])
def test_segments_bit_equal(segments, length, periodicity):
    arguments = {"n": 2, "segments": segments, "in_features": 1, "out_features": 1, "length": length}
    theirs, ours = pair("continuous", 0, periodicity=periodicity, **arguments)
    wild = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 1e10, -1e10, 1e16, -1e16])
    x = torch.cat([torch.randn(4000) * length, torch.linspace(-length, length, 4001), wild])[:, None]
    assert torch.equal(ours.which_segment(x), theirs.which_segment(x))


def test_one_feature_serves_all_inputs():
    theirs, ours = pair("polynomial", 0, n=3, in_features=4, out_features=2)
    x = torch.rand(5, 1)
    assert difference(ours(x), theirs(x)) < 1e-5


def test_baselines():
    for kind in ("baseline", "baseline_relu"):
        torch.manual_seed(3)
        theirs = peer.high_order_fc_layers(layer_type=kind, n=3, in_features=4, out_features=2)
        torch.manual_seed(3)
        ours = high_order_fc_layers(layer_type=kind, n=3, in_features=4, out_features=2)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        x = torch.randn(3, 4)
        assert torch.equal(ours(x), theirs(x))
