"""Side by side with efficient-kan, where it is installed; leading dimensions everywhere."""

import pytest
import torch

from high_order_fused.kan import KAN, KANLinear
from tests.support import difference

SETTINGS = [
    {},
    {"grid_size": 8, "spline_order": 2, "scale_base": 0.5, "scale_spline": 2.0},
    {"enable_standalone_scale_spline": False, "scale_spline": 0.7},
]


@pytest.fixture
def peer():
    module = pytest.importorskip("efficient_kan", reason="efficient-kan is not installed")
    if module.KANLinear is KANLinear:
        pytest.skip("efficient_kan stands for our layers here")
    return module


def pair(make, ours, *args, **kwargs):
    torch.manual_seed(3)
    theirs = make(*args, **kwargs)
    torch.manual_seed(3)
    return theirs, ours(*args, **kwargs)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_seed_begins_alike(peer, settings):
    theirs, ours = pair(peer.KANLinear, KANLinear, 6, 5, **settings)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        if name == "spline_weight":
            torch.testing.assert_close(ours.spline_weight.data, value, rtol=0, atol=1e-6)
        else:
            assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("settings", SETTINGS)
def test_outputs_losses_and_adapted_grids(peer, settings):
    theirs, ours = pair(peer.KANLinear, KANLinear, 6, 5, **settings)
    x = torch.randn(200, 6) * 0.5
    assert difference(ours(x), theirs(x)) < 1e-5
    assert difference(ours.b_splines(x), theirs.b_splines(x)) < 1e-5
    assert difference(ours.regularization_loss(0.3, 2.0), theirs.regularization_loss(0.3, 2.0)) < 1e-5
    for layer in (theirs, ours):
        layer.update_grid(x)
    torch.testing.assert_close(ours.grid, theirs.grid, rtol=0, atol=1e-6)
    assert difference(ours.spline_weight, theirs.spline_weight) < 1e-3
    assert difference(ours(x), theirs(x)) < 1e-4


def test_networks(peer):
    theirs, ours = pair(peer.KAN, KAN, [2, 5, 1])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.rand(100, 2) * 2 - 1
    assert difference(ours(x, update_grid=True), theirs(x, update_grid=True)) < 1e-4


@pytest.mark.parametrize("lead", [(), (7,), (2, 3), (2, 0, 3)])
def test_kan_layers_take_the_shapes_of_linear_layers(lead):
    for model in (KANLinear(4, 3), KAN([4, 5, 3])):
        x = torch.rand(*lead, 4)
        y = model(x)
        assert y.shape == torch.nn.Linear(4, 3)(x).shape
        torch.testing.assert_close(y.reshape(-1, 3), model(x.reshape(-1, 4)))
