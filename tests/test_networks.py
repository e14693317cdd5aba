"""Perceptrons: the peer's outputs, gradients, state dicts and seeds; what it never got to construct."""

import pytest
import torch
from torch import nn

from high_order_fused import bases, layers, networks, norm
from high_order_fused.kan import KAN
from high_order_fused.linear import HighOrderLinear
from high_order_fused.refinement import conversion, refine
from tests.peer_networks import alike, in_double, peer_networks, seeded
from tests.support import difference

KINDS = (
    "continuous",
    "discontinuous",
    "polynomial",
    "fourier",
    "continuous_prod",
    "discontinuous_prod",
    "product",
    "switch_continuous",
    "switch_discontinuous",
    "baseline",
    "baseline_relu",
)
SEGMENTS = {"in_segments": 2, "hidden_segments": 3, "out_segments": 2}


def mlp(kind="continuous", n=3, hidden_layers=2, **kwargs):
    return networks.HighOrderMLP(kind, n, 3, 2, hidden_layers, 5, **{**SEGMENTS, **kwargs})


def same_step(theirs, ours, x):
    """Outputs and the gradients of x and of all that the peer trains are the same.

    In float64, for a chain of layers enlarges the rounding of the peer's float32.
    """
    results = []
    torch.set_default_dtype(torch.float64)  # that of the peer's knots
    for net in in_double(theirs, ours):
        torch.manual_seed(1)  # dropout
        point = x.double().requires_grad_()
        y = net(point)
        g = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape)
        names = [
            key for key, p in theirs.named_parameters() if p.requires_grad and not key.endswith("result")
        ]
        leaves = [point, *(net.get_parameter(key) for key in names)]
        results.append((y, *torch.autograd.grad(y, leaves, g)))
    torch.set_default_dtype(torch.float32)
    assert results[0][0].abs().max() > 1e-3
    for actual, expected in zip(results[1], results[0], strict=True):
        assert difference(actual, expected) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resnet", [False, True])
def test_row_25_high_order_mlp_is_the_peers(kind, resnet):
    shared = {"periodicity": 2.0, "normalization": norm.MaxAbsNormalization, "resnet": resnet, **SEGMENTS}
    theirs, ours = alike("HighOrderMLP", kind, 3, 3, 2, 3, 4, n_hidden=2, n_out=4, **shared)
    same_step(theirs, ours, 2 * torch.rand(6, 3) - 1)


def test_row_25_names_of_the_state_dict_count_what_stands_between():
    shared = {"normalization": nn.LazyBatchNorm1d, "non_linearity": nn.ReLU(), "dropout": 0.3, **SEGMENTS}
    theirs, ours = alike("HighOrderMLP", "continuous", 3, 3, 2, 2, 4, **shared)
    x = 2 * torch.rand(9, 3) - 1
    same_step(theirs, ours, x)
    keys = [key for key in ours.state_dict() if key.endswith(".w")]
    assert keys == [
        f"{name}.w" for name in ("input_layer", "output_layer", *map("model.{}".format, (0, 4, 8, 12)))
    ]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)  # with the statistics of the batch
    same_step(theirs.eval(), ours.eval(), x)


def test_row_25_the_first_layer_may_be_of_another_kind():
    theirs, ours = alike(
        "HighOrderMLP", "continuous", 3, 2, 2, 1, 4, layer_type_in="polynomial", n_in=5, **SEGMENTS, scale=4.0
    )
    same_step(theirs, ours, torch.rand(5, 2))
    assert list(ours.state_dict())[:2] == ["input_layer.w", "input_layer.result"]


@pytest.mark.parametrize("between", [{}, {"normalization": nn.BatchNorm1d, "non_linearity": nn.Tanh()}])
def test_row_26_low_order_mlp_is_the_peers(between):
    if between:
        between = {**between, "normalization": lambda: nn.BatchNorm1d(4)}
    theirs, ours = alike("LowOrderMLP", 3, 2, 2, 4, **between)
    same_step(theirs, ours, torch.randn(7, 3))


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize("rotations", [1, 3])
def test_row_27_transform_mlp_is_the_peers(rotations, resnet):
    sizes = {"n": 3, "n_in": 2, "n_hidden": 3, "n_out": 4, **SEGMENTS, "hidden_layers": 3}
    theirs, ours = alike(
        "transform_mlp", "discontinuous", 3, 4, 2, rotations=rotations, resnet=resnet, **sizes
    )
    assert next(iter(ours.state_dict())) == "0.weight" and not ours[0].weight.requires_grad
    same_step(theirs, ours, 0.1 * torch.rand(5, 3))
    theirs, ours = alike("transform_low_mlp", 3, 4, 2, 1, nn.ReLU(), None, rotations)
    same_step(theirs, ours, torch.rand(5, 3))


