"""KANLinear and KAN against a Cox-de Boor written out, and their grid updates."""

import copy
import math

import pytest
import torch

import high_order_fused as hof
from high_order_fused.kan import KAN, KANLinear
from tests.support import difference


def cox_de_boor(x, grid, order):
    """The splines [N, in, K] by the textbook recurrence, half-open intervals."""
    x, grid = x.unsqueeze(-1), grid.to(x.dtype)
    splines = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        rising = (x - grid[:, : -k - 1]) / (grid[:, k:-1] - grid[:, : -k - 1]) * splines[..., :-1]
        falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k]) * splines[..., 1:]
        splines = rising + falling
    return splines


def plain(layer, x):
    """The layer's function, from its parameters by the formula alone, in float64."""
    double = lambda t: t.detach().double()  # noqa: E731
    weight = double(layer.spline_weight)
    if layer.enable_standalone_scale_spline:
        weight = weight * double(layer.spline_scaler)[..., None]
    splines = cox_de_boor(x.double(), double(layer.grid), layer.spline_order)
    base = layer.base_activation(x.double()) @ double(layer.base_weight).T
    return base + torch.einsum("nik,oik->no", splines, weight)


SETTINGS = [
    {},
    {"grid_size": 20, "enable_standalone_scale_spline": False},
    {"grid_size": 3, "spline_order": 1, "grid_range": [-2, 1.5]},
    {"grid_size": 1, "spline_order": 2, "base_activation": torch.nn.Identity},
    {"grid_size": 4, "spline_order": 5},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("adapted", [False, True])
def test_forward_against_cox_de_boor(settings, adapted):
    layer = KANLinear(5, 4, **settings)
    torch.nn.init.normal_(layer.spline_weight)
    if adapted:
        layer.update_grid(torch.randn(100, 5).sinh() * 0.5)
    x = torch.randn(200, 5) * 1.5
    assert difference(layer(x), plain(layer, x)) < 1e-5
    splines = cox_de_boor(x.double(), layer.grid.double(), layer.spline_order)
    assert difference(layer.b_splines(x), splines) < 1e-5
    assert layer(x.view(4, 50, 5)).shape == (4, 50, 4)


def test_tables_are_shared_while_all_knots_are_the_same():
    """And no longer than that: against Cox-de Boor after each change of the grid."""
    layer, x = KANLinear(3, 2), torch.rand(50, 3) * 2 - 1
    assert layer._basis(torch.float32).tables.shape[1] == 1
    assert difference(layer(x), plain(layer, x)) < 1e-5
    with torch.no_grad():
        layer.grid[2] *= 1.25
    assert layer._basis(torch.float32).tables.shape[1] == 3
    assert difference(layer(x), plain(layer, x)) < 1e-5
    with torch.no_grad():
        layer.grid[:2] *= 1.25
    assert layer._basis(torch.float32).tables.shape[1] == 1
    assert difference(layer(x), plain(layer, x)) < 1e-5


def test_splines_sum_to_one_inside():
    layer = KANLinear(2, 1, spline_order=4)
    x = torch.linspace(-1, 1, 101)[:, None].expand(-1, 2)
    torch.testing.assert_close(layer.b_splines(x).sum(-1), torch.ones(101, 2))
    assert layer.b_splines(x).is_contiguous()
    assert layer.b_splines(torch.full((1, 2), 9.0)).abs().sum() == 0


def test_degree_zero_works():
    layer = KANLinear(3, 2, spline_order=0)
    x = torch.rand(20, 3) * 2 - 1
    assert difference(layer(x), plain(layer, x)) < 1e-5
    layer.update_grid(x)
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("grid_size", [4, 20])
def test_seeded_initialisation(grid_size):
    """The order and bounds of the draws; the splines are the least-norm fit to the noise at the knots."""
    torch.manual_seed(1)
    layer = KANLinear(6, 5, grid_size, spline_order=3, scale_base=2.0, scale_spline=0.5)
    torch.manual_seed(1)
    base, scaler = torch.empty(5, 6), torch.empty(5, 6)
    torch.nn.init.kaiming_uniform_(base, a=math.sqrt(5) * 2.0)
    noise = (torch.rand(grid_size + 1, 6, 5) - 0.5) * 0.1 / grid_size
    torch.nn.init.kaiming_uniform_(scaler, a=math.sqrt(5) * 0.5)
    assert torch.equal(layer.base_weight, base) and torch.equal(layer.spline_scaler, scaler)
    splines = cox_de_boor(layer.grid.double().T[3 : 4 + grid_size], layer.grid.double(), 3).transpose(0, 1)
    expected = torch.linalg.pinv(splines) @ noise.double().transpose(0, 1)
    assert difference(layer.spline_weight, expected.permute(2, 0, 1)) < 1e-5
    assert base.abs().max() <= math.sqrt(6 / (21 * 6))


def test_state_dict_keys_in_order():
    assert list(KANLinear(2, 1).state_dict()) == ["base_weight", "spline_weight", "spline_scaler", "grid"]
    keys = list(KANLinear(2, 1, enable_standalone_scale_spline=False).state_dict())
    assert keys == ["base_weight", "spline_weight", "grid"]
    assert list(KAN([2, 3, 1]).state_dict())[4:6] == ["layers.1.base_weight", "layers.1.spline_weight"]


def test_curve2coeff_round_trip():
    layer = KANLinear(3, 4)
    x, weight = torch.rand(60, 3) * 2 - 1, torch.randn(4, 3, 8)
    y = torch.einsum("nik,oik->nio", layer.b_splines(x), weight)
    assert difference(layer.curve2coeff(x, y), weight) < 1e-4


def expected_grid(x, size, order, eps, margin):
    """The formula of the peer, written for one feature at a time."""
    rows = []
    for column in x.T:
        ordered = column.sort().values
        step = (ordered[-1] - ordered[0] + 2 * margin) / size
        quantiles = [ordered[(len(column) - 1) * k // size] for k in range(size + 1)]
        inner = [
            eps * (k * step + ordered[0] - margin) + (1 - eps) * quantile
            for k, quantile in enumerate(quantiles)
        ]
        before = [inner[0] - k * step for k in range(order, 0, -1)]
        rows.append(torch.stack(before + inner + [inner[-1] + k * step for k in range(1, order + 1)]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("scaler", "corrected"), [(True, False), (True, True), (False, False), (False, True)]
)
def test_update_grid(scaler, corrected):
    """The new splines are the least-squares fit to the old ones; the peer, with a scaler, scales again."""
    layer = KANLinear(3, 4, enable_standalone_scale_spline=scaler)
    torch.nn.init.normal_(layer.spline_weight)
    x = torch.randn(151, 3) * 0.4
    before = copy.deepcopy(layer)
    layer.update_grid(x, corrected=corrected)
    torch.testing.assert_close(layer.grid, expected_grid(x, 5, 3, 0.02, 0.01), rtol=0, atol=1e-6)
    new = cox_de_boor(x.double(), layer.grid.double(), 3).transpose(0, 1)
    curve = torch.einsum("nik,oik->nio", before.b_splines(x).double(), before.scaled_spline_weight.double())
    fit = (torch.linalg.pinv(new) @ curve.transpose(0, 1)).permute(2, 0, 1)
    assert difference(layer.scaled_spline_weight if corrected else layer.spline_weight, fit) < 1e-3
    if scaler and not corrected:
        assert difference(layer.scaled_spline_weight, fit) > 0.1


def test_update_grid_is_safe_for_any_rank():
    """Constant inputs, two rows, repeated values: finite, and knots that increase."""
    for x in (torch.zeros(50, 3), torch.rand(2, 3), torch.rand(3, 3).repeat(20, 1).round()):
        layer = KANLinear(3, 4)
        layer.update_grid(x)
        assert (layer.grid.diff(dim=1) > 0).all() and layer.spline_weight.isfinite().all()
        assert layer(x).isfinite().all()


def test_tables_follow_every_change_of_the_grid():
    layer = KANLinear(3, 4)
    torch.nn.init.normal_(layer.spline_weight)
    x = torch.randn(50, 3)

    def agrees():
        return difference(layer(x), plain(layer, x)) < 1e-5

    assert agrees()
    with torch.no_grad():
        layer.grid.mul_(1.2)
    assert agrees()
    layer.grid.data.add_(0.1)  # does not change the version counter
    assert agrees()
    layer.grid = layer.grid * 0.8
    assert agrees()
    state = KANLinear(3, 4, grid_range=[-3, 2]).state_dict()
    layer.load_state_dict(state)
    torch.nn.init.normal_(layer.spline_weight)
    assert agrees()
    layer.update_grid(x)
    assert agrees()
    y = torch.func.functional_call(layer, {"grid": layer.grid + 0.3}, x)
    assert difference(y, layer(x)) > 1e-3 and agrees()
    with torch.inference_mode():
        layer.grid.data.mul_(1.1)
        assert agrees()
    assert difference(layer.double()(x.double()), plain(layer, x)) < 1e-10


def test_made_on_no_device_and_emptied_to_one():
    """The grid is there again, as constructed; parameters as after a construction with the same seed."""
    with torch.device("meta"):
        layer = torch.nn.Sequential(KANLinear(3, 2, grid_size=4, grid_range=(-2.0, 1.0)))
    layer.to_empty(device="cpu")
    torch.manual_seed(0)
    layer[0].reset_parameters()
    torch.manual_seed(0)
    expected = KANLinear(3, 2, grid_size=4, grid_range=(-2.0, 1.0))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(layer[0].state_dict()[name], tensor), name


def test_the_grid_stays_in_float32():
    layer = KANLinear(3, 4, grid_size=50).half()
    assert layer.grid.dtype == torch.float32 and layer.base_weight.dtype == torch.float16
    assert (layer.grid.diff(dim=1) > 0).all()
    x = torch.rand(20, 3, dtype=torch.float16)
    assert layer(x).dtype == torch.float16 and difference(layer(x), plain(layer, x)) < 1e-2
    assert layer.double().grid.dtype == torch.float64


def test_regularization_of_zero_edges_is_finite():
    layer = KANLinear(2, 3)
    with torch.no_grad():
        layer.spline_weight[0, 0] = 0
    loss = layer.regularization_loss()
    loss.backward()
    assert loss.isfinite() and layer.spline_weight.grad.isfinite().all()
    torch.nn.init.zeros_(layer.spline_weight)
    assert layer.regularization_loss() == 0


def test_kan_network():
    network = KAN([2, 4, 1], grid_size=3, spline_order=2)
    x = torch.rand(30, 2)
    y = network(x, update_grid=True)
    assert y.shape == (30, 1) and torch.equal(y, network(x))
    assert (network.layers[0].grid[:, 2] > -0.1).all()  # adapted to [0, 1]
    torch.testing.assert_close(
        network.regularization_loss(0.5, 2.0),
        sum(layer.regularization_loss(0.5, 2.0) for layer in network.layers),
    )


def test_ensembles_by_vmap():
    """Stacked layers, each with a grid of its own."""
    members = [KANLinear(3, 2) for _ in range(3)]
    x = torch.randn(40, 3) * 0.5
    for k, member in enumerate(members):
        member.update_grid(x * (k + 1))
    parameters, buffers = torch.func.stack_module_state(members)
    call = lambda p, b, x: torch.func.functional_call(members[0], (p, b), (x,))  # noqa: E731
    y = torch.func.vmap(call, (0, 0, None))(parameters, buffers, x)
    torch.testing.assert_close(y, torch.stack([member(x) for member in members]))


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("layer_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("lowest", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_takes_every_dtype(lowest, x_dtype, layer_dtype, backend):
    """To the roundings of the coarser, in the output's dtype and all gradients."""
    layer = KANLinear(4, 3).to(layer_dtype)
    x = (torch.rand(6, 4) * 2 - 1).to(x_dtype).requires_grad_()
    if torch.float32 not in (x_dtype, layer_dtype) and x_dtype != layer_dtype:
        with torch.autocast("cpu", lowest), pytest.raises(TypeError, match="needs that of x"):
            layer(x)
        return
    wide = copy.deepcopy(layer).float()
    expected = wide(x.detach().float().requires_grad_())
    with hof.use_backend(backend), torch.autocast("cpu", lowest):
        y = layer(x)
        assert y.dtype == (lowest if layer_dtype == torch.float32 else layer_dtype)
        assert difference(y, expected) < 2e-2
        y.float().sum().backward()
    expected.sum().backward()
    for t, other in zip(layer.parameters(), wide.parameters(), strict=True):
        assert t.grad.dtype == t.dtype and difference(t.grad, other.grad) < 2e-2
    assert x.grad.dtype == x.dtype


def test_the_usual_activation_leaves_no_values_behind():
    """SiLU is made of x where it is needed: of x's shape nothing but x is saved."""
    for activation, count in ((torch.nn.SiLU, 1), (torch.nn.Tanh, 2)):
        layer, saved = KANLinear(6, 4, base_activation=activation), {}
        x = torch.randn(50, 6, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.setdefault(t.data_ptr(), t), lambda t: t
        ):
            layer(x)
        assert sum(t.shape == x.shape for t in saved.values()) == count


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 3e-3), (torch.float16, 4e-4)], ids=str)
@pytest.mark.parametrize("frozen", ["base_weight", "spline_weight", "spline_scaler", ""])
def test_slopes_of_16_bits_are_rounded_once(dtype, most, frozen):
    """Of splines and of SiLU, and their sum: SiLU's slope rounded at every step would double the error."""
    layer = KANLinear(40, 30)
    exact, x = KANLinear(40, 30).double(), torch.randn(200, 40).to(dtype)
    layer.to(dtype)
    exact.load_state_dict(layer.state_dict())
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    cotangent = torch.randn(200, 30).to(dtype)
    slopes = []
    for some in (layer, exact):
        leaf = x.detach().to(some.base_weight.dtype, copy=True).requires_grad_()
        some(leaf).backward(cotangent.to(leaf.dtype))
        slopes.append(leaf.grad.double())
    error = (slopes[0] - slopes[1]).norm() / slopes[1].norm()
    assert error < most


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_of_the_activation_are_called(everywhere):
    layer, x = KANLinear(3, 2), torch.randn(20, 3)
    usual, heard = layer(x), []

    def double(module, inputs, output):
        if module is layer.base_activation:
            heard.append(output)
            return 2 * output

    register = (
        torch.nn.modules.module.register_module_forward_hook
        if everywhere
        else layer.base_activation.register_forward_hook
    )
    handle = register(double)
    try:
        changed = layer(x)
    finally:
        handle.remove()
    torch.testing.assert_close(changed, usual + torch.nn.functional.silu(x) @ layer.base_weight.T)
    assert len(heard) == 1 and torch.equal(layer(x), usual)


def test_a_forward_of_its_own_is_called():
    layer, x = KANLinear(3, 2), torch.randn(20, 3)
    usual = layer(x)
    layer.base_activation.forward = lambda t: 2 * torch.nn.functional.silu(t)
    torch.testing.assert_close(layer(x), usual + torch.nn.functional.silu(x) @ layer.base_weight.T)


def test_an_activation_in_place_comes_first():
    """As in the peer: the splines get what the activation made of x."""
    layer = KANLinear(3, 2, base_activation=lambda: torch.nn.SiLU(inplace=True))
    x = torch.randn(20, 3)
    activated = torch.nn.functional.silu(x)
    weight = layer.scaled_spline_weight
    expected = activated @ layer.base_weight.T + torch.einsum(
        "nik,oik->no", layer.b_splines(activated), weight
    )
    torch.testing.assert_close(layer(x.clone()), expected)


def test_reset_restores_a_grid_that_nothing_has_written():
    """And leaves one that data has moved."""
    layer = KANLinear(3, 2)
    expected = layer.grid.clone()
    for garbage in (float("nan"), 0.0):
        layer.grid.fill_(garbage)
        layer.reset_parameters()
        assert torch.equal(layer.grid, expected) and layer.spline_weight.isfinite().all()
    layer.update_grid(torch.rand(50, 3))
    moved = layer.grid.clone()
    layer.reset_parameters()
    assert torch.equal(layer.grid, moved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_grid_is_never_narrow(dtype):
    torch.set_default_dtype(dtype)
    try:
        layer = KANLinear(2, 2, grid_size=200)
    finally:
        torch.set_default_dtype(torch.float32)
    assert layer.grid.dtype == torch.promote_types(dtype, torch.float32) and layer.base_weight.dtype == dtype
    assert (layer.grid.diff(dim=1) > 0).all()
