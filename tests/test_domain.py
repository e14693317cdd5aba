"""domain_report: shares against counts of their own, for every kind of layer; the model stays as it was."""

import copy

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused.domain import domain_report
from high_order_fused.kan import KAN, KANLinear
from high_order_fused.layers import (
    PolynomialLayer,
    high_order_convolution_layers,
    high_order_convolution_transpose_layers,
    high_order_fc_layers,
)

ROWS = torch.linspace(-3, 5, 40).view(10, 4)  # a fifth of them in [-1, 1]


def fc(kind, **arguments):
    sizes = {"n": 3, "segments": 4, "in_features": 4, "out_features": 2}
    return high_order_fc_layers(kind, **sizes, **arguments)


def conv2d(kind, make=high_order_convolution_layers, **arguments):
    sizes = {"n": 3, "segments": 2, "in_channels": 4, "out_channels": 2, "kernel_size": 2}
    return make(kind, **sizes, **arguments)


IMAGES = ROWS.T.reshape(2, 4, 5, 1).expand(2, 4, 5, 3).contiguous()
basis = hof.bases.piecewise_lagrange
KINDS = {
    "linear": (hof.HighOrderLinear(4, 2, basis(3, 4, (-2, 1))), ROWS, (-2, 1)),
    "half": (hof.HighOrderLinear(4, 2, basis(3, 4, (-2, 1))).half(), ROWS.half(), (-2, 1)),
    "product": (hof.HighOrderProduct(4, 2, hof.bases.chebyshev(3, (-1, 2))), ROWS[:, None], (-1, 2)),
    "conv2d": (hof.HighOrderConv2d(4, 2, 2, hof.bases.fourier(3)), IMAGES, (-1, 1)),
    "an image": (hof.HighOrderConv2d(4, 2, 2, hof.bases.fourier(3)), IMAGES[0], (-1, 1)),
    "conv1d": (hof.HighOrderConv1d(4, 2, 2, hof.bases.lagrange(3)), IMAGES[..., 0], (-1, 1)),
    "conv_transpose1d": (
        hof.HighOrderConvTranspose1d(4, 2, 2, hof.bases.lagrange(3)),
        IMAGES[..., 0],
        (-1, 1),
    ),
    "continuous": (fc("continuous", length=4.0), ROWS, (-2, 2)),
    "discontinuous_prod": (fc("discontinuous_prod"), ROWS, (-1, 1)),
    "polynomial": (fc("polynomial", length=3.0), ROWS, (-1.5, 1.5)),
    "fourier": (fc("fourier"), ROWS, (-1, 1)),
    "products of lines": (fc("product"), ROWS, (-1, 1)),
    "powers": (PolynomialLayer(4, 2, 3), ROWS, (-1, 1)),
    "KAN": (KANLinear(4, 2, grid_range=[-1, 3]), ROWS, (-1, 3)),
    "steps": (KANLinear(4, 2, spline_order=0), ROWS, (-1, 1)),
    "continuous2d": (conv2d("continuous2d"), IMAGES, (-1, 1)),
    "product2d": (conv2d("product2d"), IMAGES, (-1, 1)),
    "transpose": (conv2d("continuous2d", high_order_convolution_transpose_layers), IMAGES, (-1, 1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_every_kind_of_layer(kind):
    layer, x, (low, high) = KINDS[kind]
    x = x.clone()
    x.view(-1)[:2] = torch.nan
    (share,) = domain_report(layer, x)
    values = x.double().flatten().tolist()
    assert share.values == len(values) and share.name == "the model" and share.kind == type(layer).__name__
    assert share.domain == pytest.approx((low, high))
    assert share.below == pytest.approx(sum(v < low for v in values) / len(values)) and share.below > 0
    assert share.above == pytest.approx(sum(v > high for v in values) / len(values)) and share.above > 0
    assert share.nan == pytest.approx(2 / len(values))


def test_features_with_domains_of_their_own():
    """A KAN's adapted grid, and knots for each channel of a group."""
    layer = KANLinear(4, 2)
    layer.update_grid(ROWS * torch.tensor([0.1, 0.5, 1.0, 2.0]))
    (share,) = domain_report(layer, ROWS)
    inner = layer.grid[:, 3:-3]
    assert share.below == pytest.approx((inner[:, 0] > ROWS).double().mean().item()) and share.below > 0
    assert share.above == pytest.approx((inner[:, -1] < ROWS).double().mean().item()) and share.above > 0
    assert share.domain == (inner.min().item(), inner.max().item()) and share.outside == "falls to zero"
    knots = torch.tensor([[-1.0, 0.0, 1.0], [2.0, 3.0, 4.0]])
    conv = hof.HighOrderConv2d(4, 2, 1, basis(2, 2, knots=knots, outside="clamp"), groups=2)
    (share,) = domain_report(conv, IMAGES)
    low = torch.tensor([-1.0, 2.0, -1.0, 2.0]).view(4, 1, 1)
    assert share.below == pytest.approx((low > IMAGES).double().mean().item()) and share.outside == "clamp"


def test_several_variables_are_told_one_by_one():
    layer = hof.HighOrderLinearND(3, 2, [hof.bases.lagrange(2), hof.bases.lagrange(3, (-9, 9))])
    first, second = domain_report(layer, torch.full((5, 3, 2), 2.0))
    assert (first.above, second.above) == (1, 0) and second.domain == (-9, 9)
    assert first.name.endswith(", variable 0") and first.values == second.values == 15
    layer = high_order_fc_layers("polynomial_3d", n=2, in_features=1, out_features=2, periodicity=2.0)
    assert [share.above for share in domain_report(layer, torch.full((5, 1, 3), 2.5))] == [0, 0, 0]


def test_what_is_mirrored_is_inside():
    (share,) = domain_report(fc("continuous", periodicity=2.0), ROWS)
    assert share[5:] == (0, 0, 0)
    (share,) = domain_report(conv2d("polynomial2d", periodicity=4.0), IMAGES)
    assert 0 < share.above < (IMAGES > 1).double().mean()


def test_the_model_stays_as_it_was():
    model = nn.Sequential(fc("continuous"), nn.BatchNorm1d(2), nn.Dropout(), KAN([2, 3]), nn.Linear(3, 1))
    model[3].eval()
    calls = []
    model[0].register_forward_pre_hook(lambda *_: calls.append(1))
    state = copy.deepcopy(model.state_dict())
    flags, hooks = [m.training for m in model.modules()], [len(m._forward_pre_hooks) for m in model.modules()]
    report = domain_report(model, ROWS)
    assert [share.name for share in report] == ["0", "3.layers.0"] and calls == [1]
    with pytest.raises(ValueError, match="x: got shape"):
        domain_report(model, ROWS[:, :3])
    assert [m.training for m in model.modules()] == flags
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(now, state[key]) for key, now in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_layer_that_is_called_twice_counts_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = hof.HighOrderLinear(4, 4, hof.bases.lagrange(3))

        def forward(self, x, shift):
            return self.inner(x=self.inner(x) * 0 + shift)

    (share,) = domain_report(Twice(), (torch.zeros(10, 4), torch.tensor(2.0)))
    assert share.values == 80 and share.above == 0.5 and share.below == 0


def test_printed_it_is_a_table():
    model = nn.Sequential(fc("polynomial"), nn.Flatten(), KANLinear(2, 1))
    nn.init.zeros_(model[0].w)
    assert str(domain_report(model, ROWS)).splitlines() == [
        "layer  kind        domain    below   above    NaN  values  beyond it",
        "0      Polynomial  -1 .. 1  25.00%  50.00%  0.00%      40  extrapolate",
        "2      KANLinear   -1 .. 1   0.00%   0.00%  0.00%      20  falls to zero",
    ]
    assert "hof.fuse" in str(domain_report(nn.Linear(4, 1), ROWS))
    own = type("Own", (KANLinear,), {})
    assert domain_report(own(4, 1), ROWS)[0].outside == "falls to zero"
    assert domain_report(KANLinear(4, 1), ROWS[:0])[0].below == 0