def test_scalar_to_list_is_the_peers():
    for value in (None, 2, 0.5, "continuous", True, [1, 2], (3,)):
        assert networks.scalar_to_list(value, 3) == peer_networks().scalar_to_list(value, 3)


NORMS = [*norm.normalization_layers.values(), norm.MaxAbsNormalizationND, norm.MaxCenterNormalizationLast]


@pytest.mark.parametrize("normalization", NORMS)
def test_rows_30_and_31_normalisations_of_networks_are_the_peers(normalization):
    theirs = seeded(
        peer_networks().HighOrderMLP, "continuous", 3, 3, 2, 2, 4, **SEGMENTS,
        normalization=getattr(pytest.importorskip("high_order_layers_torch.layers"), normalization.__name__),
    )[0]  # fmt: skip
    ours = networks.HighOrderMLP("continuous", 3, 3, 2, 2, 4, **SEGMENTS, normalization=normalization)
    x = 2 * torch.rand(5, 3) - 1
    theirs(x), ours(x)  # some make their parameters of the first input
    for key, parameter in theirs.named_parameters():
        if key.endswith(".w"):
            nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    same_step(theirs, ours, x)


def test_rows_30_and_31_exact_values_of_normalisations():
    rows = torch.tensor([[1, 0.5, 0.5], [2, 0.5, 0.5]])
    blocks = torch.tensor([[[1, 0.5, 0.5], [2, 0.5, 0.5]], [[4, 0.5, 0.5], [8, 0.5, 0.5]]])
    by_row = torch.tensor([[1, 0.5, 0.5], [1, 0.25, 0.25]])
    ends = torch.tensor([[1.0, -1, -1], [1, -1, -1]])
    per_row = torch.tensor([[[1, 0.5, 0.5], [1, 0.25, 0.25]], [[1, 0.125, 0.125], [1, 0.0625, 0.0625]]])
    per_sample = blocks / torch.tensor([2.0, 8.0])[:, None, None]
    for layer, x, expected in (
        (norm.MaxAbsNormalization(eps=0.0), rows, by_row),
        (norm.MaxAbsNormalizationND(eps=0.0), rows, by_row),
        (norm.MaxAbsNormalizationND(eps=0.0), blocks, per_sample),
        (norm.MaxAbsNormalization(eps=0.0, dim=2), blocks, per_row),
        (norm.MaxAbsNormalizationLast(eps=0.0), blocks, per_row),
        (norm.MaxAbsNormalizationLast(eps=0.0), torch.tensor([0, 0.5, 0.25]), torch.tensor([0, 1.0, 0.5])),
        (norm.MaxCenterNormalization(eps=0.0), rows, ends),
        (norm.MaxCenterNormalizationLast(eps=0.0), rows[None], ends[None]),
        (
            norm.MaxAbsNormalization(eps=1.0),
            rows,
            rows / torch.tensor([[2.0], [3.0]]),
        ),  # added to the largest
    ):
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("hidden_layers", "outputs"), [(0, 1), (3, 4)])
@pytest.mark.parametrize("kind", [*KINDS, "polynomial_prod", "kan"])
def test_row_57_shapes_of_perceptrons(kind, hidden_layers, outputs, n):
    net = networks.HighOrderMLP(
        kind, n, 5, outputs, hidden_layers, 1, **SEGMENTS, normalization=nn.LazyBatchNorm1d
    )
    assert net(torch.rand(4, 5)).shape == (4, outputs)


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize("kind", ["switch_continuous", "switch_discontinuous", "continuous"])
def test_row_28_hidden_layers_are_trained_saved_and_moved(kind, resnet):
    net = mlp(kind, resnet=resnet, normalization=norm.MaxAbsNormalization)
    x = 2 * torch.rand(32, 3) - 1
    target, losses = x[:, :2] * x[:, 1:], []
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    assert losses[-1] < 0.5 * losses[0]
    twin = mlp(kind, resnet=resnet, normalization=norm.MaxAbsNormalization)
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(twin(x), net(x))
    assert net.double()(x.double()).dtype == torch.float64


