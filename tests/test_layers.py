"""Our layer, the peers' small layers, activations and normalisation: initial values, shapes, state."""

import pickle

import pytest
import torch

import high_order_fused as hof
from high_order_fused import layers
from high_order_fused.backends import _registered
from high_order_fused.layers import PolynomialLayer, PRePU, calculate_input_powers, high_order_fc_layers
from tests import cases, support
from tests.support import difference


@pytest.mark.parametrize("case", cases.CASES)
def test_high_order_linear_starts_as_constants_of_variance_one_over_in(case):
    basis = cases.build(case)
    inputs = basis.inputs or 30
    layer = hof.HighOrderLinear(inputs, 500, basis)
    x = torch.rand(5, inputs) * 0.5
    y = layer(x)
    assert difference(y, y[:1].expand_as(y)) < 1e-5, "not constant in x"
    edges = (layer.basis.tabulate(x[:, :1].expand(-1, inputs)) if basis.inputs else layer.basis.tabulate(x))[
        0
    ]
    values = torch.einsum("ik,iko->io", edges, layer.weight)
    assert abs(values.var() * inputs - 1) < 0.15 and abs(values.mean()) < 0.1
    assert values.unique().numel() > 0.9 * values.numel(), "edges are not independent"


CONSTANT = ("continuous", "discontinuous", "continuous_prod", "discontinuous_prod", "polynomial")
CONSTANT += ("polynomial_prod", "polynomial_2d", "continuous_nd")


@pytest.mark.parametrize("kind", CONSTANT)
def test_row_19_edges_begin_as_constants_of_one_draw(kind):
    """From U[0, magnitude / in), and constant in x: a sum of edges is the sum of their constants."""
    sizes = {"n": 3, "segments": 2, "in_features": 4, "out_features": 5, "weight_magnitude": 3.0}
    torch.manual_seed(7)
    layer = high_order_fc_layers(kind, **sizes, **({"dimensions": 2} if kind.endswith("nd") else {}))
    torch.manual_seed(7)
    constants = torch.rand(5, 4) * 3 / 4
    assert torch.equal(layer.w, constants[..., None].expand_as(layer.w))
    x = 4 * torch.rand(6, 4, *(2,) * kind.endswith("d") * ("_prod" not in kind)) - 2
    y = (1 + constants).prod(1) - 1 if kind.endswith("prod") else constants.sum(1)
    assert difference(layer(x), y.expand(6, 5)) < 1e-5


