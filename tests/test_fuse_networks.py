"""fuse on the peers' whole networks: the same outputs, gradients, Parameters and training; unfuse."""

import importlib

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused.kan import KANLinear
from tests.peer_networks import peer_networks
from tests.support import difference

SEGMENTS = {"in_segments": 2, "hidden_segments": 3, "out_segments": 2}
IMAGES = {"normalization": nn.BatchNorm2d, "segments": 2, "n": 3}
# kinds of layers, and the layers of a perceptron with three hidden ones that there are fused ones for
KINDS = dict.fromkeys(("continuous", "discontinuous", "polynomial", "fourier", "continuous_prod"), 5)
KINDS |= {"discontinuous_prod": 5, "product": 5, "switch_continuous": 10, "switch_discontinuous": 10}
CASES = {
    **{f"{kind} perceptron": (number, kind, False) for kind, number in KINDS.items()},
    **{f"{kind} resnet": (number, kind, True) for kind, number in KINDS.items()},
    **{f"{kind}2d network": (2, f"{kind}2d", None) for kind in list(KINDS)[:4]},
    "deconvolutional network": (2, "deconvolutional", None),
    "tail-focus network": (3, "tail focus", None),
    "rotated perceptron": (4, "transform_mlp", None),
    "autoencoder": (4, "autoencoder", None),
}


def build(kind, resnet):
    """One of the peer's networks, and inputs for it."""
    peer = peer_networks()
    norm = importlib.import_module("high_order_layers_torch.layers").MaxAbsNormalization
    if resnet is not None:
        shared = {"resnet": resnet, "normalization": norm, "periodicity": 2.0, **SEGMENTS}
        return peer.HighOrderMLP(kind, 3, 3, 2, 3, 4, n_hidden=2, n_out=4, **shared), points(6, 3)
    if kind == "deconvolutional":
        return deconvolutional(peer, [2, 3, 2]), points(3, 2, 3, 2)
    if kind == "tail focus":
        shared = {"stride": [2, 1, 2], "normalization": nn.BatchNorm1d, "focus": [2, 3, 1]}
        net = peer.HighOrderTailFocusNetwork("continuous1d", 3, [2, 3, 2, 4], 2, [3, 3, 2], **shared)
        return net, points(3, 2, 20)
    if kind == "transform_mlp":
        sizes = 3, 4, 2, 3, 2, 3, 4, 2, 3, 2, 2, 3
        return peer.transform_mlp("discontinuous", *sizes, normalization=norm), points(5, 3)
    if kind == "autoencoder":
        encoder = peer.HighOrderFullyConvolutionalNetwork(
            "continuous2d", channels=[1, 3, 4], kernel_size=[3, 3], stride=2, **IMAGES
        )
        return peer.VanillaVAE(2, encoder, deconvolutional(peer, [4, 3, 1])), points(5, 1, 8, 8)
    net = peer.HighOrderFullyConvolutionalNetwork(
        kind,
        channels=[2, 4, 3],
        kernel_size=[3, 1],
        padding=1,
        rescale_output=True,
        periodicity=2.0,
        **IMAGES,
    )
    return net, points(3, 2, 7, 6)


def deconvolutional(peer, channels):
    return peer.HighOrderFullyDeconvolutionalNetwork(
        "continuous2d", channels=channels, kernel_size=[4, 3], stride=[2, 1], **IMAGES
    )


def points(*shape):
    return 2 * torch.rand(shape) - 1