def test_row_25_names_and_composition_of_a_resnet():
    """A hidden layer's sum takes what the module before it makes of the same input; no peer needed."""
    net = mlp(hidden_layers=2, resnet=True)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    registered = ["input_layer.w", "output_layer.w", "model.0.w", "model.1.w", "model.3.w"]
    assert list(networks.peer_state_dict(net)) == registered
    assert list(net.state_dict()) == [
        *registered[:4],
        "model.2.layers.0.w",
        "model.2.layers.1.w",
        "model.3.w",
    ]
    first, second, third, last = net.model
    x = torch.rand(5, 3)
    y = second(first(x))
    assert difference(net(x), last(third.layers[0](y) + second(y))) < 1e-6
    before = net.model[2].layers[0].w.clone()
    net.load_state_dict({key: value + 1 for key, value in networks.peer_state_dict(net).items()}, strict=True)
    assert torch.equal(net.model[2].layers[0].w, before) and not torch.equal(net.model[2].layers[1].w, before)
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict({key: value for key, value in net.state_dict().items() if key != "model.1.w"})


def test_a_resnet_may_add_its_input_once():
    net = mlp(hidden_layers=3, corrected_resnet=True)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    first, second, third, fourth, last = net.model
    x = torch.rand(5, 3)
    y = second(first(x))
    y = y + third.layers[0](y)
    y = y + fourth.layers[0](y)
    assert difference(net(x), last(y)) < 1e-6


def test_lists_of_layers_of_different_kinds():
    kinds, n, segments = (
        ["continuous", "fourier", "polynomial", "baseline"],
        [3, 5, 4, 1],
        [2, None, None, None],
    )
    between = {"normalization": [None, norm.MaxAbsNormalization, None, nn.LazyBatchNorm1d]}
    between["non_linearity"] = [None, None, nn.Tanh(), nn.ReLU()]
    net = networks.HighOrderMLPList(kinds, n, [2, 4, 3, 5, 1], segments, **between)
    x = torch.rand(6, 2)
    assert [type(m).__name__ for m in net.model] == [
        "PiecewisePolynomial", "MaxAbsNormalization", "FourierSeries", "Tanh", "Polynomial",
        "LazyBatchNorm1d", "ReLU", "Linear",
    ]  # fmt: skip
    assert net(x).shape == (6, 1) and net.model[0].w.shape == (4, 2, 5) and net.model[2].w.shape == (3, 4, 5)
    net(x).sum().backward()
    assert all(p.grad is not None for key, p in net.named_parameters() if not key.endswith("result"))
    single = alike("HighOrderMLPList", ["continuous"], [3], [2, 4], [2])  # all that the peer builds
    same_step(*single, x)
    for name, wrong in (("width", [2, 4]), ("n", [3]), ("segments", [2] * 5), ("non_linearity", [nn.ReLU()])):
        given = {"n": n, "width": [2, 4, 3, 5, 1], "segments": segments, **between, name: wrong}
        with pytest.raises(
            ValueError, match=f"{name}: got {len(wrong)} values, needs {4 + (name == 'width')}"
        ):
            networks.HighOrderMLPList(kinds, **given)


