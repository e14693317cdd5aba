"""Products and sums of layers, rotations, embeddings, normalisations: the peer, training, saving."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import high_order_fused as hof
from high_order_fused import combined, embeddings, layers, norm
from tests.support import difference


def peer(module):
    return pytest.importorskip(
        f"high_order_layers_torch.{module}", reason="high-order-layers-torch is not installed"
    )


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", ["switch_continuous", "switch_discontinuous"])
def test_switch_is_a_product_of_layers(kind, count):
    theirs = peer("layers")
    arguments = {"n": 3, "in_features": 4, "out_features": 5, "segments": 2, "num_input_layers": count}
    torch.manual_seed(0)
    other = theirs.high_order_fc_layers(layer_type=kind, **arguments)
    torch.manual_seed(0)
    ours = layers.high_order_fc_layers(kind, **arguments)
    x = torch.rand(7, 4, requires_grad=True)
    assert difference(ours(x), other(x)) < 1e-5
    for mine, hidden in zip(ours.layers, other._layers, strict=True):
        assert torch.equal(mine.w, hidden.w)
    assert len(list(ours.parameters())) == count and len(ours.double().state_dict()) == count
    ours(x.double()).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_state_dicts_of_the_peer_load():
    """They lack the hidden layers, which keep their values; a state dict with some of them must have all."""
    arguments = {"n": 3, "in_features": 4, "out_features": 5, "segments": 2}
    net = nn.Sequential(nn.Linear(4, 4), layers.high_order_fc_layers("switch_continuous", **arguments))
    before = net[1].layers[0].w.clone()
    linear = nn.Linear(4, 4)
    net.load_state_dict({f"0.{key}": value for key, value in linear.state_dict().items()}, strict=True)
    assert torch.equal(net[0].weight, linear.weight) and torch.equal(net[1].layers[0].w, before)
    twin = nn.Sequential(nn.Linear(4, 4), layers.high_order_fc_layers("switch_continuous", **arguments))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin[1].layers[1].w, net[1].layers[1].w)
    some = {key: value for key, value in net.state_dict().items() if not key.endswith("layers.1.w")}
    with pytest.raises(RuntimeError, match="Missing key"):
        twin.load_state_dict(some)
    with pytest.raises(RuntimeError, match="Missing key"):
        twin.load_state_dict({})


def test_sum_and_normalised_switch():
    parts = [nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)]
    layer, x = layers.SumLayer(layer_list=parts), torch.rand(5, 3)
    assert difference(layer(x), sum(part(x) for part in parts)) < 1e-6
    assert len(list(layer.parameters())) == 6
    normalised = combined.SwitchLayer(
        "continuous", 3, 3, 2, segments=2, normalization=norm.max_abs_normalization
    )
    assert normalised(x).abs().max(1).values.allclose(torch.ones(5), atol=1e-4)
    with pytest.raises(ValueError, match="num_input_layers: got 0"):
        combined.SwitchLayer("continuous", 3, 3, 2, segments=2, num_input_layers=0)


FUNCTIONS = (
    "max_abs",
    "max_abs_normalization",
    "max_abs_normalization_last",
    "max_abs_normalization_nd",
    "max_center_normalization",
    "max_center_normalization_last",
    "max_center_normalization_nd",
    "l2_normalization",
)


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_normalisations(name, shape):
    """Values and gradients of the peer, ties among them."""
    x = torch.randn(shape)
    x[0] = 0.5
    results = []
    for module in (peer("utils"), norm):
        point = x.clone().requires_grad_()
        y = getattr(module, name)(point)
        g = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).view(y.shape)
        results.append((y, *torch.autograd.grad(y, point, g)))
    for actual, expected in zip(results[1], results[0], strict=True):
        assert difference(actual, expected) < 1e-5


MODULES = [name for name in norm.__dict__ if name.endswith(("Normalization", "Last", "ND", "LastDim"))]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("_")])
def test_normalisation_modules(name):
    ours, theirs = getattr(norm, name)(), getattr(peer("layers"), name)()
    x = torch.randn(3, 4, 5)
    assert difference(ours(x), theirs(x)) < 1e-5
    assert gradcheck(ours.double(), torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True))


def test_the_lazy_layer_norm_is_found_by_optimisers():
    layer = norm.LazyLayerNormLastDim()
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    x = torch.randn(3, 4)
    assert difference(layer(x), nn.functional.layer_norm(x, (4,))) < 1e-6
    layer(x).square().sum().backward()
    before = layer.weight.clone()
    optimiser.step()
    assert not torch.equal(layer.weight, before)
    twin = norm.LazyLayerNormLastDim()
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize(("n", "rotations"), [(1, 1), (3, 2), (4, 3), (2, 5)])
@pytest.mark.parametrize("normalize", [False, True])
def test_rotations(n, rotations, normalize):
    found = []
    for make in (peer("layers").fixed_rotation_layer, embeddings.fixed_rotation_layer):
        torch.manual_seed(0)
        layer, width = make(n, rotations, normalize)
        assert width == n + n * (n - 1) * (rotations - 1) and not layer.weight.requires_grad
        found.append((layer.weight, torch.rand(3)))  # the draws go on alike
    torch.testing.assert_close(*(weight for weight, _ in found))
    assert torch.equal(found[0][1], found[1][1])
    with pytest.raises(ValueError, match="rotations: got 0"):
        embeddings.fixed_rotation_layer(2, 0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("width", "height"), [(4, 4), (5, 3), (2, 7)])
def test_meshes(width, height, normalize):
    theirs = peer("utils").positions_from_mesh(width, height, 3, "cpu", normalize)
    for actual, expected in zip(
        embeddings.positions_from_mesh(width, height, 3, normalize=normalize), theirs, strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_embeddings():
    theirs = peer("positional_embeddings").ClassicSinusoidalEmbedding(8)
    x = torch.rand(3, 2) * 10
    assert difference(embeddings.ClassicSinusoidalEmbedding(8)(x), theirs(x)) < 1e-5
    assert embeddings.ClassicSinusoidalEmbedding(2)(x).isfinite().all()
    with pytest.raises(ValueError, match="dim: got 3"):
        embeddings.ClassicSinusoidalEmbedding(3)
    for make in ("PiecewisePolynomialEmbedding", "PiecewiseDiscontinuousPolynomialEmbedding"):
        layer = getattr(embeddings, make)(n=3, in_features=1, out_features=4, segments=2)
        assert layer(torch.rand(5, 1)).shape == (5, 4)
    assert isinstance(embeddings.FourierSeriesEmbedding(3, 1, 4), hof.layers.FourierSeries)
