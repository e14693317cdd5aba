"""fuse and unfuse: same function, same Parameters, hooks and shared modules kept, the rest reported."""

import importlib

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
    model = nn.Sequential(special, peer.MaxAbsNormalization(), nn.Linear(2, 2))
    fused = hof.fuse(model)
    assert model[0] is special and not fused.swapped
    assert fused.left == {
        "0": "Special is a subclass of PiecewisePolynomial and may do something else",
        "1": "MaxAbsNormalization has no fused layer yet",
    }


def test_a_model_without_such_layers_stays_and_it_says_so():
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Tanh()))
    before, modules = model(torch.ones(1, 3)), list(model.modules())
    fused = hof.fuse(model)
    assert all(a is b for a, b in zip(fused.model.modules(), modules, strict=True))
    assert torch.equal(model(torch.ones(1, 3)), before)
    assert str(fused).startswith("nothing was swapped: no layer of high_order_layers_torch")


class Mixed(nn.Module):
    """Every layer of high-order-layers-torch that there is a fused one for."""

    def __init__(self):
        super().__init__()
        conv = peer.high_order_convolution_layers
        size = {"in_channels": 3, "out_channels": 3, "kernel_size": 3, "padding": 1}
        kinds = [("continuous2d", {"segments": 2, "n": 3, "periodicity": 2.0}), ("polynomial2d", {"n": 4})]
        kinds += [("discontinuous2d", {"segments": 3, "n": 2, "length": 3.0}), ("fourier2d", {"n": 3})]
        self.images = nn.Sequential(
            *(
                conv(layer_type=kind, **size, **more, rescale_output=kind == "polynomial2d")
                for kind, more in kinds
            ),
            peer.high_order_convolution_transpose_layers(
                layer_type="continuous2d",
                n=3,
                segments=2,
                in_channels=3,
                out_channels=2,
                kernel_size=2,
                stride=2,
            ),
        )
        lines = [("continuous1d", {"n": 3, "segments": 2}), ("polynomial1d", {"n": 3})]
        lines += [("discontinuous1d", {"n": 3, "segments": 2, "dilation": 1})]
        self.lines = nn.ModuleList(
            (
                conv(layer_type=kind, in_channels=2, out_channels=2, kernel_size=3, **more)
                for kind, more in lines
            )
        )
        made = peer.high_order_fc_layers
        self.rows = nn.ModuleList(
            made(layer_type=kind, n=3, in_features=4, out_features=4, segments=3)
            for kind in ("continuous", "discontinuous_prod", "polynomial", "product", "continuous_prod")
        )
        self.planes = made(layer_type="polynomial_2d", n=3, in_features=4, out_features=3, length=3.0)
        self.switch = peer.switch_continuous(n=3, in_features=3, out_features=2, segments=2)
        self.sum = peer.SumLayer(
            layer_list=[made(layer_type="fourier", n=3, in_features=2, out_features=2), nn.Linear(2, 2)]
        )

    def forward(self, x):  # side by side: a chain of so many would lose its gradients
        images = [layer(x).flatten(1) for layer in self.images]
        lines = [layer(x[:, :2].flatten(2).contiguous()).flatten(1) for layer in self.lines]
        features = x.flatten(1)[:, :4]
        rows = [layer(features) for layer in self.rows]
        planes = self.planes(torch.stack([features, features.flip(-1)], -1))
        return torch.cat([*images, *lines, *rows, self.sum(self.switch(planes.tanh()))], 1)


def mixed():
    torch.manual_seed(1)
    model = Mixed()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=8 if name.startswith("images.1.") else 0.3)
        if name.endswith("result"):
            nn.init.zeros_(parameter)
    for layer in (*model.switch._layers, model.sum._layer_list[0]):  # which the peer does not register
        nn.init.normal_(layer.w, std=0.5)
    return model, torch.rand(5, 3, 6, 6) * 2 - 1


