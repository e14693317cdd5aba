"""Outputs and gradients of the peers, as recorded, and the hand-sized values of their specification."""

import pytest
import torch

import high_order_fused as hof
from high_order_fused.kan import KANLinear
from high_order_fused.layers import high_order_fc_layers
from tests import support
from tests.support import difference, golden, golden_names

SUMS = [
    n
    for kind in ("continuous", "discontinuous", "polynomial", "fourier")
    for n in golden_names(f"hol-fc-{kind}-*")
]


def compare(layer, values):
    layer.to(support.DEVICE).load_state_dict(values["state"], strict=True)
    x = values["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(values["g"])
    assert difference(y, values["y"]) < 1e-5
    assert difference(x.grad, values["grad_x"]) < 1e-5
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    assert gradients.keys() == values["grad"].keys()
    for name, expected in values["grad"].items():
        assert difference(gradients[name], expected) < 1e-5, name


@pytest.mark.parametrize("name", SUMS)
def test_high_order_layers(name):
    meta, values = golden(name)
    compare(high_order_fc_layers(meta["layer_type"], **meta["kwargs"]), values)


@pytest.mark.parametrize("name", golden_names("efficient-kan-*"))
def test_efficient_kan(name):
    meta, values = golden(name)
    compare(KANLinear(**meta["kwargs"]), values)


def counted(shape):
    """The weights of the specification's tables: flattened, the k-th is ((7k mod 11) - 5) / 5."""
    k = torch.arange(torch.Size(shape).numel())
    return (((7 * k) % 11 - 5) / 5).view(shape)


X = torch.tensor([[-1.0, 0.3], [0.0, -0.45], [1.2, 0.9]])
TABLE = [
    ("polynomial", {"n": 3}, [-1.04, 0.96, -1.344], [(2.5, -0.8), (0.3, -0.8), (-2.34, -0.8)]),
    ("continuous", {"n": 3, "segments": 2}, [-1.744, 0.419, -0.592], [(5, -1.16), (5, 0.16), (-5.56, 4.12)]),
    (
        "continuous",
        {"n": 3, "segments": 2, "periodicity": 2},
        [-1.744, 0.419, 0.928],
        [(5, -1.16), (5, 0.16), (2.04, 4.12)],
    ),
    (
        "continuous",
        {"n": 4, "segments": 3},
        [-1.470933, -0.180917, 4.802402],
        [(17.4, -4.216), (-3.1, -1.905), (32.48401, -5.144)],
    ),
    ("discontinuous", {"n": 3, "segments": 2}, [-0.88, 0.92, -1.76], [(5, -1.6), (-1.6, -1.6), (-1.6, -1.6)]),
    ("discontinuous", {"n": 2, "segments": 3}, [-0.47, 0.44, -1.72], [(2.1, 2.1), (2.1, -1.2), (-1.2, -1.2)]),
    (
        "fourier",
        {"n": 4},
        [-0.015182, -0.082239, -0.306706],
        [(5.02655, -3.14123), (7.53982, 2.18746), (0.18633, 1.01605)],
    ),
]


@pytest.mark.parametrize(("kind", "kwargs", "y", "dx"), TABLE)
def test_high_order_layers_by_hand(kind, kwargs, y, dx):
    layer = high_order_fc_layers(kind, in_features=2, out_features=1, **kwargs)
    layer.w.data = counted(layer.w.shape)
    x = X.clone().requires_grad_()
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out[:, 0], torch.tensor(y), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(x.grad, torch.tensor(dx, dtype=torch.float32), rtol=1e-5, atol=6e-6)


@pytest.mark.parametrize(
    ("kind", "segments", "y"),
    [
        ("continuous", 2, [-5, -1, 1, 1, 3, 5, 9]),
        ("discontinuous", 2, [-5, -1, 1, 2, 4, 6, 10]),
        ("polynomial", None, [0, 0.5, 0.75, 1, 1.25, 1.5, 2]),
    ],
)
def test_length_four_as_the_peer_has_it(kind, segments, y):
    layer = high_order_fc_layers(kind, n=3, in_features=1, out_features=1, length=4, segments=segments)
    layer.w.data = torch.arange(layer.w.numel(), dtype=torch.float32).view_as(layer.w)
    x = torch.tensor([-2, -1, -0.5, 0, 0.5, 1, 2])[:, None]
    torch.testing.assert_close(layer(x)[:, 0], torch.tensor(y, dtype=torch.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["continuous", "discontinuous"])
def test_length_four_consistent(kind):
    """Node values are the values at the nodes of the segments, wherever the interval is."""
    layer = high_order_fc_layers(
        kind, n=4, in_features=1, out_features=1, segments=3, length=4, consistent_length=True
    )
    torch.nn.init.normal_(layer.w)
    short = high_order_fc_layers(kind, n=4, in_features=1, out_features=1, segments=3)
    short.load_state_dict(layer.state_dict())
    x = torch.linspace(-1.1, 1.1, 40)[:, None]
    assert difference(layer(2 * x), short(x)) < 1e-5


def kan_by_hand(scaler):
    layer = KANLinear(2, 1, enable_standalone_scale_spline=scaler)
    state = {
        "base_weight": torch.tensor([[0.5, -0.25]]),
        "spline_weight": counted((1, 2, 8)),
        "grid": layer.grid,
    }
    if scaler:
        state["spline_scaler"] = torch.tensor([[2.0, -1.0]])
    layer.load_state_dict(state, strict=True)
    return layer


@pytest.mark.parametrize(
    ("scaler", "y", "dx"),
    [
        (
            True,
            [-0.161929, 1.6328, 0.541776, 0.654607],
            [(1.53616, 0.1193), (-2.375, 1.54269), (-1.634, -2.00523), (1.96384, -0.27485)],
        ),
        (
            False,
            [-0.093179, 0.117306, 1.173026, 0.221274],
            [(0.78616, -0.4432), (-1.0625, -1.68387), (-0.5715, 1.55728), (1.21384, -0.27485)],
        ),
    ],
)
def test_kan_by_hand(scaler, y, dx):
    layer = kan_by_hand(scaler)
    x = torch.cat([X, torch.tensor([[1, 2.5]])]).requires_grad_()
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out[:, 0], torch.tensor(y), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(x.grad, torch.tensor(dx), rtol=1e-5, atol=6e-6)
    torch.testing.assert_close(layer.regularization_loss(), torch.tensor(1.8179), rtol=0, atol=5e-5)
    torch.testing.assert_close(layer.regularization_loss(1.0, 0.0), torch.tensor(1.125), rtol=0, atol=5e-5)


def test_kan_grid_and_splines_by_hand():
    layer = KANLinear(2, 1)
    torch.testing.assert_close(layer.grid[1], torch.linspace(-2.2, 2.2, 12), rtol=0, atol=1e-6)
    splines = layer.b_splines(torch.full((1, 2), -1.0))[0, 0]
    torch.testing.assert_close(splines, torch.tensor([1 / 6, 2 / 3, 1 / 6, 0, 0, 0, 0, 0]), rtol=0, atol=1e-6)


def test_the_digits_of_mirror_periodicity():
    x = torch.tensor([1.5, 2.0, 3.0, -1.5])
    torch.testing.assert_close(hof.layers.make_periodic(x, 2), torch.tensor([0.5, 0.0, -1.0, -0.5]))
