"""fuse and unfuse: same function, same Parameters, hooks and shared modules kept, the rest reported."""

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused.kan import KANLinear
from tests.support import difference

peer = pytest.importorskip(
    "high_order_layers_torch.layers", reason="high-order-layers-torch is not installed"
)


def layer(kind, inputs, outputs, **kwargs):
    made = peer.high_order_fc_layers(
        layer_type=kind, n=3, in_features=inputs, out_features=outputs, segments=4, **kwargs
    )
    nn.init.normal_(made.w)
    return made


class TheirKAN(KANLinear):
    """Stands for efficient-kan's layer, which has no package to install."""


TheirKAN.__name__, TheirKAN.__module__ = "KANLinear", "efficient_kan.kan"


def network():
    return nn.Sequential(
        layer("continuous", 3, 5, periodicity=2.0),
        nn.ModuleDict({"inner": layer("discontinuous", 5, 4, length=4.0)})["inner"],
        nn.Sequential(layer("polynomial", 4, 4, length=3.0), nn.Tanh(), layer("fourier", 4, 3, length=1.5)),
        TheirKAN(3, 2, grid_size=4),
    )


def test_same_function_and_parameters():
    model, x = network(), torch.randn(20, 3)
    y, parameters, state = model(x), list(model.parameters()), model.state_dict()
    drawn = torch.get_rng_state()
    fused = hof.fuse(model)
    assert torch.equal(torch.get_rng_state(), drawn), "the user's random numbers changed"
    assert fused.model is model and not fused.left
    assert fused.swapped == {
        "0": "PiecewisePolynomial",
        "1": "PiecewiseDiscontinuousPolynomial",
        "2.0": "Polynomial",
        "2.2": "FourierSeries",
        "3": "KANLinear",
    }
    assert all(type(m).__module__.startswith(("high_order_fused", "torch")) for m in model.modules())
    assert difference(model(x), y) < 1e-5
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()


def test_an_optimizer_from_before_goes_on():
    model, x = network(), torch.randn(20, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    hof.fuse(model)
    before = model(x).detach()
    model(x).square().sum().backward()
    optimizer.step()
    assert difference(model(x), before) > 1e-2
    y = model(x)
    hof.unfuse(model)
    assert type(model[0]).__module__.startswith("high_order_layers_torch")
    assert difference(model(x), y) < 1e-5


def test_hooks_training_flag_and_shared_modules():
    shared, calls = layer("continuous", 4, 4), []
    shared.register_forward_hook(lambda *_: calls.append(1))
    model = nn.Sequential(shared, nn.ReLU(), shared).eval()
    fused = hof.fuse(model)
    assert model[0] is model[2] and list(fused.swapped) == ["0"] and not model[0].training
    model(torch.rand(2, 4))
    assert len(calls) == 2


def test_a_layer_itself_and_what_is_left():
    single = layer("continuous", 2, 2)
    fused = hof.fuse(single)
    assert fused.model is not single and fused.model.w is single.w

    class Special(type(single)):
        pass

    special = Special(n=3, in_features=2, out_features=2, segments=2)
    product = peer.high_order_fc_layers(layer_type="product", in_features=2, out_features=2)
    model = nn.Sequential(special, product, nn.Linear(2, 2))
    fused = hof.fuse(model)
    assert model[0] is special and not fused.swapped
    assert fused.left == {
        "0": "Special is a subclass of PiecewisePolynomial and may do something else",
        "1": "Product has no fused layer yet",
    }


def test_every_kind_of_hook_and_a_changed_model():
    model, calls = nn.Sequential(layer("continuous", 3, 2)), []
    model[0].register_forward_pre_hook(lambda module, a, k: (a, k), with_kwargs=True)
    model[0].register_full_backward_hook(lambda *_: calls.append(1))
    hof.fuse(model)
    model(torch.rand(4, 3)).sum().backward()
    assert calls == [1]
    zeros = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    model.load_state_dict(zeros, assign=True)
    model.eval()
    hof.unfuse(model)
    assert not model[0].training and torch.equal(model[0].w, zeros["0.w"])