def step(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    leaves = (x, *(p for name, p in model.named_parameters() if not name.endswith("result")))
    return y, *torch.autograd.grad(y.square().sum(), leaves)


def test_every_layer_in_one_network():
    model, x = mixed()
    before, parameters, state = step(model, x), list(model.parameters()), list(model.state_dict())
    fused = hof.fuse(model)
    assert not fused.left and len(fused.swapped) == 5 + 3 + 5 + 1 + 2 + 1
    assert {"switch._layers.0", "switch._layers.1", "sum._layer_list.0", "images.4"} <= set(fused.swapped)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == state
    for actual, expected in zip(step(model, x), before, strict=True):
        assert difference(actual, expected) < 1e-5
    hof.unfuse(model)
    theirs = [m for m in model.modules() if type(m).__module__.startswith("high_order_fused")]
    assert not theirs and type(model.switch._layers[0]).__module__.startswith("high_order_layers")
    for actual, expected in zip(step(model, x), before, strict=True):
        assert torch.equal(actual, expected)


def test_ten_steps_are_the_same():
    results = []
    for fused in (False, True):
        model, x = mixed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        if fused:
            hof.fuse(model)
        for _ in range(10):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        results.append([p.detach().clone() for n, p in model.named_parameters() if not n.endswith("result")])
    for actual, expected in zip(*results, strict=True):
        assert difference(actual, expected) < 1e-4


class PolynomialLayer(nn.Module):
    """As polynomial-mlp's formula reads: powers of x times coefficients."""

    def __init__(self, dense, shift=0.0):
        super().__init__()
        self.in_features, self.out_features, self.polynomial_degree, self.dense = 3, 2, 3, dense
        self.weight = nn.Parameter(torch.randn(2 if dense else 1, 3, 4))
        self.shift = shift

    def forward(self, x):
        powers = torch.stack([(x + self.shift) ** k for k in range(4)], -1)
        return torch.einsum("bik,oik->bo" if self.dense else "bik,oik->bi", powers, self.weight)


@pytest.mark.parametrize("dense", [True, False])
def test_polynomials_in_powers_are_known_by_what_they_do(dense):
    model, x = nn.Sequential(PolynomialLayer(dense)), torch.randn(5, 3)
    y, weight = model(x), model[0].weight
    assert hof.fuse(model).swapped == {"0": "PolynomialLayer"}
    assert model[0].weight is weight and difference(model(x), y) < 1e-5
    other = nn.Sequential(PolynomialLayer(dense, shift=0.1))
    assert hof.fuse(other).left == {"0": "PolynomialLayer is not that of polynomial-mlp: its outputs differ"}
    with torch.no_grad():
        other[0].weight.zero_()
    assert "outputs differ" in hof.fuse(other).left["0"]
    for some in (PolynomialLayer(dense).bfloat16(), PolynomialLayer(dense).to("meta")):
        weight, before = some.weight, torch.get_rng_state()
        model = nn.Sequential(some)
        assert hof.fuse(model).swapped == {"0": "PolynomialLayer"}
        assert model[0].weight is weight and torch.equal(torch.get_rng_state(), before)
    narrow = PolynomialLayer(dense)
    narrow.weight = nn.Parameter(torch.randn(2, 3, 2))
    assert "attributes differ" in hof.fuse(nn.Sequential(narrow)).left["0"]


def test_layers_in_containers_of_containers():
    """Swapped in lists and dicts, told of in tuples."""
    model = nn.Module()
    model.nested = [[layer("continuous", 3, 2)], {"a": (layer("fourier", 3, 2), nn.ReLU())}]
    model.nested.append(model.nested)  # as a list may
    model.held = {"b": [nn.Sequential(layer("polynomial", 3, 2))]}
    fused = hof.fuse(model)
    assert fused.swapped.keys() == {"nested.0.0", "held.b.0.0"}
    assert fused.left == {"nested.1.a.0": "FourierSeries is in a tuple, which keeps what it holds"}
    assert isinstance(model.nested[0][0], hof.layers.PiecewisePolynomial)
    assert hof.unfuse(model).swapped.keys() == fused.swapped.keys()
    for function in (hof.fuse, hof.unfuse):
        with pytest.raises(TypeError, match="model: got str, needs a module"):
            function("model")


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


def test_pruned_layers_are_left_and_say_why():
    """Pruning computes the weight anew in hooks, which a layer of ours over the same Parameters would not."""
    from torch.nn.utils import prune

    convolution = importlib.import_module("high_order_layers_torch.layers").high_order_convolution_layers
    model = nn.Sequential(
        convolution("continuous2d", n=3, segments=2, in_channels=2, out_channels=2, kernel_size=3),
        nn.Flatten(),
        layer("continuous", 8, 2),
    )
    prune.l1_unstructured(model[0].conv, "weight", 0.5)
    prune.l1_unstructured(model[2], "w", 0.5)
    before, keys = model(torch.ones(1, 2, 4, 4)), list(model.state_dict())
    report = hof.fuse(model)
    assert {"0", "2"} <= report.left.keys() and not report.swapped, report
    assert torch.equal(model(torch.ones(1, 2, 4, 4)), before) and list(model.state_dict()) == keys