def test_several_perceptrons_side_by_side():
    sizes = {"hidden_layers": 1, "hidden_width": 4, **SEGMENTS, "n_hidden": 2, "n_out": 4}
    net = networks.HighOrderMultiMLP(
        "continuous", 3, 3, 2, 5, **sizes, normalization=norm.MaxAbsNormalization
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(6, 2)
    (first, scale), (again, last) = net.model_in, net.model_out
    inner = scale(first(x))
    assert difference(net(x), last(again(sum(replica(inner) for replica in net.replica_list)))) < 1e-6
    assert len(net.replica_list) == 3 and net.replica_list[1].output_layer.w.shape == (4, 4, 4)
    net(x).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    twin = networks.HighOrderMultiMLP(
        "continuous", 3, 3, 2, 5, **sizes, normalization=norm.MaxAbsNormalization
    )
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(twin(x), net(x))
    with pytest.raises(ValueError, match="replicas: got 0"):
        networks.HighOrderMultiMLP("continuous", 3, 0, 2, 5, **sizes)


def test_row_54_kan_layers_and_piecewise_layers_are_interchangeable():
    x = 2 * torch.rand(64, 3) - 1
    target = (x[:, :1] * x[:, 1:2]).expand(-1, 2)
    for kind in ("kan", "continuous"):
        net = mlp(kind, 4, normalization=norm.MaxAbsNormalization)
        optimizer, losses = torch.optim.Adam(net.parameters(), 0.02), []
        for _ in range(40):
            optimizer.zero_grad()
            loss = (net(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
    sizes = {"in_segments": 5, "out_segments": 5, "hidden_layers": 0, "hidden_width": 4}
    ours, kan = (
        seeded(networks.HighOrderMLP, "kan", 4, 3, 2, **sizes)[0],
        seeded(KAN, [3, 4, 2], grid_size=5)[0],
    )
    assert torch.equal(ours(x), kan(x))


@pytest.mark.parametrize(("degree", "segments"), [(1, 4), (2, 3), (3, 5)])
def test_row_54_the_splines_of_a_kan_layer_are_piecewise_polynomials(degree, segments):
    """Of KANLinear without its base branch, and of our layer in that basis: the same outputs from pieces."""
    kan = layers.high_order_fc_layers("kan", n=degree + 1, segments=segments, in_features=3, out_features=4)
    nn.init.zeros_(kan.base_weight)
    pieces = layers.high_order_fc_layers(
        "continuous", n=degree + 1, segments=segments, in_features=3, out_features=4
    )
    splines, basis = bases.bspline(degree, segments), pieces.basis
    matrix = conversion(splines, basis).float()
    with torch.no_grad():
        pieces.w.copy_(kan.scaled_spline_weight @ matrix.mT)
    x = 2 * torch.rand(200, 3) - 1
    assert difference(pieces(x), kan(x)) < 1e-5
    ours = HighOrderLinear(3, 4, splines)
    nn.init.normal_(ours.weight)
    net = nn.Sequential(ours, nn.Tanh(), HighOrderLinear(4, 2, splines))
    piecewise = nn.Sequential(
        HighOrderLinear(3, 4, bases.piecewise_lagrange(degree + 1, segments)),
        nn.Tanh(),
        HighOrderLinear(4, 2, bases.piecewise_lagrange(degree + 1, segments)),
    )
    refine(net, piecewise)
    assert difference(piecewise(x), net(x)) < 1e-5


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="layer_type: got 'spline'"):
        mlp("spline")
    with pytest.raises(ValueError, match="hidden_layers: got -1"):
        mlp(hidden_layers=-1)
    with pytest.raises(TypeError, match="segments: got None"):
        mlp(hidden_segments=None)
    with pytest.raises(ValueError, match="hidden_layers: got -1"):
        networks.LowOrderMLP(2, 2, -1, 3)


def test_every_public_name_is_there():
    assert all(hasattr(networks, name) for name in networks.__all__)
    own = "high_order_layers_torch"
    theirs = {
        name for name, found in vars(peer_networks()).items() if own in getattr(found, "__module__", "")
    }
    assert theirs - {"PiecewiseDiscontinuous", "HighOrderMLPMixerBlock"} <= set(networks.__all__)


@pytest.mark.parametrize(
    ("kind", "n"), [("continuous", 3), ("continuous", 10), ("discontinuous", 1), ("discontinuous", 4)]
)
def test_row_57_initial_lines_without_offset_are_odd(kind, n):
    layer = layers.high_order_fc_layers(kind, n=n, in_features=3, out_features=2, segments=3)
    networks.initialize_polynomial_layer(layer, max_slope=1.0, max_offset=0.0)
    assert torch.allclose(layer.w, -layer.w.flip(-1), atol=1e-6) and layer.w.abs().max() > 0.1


@pytest.mark.parametrize("resnet", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "discontinuous", "switch_continuous", "switch_discontinuous"])
def test_row_57_initial_lines_change_the_output(kind, resnet):
    net, x = mlp(kind, resnet=resnet), torch.rand(2, 3)
    before = net(x)
    networks.initialize_network_polynomial_layers(net, max_slope=1.0, max_offset=0.0)
    assert difference(net(x), before) > 1e-2


def test_row_57_a_step_moves_the_values_of_one_segment_alone():
    layer = layers.high_order_fc_layers("discontinuous", n=2, in_features=1, out_features=1, segments=10)
    nn.functional.mse_loss(layer(torch.full((1, 1), 0.5)), torch.full((1, 1), 0.2)).backward()
    assert layer.w.grad.shape == (1, 1, 20) and layer.w.grad.flatten().nonzero().flatten().tolist() == [
        14,
        15,
    ]


@pytest.mark.parametrize("layers_multiplied", [2, 3])
def test_row_57_normalised_switches_are_finite(layers_multiplied):
    layer = networks.SwitchLayer(
        "continuous",
        3,
        2,
        3,
        segments=2,
        num_input_layers=layers_multiplied,
        normalization=norm.MaxAbsNormalization(),
    )
    y = layer(torch.rand(5, 2) * 2 - 1)
    assert y.shape == (5, 3) and y.isfinite().all()