def made(name):
    """In float64, where a chain of layers does not enlarge rounding; no edge is a constant."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    number, *case = CASES[name]
    net, x = build(*case)
    for parameter in coefficients(net):
        nn.init.normal_(parameter, std=0.3)
    return net, x, number


def output(net, x):
    torch.manual_seed(1)  # what an autoencoder draws
    y = net(x)
    return y[0] if isinstance(y, list) else y


def modules(net):
    """All of them, those that the peer has not registered, too."""
    yield net
    for child in (*net.children(), *getattr(net, "_layers", ()), *getattr(net, "_layer_list", ())):
        yield from modules(child)


def coefficients(net):
    """All parameters that have a part in the outputs."""
    named = [pair for module in modules(net) for pair in module.named_parameters(recurse=False)]
    return list(dict.fromkeys(p for key, p in named if p.requires_grad and key != "result"))


def step(net, x):
    x = x.clone().requires_grad_()
    y = output(net, x)
    g = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
    found = torch.autograd.grad(y, (x, *coefficients(net)), g, allow_unused=True)
    return y, *(torch.zeros(()) if slope is None else slope for slope in found)


def computing(net, x):
    """The classes whose forward is called, as package and name."""
    seen = set()

    def note(module, inputs):
        seen.add((type(module).__module__.partition(".")[0], type(module).__name__))

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        output(net, x)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", CASES)
def test_a_network_of_the_peers_computes_the_same_by_our_layers(name):
    net, x, number = made(name)
    before, keys = step(net, x), list(net.state_dict())
    parameters = [*net.parameters(), *coefficients(net)]
    theirs = computing(net, x)
    fused = hof.fuse(net)
    assert fused.model is net and len(fused.swapped) == number
    assert set(fused.left.values()) <= {"MaxAbsNormalization has no fused layer yet"}
    layers = {("high_order_layers_torch", kind) for kind in fused.swapped.values()}
    assert layers <= theirs and not layers & computing(net, x), "the peer's layers compute"
    assert all(a is b for a, b in zip([*net.parameters(), *coefficients(net)], parameters, strict=True))
    assert list(net.state_dict()) == keys
    for actual, expected in zip(step(net, x), before, strict=True):
        assert difference(actual, expected) < 1e-5
    assert set(hof.unfuse(net).swapped) == set(fused.swapped)
    assert computing(net, x) == theirs
    for actual, expected in zip(step(net, x), before, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_of_a_network_are_the_same(name):
    results = []
    for fused in (False, True):
        net, x, _ = made(name)
        optimizer = torch.optim.SGD(coefficients(net), lr=1e-3)
        if fused:
            hof.fuse(net)
        for _ in range(10):
            optimizer.zero_grad()
            output(net, x).square().mean().backward()
            optimizer.step()
        results.append(coefficients(net))
    for actual, expected in zip(*results, strict=True):
        assert difference(actual, expected) < 1e-4


def test_layers_in_plain_lists_and_dicts_are_swapped_there_and_shared_ones_stay_shared():
    make = peer_networks().high_order_fc_layers
    size = {"n": 3, "in_features": 2, "out_features": 2, "segments": 2}

    class Keeper(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = make(layer_type="continuous", **size)
            self.order = [self.first, make(layer_type="discontinuous", **size), torch.tanh]
            self.by_name = {"again": self.first, "number": 3}

        def forward(self, x):
            return self.by_name["again"](self.order[1](self.first(x)))

    net, x = Keeper(), points(4, 2)
    before = net(x)
    fused = hof.fuse(net)
    assert fused.swapped == {"first": "PiecewisePolynomial", "order.1": "PiecewiseDiscontinuousPolynomial"}
    assert net.first is net.order[0] is net.by_name["again"] and isinstance(
        net.first, hof.layers.PiecewisePolynomial
    )
    assert difference(net(x), before) < 1e-5
    hof.unfuse(net)
    assert net.first is net.order[0] is net.by_name["again"] and torch.equal(net(x), before)


def test_a_network_of_efficient_kan():
    """Grids are adapted, and losses taken, through the fused layers."""
    kan = pytest.importorskip("efficient_kan", reason="efficient-kan is not installed")
    if kan.KANLinear is KANLinear:
        pytest.skip("efficient_kan stands for our layers here")
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        net, x = kan.KAN([3, 5, 2]), points(80, 3)
        if fused:
            assert hof.fuse(net).swapped == {"layers.0": "KANLinear", "layers.1": "KANLinear"}
        y = net(x, update_grid=True)
        loss = y.square().mean() + 0.1 * net.regularization_loss()
        results.append((y, *torch.autograd.grad(loss, list(net.parameters())), *net.buffers()))
    for actual, expected in zip(*results, strict=True):
        assert difference(actual, expected) < 1e-3
    hof.unfuse(net)
    assert type(net.layers[0]) is kan.KANLinear and difference(net(x), results[1][0]) < 1e-5