@pytest.mark.parametrize("kind", [*layers.fc_layers, "powers", "activation"])
def test_layers_made_without_memory_draw_their_parameters_later(kind):
    """As frameworks do that shard a model: on the device meta, then emptied, then each reset."""
    makes = {"powers": lambda: PolynomialLayer(4, 5, 3), "activation": lambda: PRePU(4)}
    sizes = {"n": 3, "segments": 2, "in_features": 4, "out_features": 5}
    sizes |= {"initialize": "all"} if kind == "polynomial" else {}
    sizes |= {"dimensions": 2} if kind.endswith("nd") else {}
    make = makes.get(kind, lambda: high_order_fc_layers(kind, **sizes))
    torch.manual_seed(7)
    expected = make().state_dict()
    layer = make().to("meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    torch.manual_seed(7)
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, values in layer.state_dict().items():
        assert torch.equal(values, expected[name]), name
    assert pickle.loads(pickle.dumps(layer)).state_dict().keys() == expected.keys()


def test_row_19_taps_begin_as_constants_of_one_draw():
    for kind, functions in (("continuous2d", 5), ("discontinuous2d", 6), ("polynomial2d", 3)):
        torch.manual_seed(7)
        layer = layers.high_order_convolution_layers(
            kind, n=3, segments=2, in_channels=2, out_channels=3, kernel_size=3, weight_magnitude=3.0
        )
        torch.manual_seed(7)
        torch.nn.init.uniform_(torch.nn.Conv2d(2 * functions, 3, 3, bias=False).weight)  # drawn, not used
        constants = torch.rand(3, 2, 3, 3) * 3 / 18
        assert torch.equal(layer.conv.weight, constants.repeat_interleave(functions, 1))
        y = layer(4 * torch.rand(2, 2, 5, 5) - 2)
        assert difference(y, constants.sum((1, 2, 3))[None, :, None, None].expand_as(y)) < 1e-5


def test_high_order_linear_takes_leading_dimensions():
    layer = hof.HighOrderLinear(3, 2, hof.bases.lagrange(4))
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(4, 5, 3)
    assert layer(x).shape == (4, 5, 2) and layer(x[0, 0]).shape == (2,)
    assert difference(layer(x)[1], layer(x[1])) < 1e-6
    assert layer(x[:0]).shape == (0, 5, 2)


def test_checkpoints_know_their_basis(tmp_path):
    layer = hof.HighOrderLinear(3, 2, hof.bases.lagrange(4))
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    state = torch.load(tmp_path / "layer.pt", weights_only=True)
    same = hof.HighOrderLinear(3, 2, hof.bases.lagrange(4))
    same.load_state_dict(state)
    assert torch.equal(same.weight, layer.weight)
    for other in (
        hof.bases.lagrange(4, (-2, 2)),
        hof.bases.chebyshev(3),
        hof.bases.lagrange(4, outside="clamp"),
    ):
        with pytest.raises(
            ValueError, match=r"got coefficients of lagrange\(n=4, interval=\(-1.0, 1.0\), outside='linear'\)"
        ):
            hof.HighOrderLinear(3, 2, other).load_state_dict(state)
    kept = hof.HighOrderLinear(3, 2, hof.bases.lagrange(4, (-1, 1.0000001)))
    before = kept.weight.clone()
    with pytest.raises(ValueError, match="got coefficients"):
        kept.load_state_dict(state)
    assert torch.equal(kept.weight, before), "a refused checkpoint has overwritten the coefficients"


@pytest.mark.parametrize("kind", ["continuous", "discontinuous", "polynomial", "fourier"])
def test_peer_layers_take_more_than_the_peer(kind):
    """Leading dimensions, double precision, half precision."""
    layer = high_order_fc_layers(kind, n=3, in_features=4, out_features=2, segments=3)
    torch.nn.init.normal_(layer.w)
    x = torch.rand(2, 3, 4) * 2 - 1
    y = layer(x)
    assert y.shape == (2, 3, 2) and difference(y[1, 2], layer(x[1, 2])) < 1e-6
    assert difference(layer.double()(x.double()), y) < 1e-5
    for dtype, tolerance in ((torch.float16, 1e-2), (torch.bfloat16, 1e-1)):
        low = x.to(dtype)
        assert difference(layer.to(dtype)(low), layer.double()(low.double())) < tolerance


def test_result_parameter_is_there_unused_and_zero():
    for kind in ("polynomial", "fourier"):
        layer = high_order_fc_layers(kind, n=3, in_features=4, out_features=2)
        layer(torch.rand(3, 4)).sum().backward()
        assert layer.result.grad is None and torch.equal(layer.result, torch.zeros(2))
        assert list(layer.state_dict()) == ["w", "result"]


def test_make_periodic_slopes():
    x = torch.tensor([-3.5, -1.5, -0.3, 0.7, 1.5, 2.5, 1.0], requires_grad=True)
    layers.make_periodic(x, 2.0).sum().backward()
    assert x.grad.tolist() == [1, -1, 1, 1, -1, -1, 1]


def test_calculate_input_powers():
    assert calculate_input_powers(torch.tensor([[2.0, 4.0]])).tolist() == [[[1, 2, 4, 8], [1, 4, 16, 64]]]
    integers = calculate_input_powers(torch.tensor([3]), degree=0)
    assert integers.dtype == torch.int64 and integers.tolist() == [[1]]


@pytest.mark.parametrize("degree", [0, 1, 3, 6])
def test_polynomial_layer(degree):
    layer = PolynomialLayer(4, 3, degree)
    x = torch.randn(7, 4)
    powers = calculate_input_powers(x, degree)
    expected = powers.flatten(1) @ layer.weight.reshape(3, -1).T
    assert difference(layer(x), expected) < 1e-5
    elementwise = PolynomialLayer(4, 3, degree, dense=False)
    assert elementwise.weight.shape == (1, 4, degree + 1)
    expected = (powers * elementwise.weight).sum(-1)
    assert elementwise(x).shape == (7, 4) and difference(elementwise(x), expected) < 1e-5
    assert elementwise(x.expand(2, 7, 4)).shape == (2, 7, 4)
    assert "polynomial_degree" in repr(layer) and "dense=False" in repr(elementwise)


def test_polynomial_layer_initialisation():
    """Degree by degree, falling with its square; bit-equal to filling a whole tensor the same way."""
    torch.manual_seed(5)
    weight = PolynomialLayer(40, 30, 4).weight
    torch.manual_seed(5)
    expected = torch.empty(30, 40, 5)
    for degree, bound in enumerate((0.01, 0.01, 0.0025, 0.01 / 9, 0.01 / 16)):
        expected[:, :, degree].uniform_(-bound, bound)
    assert torch.equal(weight, expected)


def test_prepu_values_and_gradients():
    layer = PRePU(5).double()
    layer.scale.data = torch.tensor([0.0, 1.0, -2.0, 3.0, -0.5], dtype=torch.float64)
    x = (
        torch.tensor([-1.0, 0.0, 0.3, 2.0, 1e-10], dtype=torch.float64)[:, None]
        .expand(-1, 5)
        .clone()
        .requires_grad_()
    )
    scale = layer.scale.detach()
    q = 1 + scale / (1 + scale.abs())
    y = layer(x)
    expected = torch.where(x > 0, x.detach().clamp_min(1e-300) ** q, 0.0)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    rise = x.detach().clamp_min(1e-300)
    torch.testing.assert_close(x.grad, torch.where(x > 0, q * rise ** (q - 1), 0.0))
    by_scale = torch.where(x > 0, rise**q * rise.log() / (1 + scale.abs()) ** 2, 0.0).sum(0)
    torch.testing.assert_close(layer.scale.grad, by_scale)
    assert torch.equal(
        PRePU(3)(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor([0.0, 0.0, 2.0])
    )  # starts as ReLU


def test_prepu_extremes():
    layer = PRePU(2)
    layer.scale.data = torch.tensor([-1e9, 1e9])  # powers 0 and 2 exactly
    x = torch.tensor([[-1.0, -1.0], [3.0, 3.0], [torch.nan, torch.nan]], requires_grad=True)
    y = layer(x)
    assert y[:2].tolist() == [[1, 0], [1, 9]] and y[2].isnan().all()
    (slope,) = torch.autograd.grad(y[:2].sum(), x, create_graph=True)
    slope[:2].sum().backward()
    assert slope[:2].isfinite().all() and x.grad[:2].isfinite().all()
    smooth = PRePU(3).double()
    smooth.scale.data.uniform_(-0.5, 0.5)
    inside = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(smooth, (inside,)) and layers.CustomActivationLayer is PRePU


def test_max_abs_normalisation():
    x = torch.tensor([[1.0, -4.0, 2.0], [3.0, 3.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    y = hof.norm.MaxAbsNormalization()(x)
    torch.testing.assert_close(y, x.detach() / (torch.tensor([[4.0], [3.0], [0.0]]) + 1e-6))
    (slope,) = torch.autograd.grad(y[1].sum(), x)
    torch.testing.assert_close(
        slope[1], torch.tensor([-1 / 3, 1 / 3, 1 / 3]), rtol=1e-4, atol=1e-5
    )  # the first of a tie


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    """Coefficients go low, the lookup stays in float32: 64 segments survive."""
    layer = hof.HighOrderLinear(4, 3, hof.bases.piecewise_lagrange(3, 64))
    torch.nn.init.normal_(layer.weight)
    x = (torch.rand(50, 4) * 2 - 1).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == dtype and layer.weight.grad.dtype == torch.float32 and x.grad.dtype == torch.float32
    assert difference(y, layer(x)) < 2e-2
    kan = hof.kan.KANLinear(4, 3)
    with torch.autocast("cpu", dtype):
        assert difference(kan(x), kan(x).float()) == 0 and kan(x).dtype == dtype


def test_shapes_on_meta():
    basis, sizes = hof.bases.piecewise_lagrange(3, 2), {"in_features": 3, "out_features": 2}
    with torch.device("meta"):
        x, image = torch.rand(4, 3), torch.rand(4, 3, 8, 8)
        for layer in (
            hof.HighOrderLinear(3, 2, basis),
            hof.kan.KANLinear(3, 2),
            high_order_fc_layers("continuous", n=3, segments=2, device="meta", **sizes),
        ):
            assert layer(x).shape == (4, 2) and layer(x).is_meta
        assert hof.HighOrderConv2d(3, 2, 3, basis, padding=1)(image).shape == (4, 2, 8, 8)


def test_another_default_device():
    """Asked for on the CPU, a layer and what its checkpoint says of the basis are there."""
    with torch.device("meta"):
        layer = hof.HighOrderLinear(3, 2, hof.bases.lagrange(3), device="cpu")
        layer.load_state_dict(layer.state_dict())
        kan = high_order_fc_layers("kan", n=3, in_features=3, out_features=2, segments=2, device="cpu")
    assert {t.device.type for t in (*layer.state_dict().values(), *kan.state_dict().values())} == {"cpu"}


def test_splines_of_no_rows():
    assert hof.kan.KANLinear(3, 2).b_splines(torch.rand(0, 3)).shape == (0, 3, 8)


@pytest.mark.parametrize("lead", [(0,), (2, 0), (0, 3)])
def test_gradients_of_an_empty_batch(lead):
    basis = hof.bases.piecewise_lagrange(3, 2)
    layers = [hof.HighOrderLinear(4, 5, basis), hof.kan.KANLinear(4, 5), PolynomialLayer(4, 5, 2)]
    for layer in layers:
        x = torch.zeros(*lead, 4, requires_grad=True)
        y = layer(x)
        assert y.shape == (*lead, 5)
        y.sum().backward()  # its cotangents are one number, expanded
        assert x.grad.shape == x.shape
        assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("backend", list(_registered))
@pytest.mark.parametrize("lead", [(5,), (4, 5)])
def test_outputs_may_be_changed_in_place(backend, lead):
    basis, results = hof.bases.piecewise_lagrange(3, 2), []
    for layer in (hof.HighOrderLinear(3, 2, basis), hof.HighOrderProduct(3, 2, basis)):
        layer.to(support.DEVICE)
        x = torch.rand(*lead, 3, device=support.DEVICE)
        with hof.use_backend(backend):
            for change in (lambda y: y.mul_(2), lambda y: y * 2):
                results.append(torch.autograd.grad(change(layer(x)).sum(), layer.weight)[0])
        assert difference(results[-2], results[-1]) < 1e-6


@pytest.mark.parametrize("length", [2.0, 3.0])
def test_places_in_segments_and_back(length):
    layer = layers.PiecewisePolynomial(3, 2, 2, 4, length=length)
    x = 2 * torch.rand(20) - 1
    segment = ((x + 1) / 2 * 4).floor()
    local = layer.x_local(x, segment)
    assert (local.abs() <= length / 2 + 1e-5).all()
    assert difference(layer.x_global(local, segment), x) < 1e-6


def test_kan_layers_by_name_are_where_they_are_asked_for():
    layer = high_order_fc_layers("kan", n=4, in_features=2, out_features=3, segments=2, device="meta")
    assert {tensor.device.type for tensor in (*layer.parameters(), *layer.buffers())} == {"meta"}


@pytest.mark.parametrize(
    "kind", ["continuous", "polynomial", "fourier", "polynomial_2d", "kan", "continuous_prod"]
)
def test_layers_are_made_where_torch_is_told(kind):
    sizes = {"n": 3, "segments": 2, "in_features": 4, "out_features": 5}
    with torch.device("meta"):
        layer = high_order_fc_layers(kind, **sizes)
    assert all(p.is_meta for p in layer.parameters())
    if kind != "fourier":  # which has no such argument, as the peer's
        layer = high_order_fc_layers(kind, **sizes, device="meta")
        assert all(p.is_meta for p in layer.parameters())
