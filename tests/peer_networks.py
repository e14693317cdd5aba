"""The peer's networks beside ours; without pytorch_lightning, which they import for one base class."""

import functools
import importlib
import sys
import types

import pytest
import torch
from torch import nn

from high_order_fused.conv_layers import PeerConvolution
from high_order_fused.networks import SumLayer, SwitchLayer, peer_state_dict


class _LightningModule(nn.Module):
    device = torch.device("cpu")


@functools.cache
def peer_networks():
    """The peer's module `networks`; skips the test where the peer is not installed."""
    pytest.importorskip("high_order_layers_torch.layers", reason="high-order-layers-torch is not installed")
    try:
        return importlib.import_module("high_order_layers_torch.networks")
    except ModuleNotFoundError as missing:
        assert missing.name == "pytorch_lightning"
    lightning = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = _LightningModule
    sys.modules["pytorch_lightning"] = lightning
    try:
        return importlib.import_module("high_order_layers_torch.networks")
    finally:
        del sys.modules["pytorch_lightning"]


def seeded(make, *args, seed=0, **kwargs):
    """What make builds from that seed, and a number drawn afterwards."""
    torch.manual_seed(seed)
    return make(*args, **kwargs), torch.rand(())


def paired(theirs, ours, hidden=False):
    """Triples of the peer's modules without parts, ours, and whether the peer has not registered its own."""
    if isinstance(ours, (SumLayer, SwitchLayer)):
        held = theirs._layer_list if isinstance(ours, SumLayer) else theirs._layers
        for pair in zip(held, ours.layers, strict=True):
            yield from paired(*pair, hidden=True)
        return
    children = [] if isinstance(ours, PeerConvolution) else list(theirs.named_children())
    for name, child in children:
        yield from paired(child, ours.get_submodule(name), hidden)
    if not children:
        yield theirs, ours, hidden


def in_double(theirs, ours):
    """Both in float64, with the peer's nodes, which it leaves in float32."""
    for module, _, _ in paired(theirs, ours):
        module.double()
        poly = getattr(module, "_poly", None) or getattr(module, "poly", None)
        basis = getattr(poly, "basis", None)
        if hasattr(basis, "denominators"):
            nodes = -torch.cos(torch.arange(basis.n, dtype=torch.float64) * torch.pi / (basis.n - 1))
            basis.X = basis.X.abs().max() * nodes
            basis.denominators = torch.where(torch.eye(basis.n) == 1, 1.0, basis.X[:, None] - basis.X)
    return theirs.double(), ours.double()


def weights(state):
    """A state dict without the coefficients that the peer leaves uninitialised and does not use."""
    return {key: value for key, value in state.items() if not key.endswith("result")}


def alike(name, *args, **kwargs):
    """A network of that name as the peer builds it, and ours, with one and the same random coefficients.

    Both begin with the same numbers from the same seed, and each loads the other's state dict strictly.
    """
    theirs, after = seeded(getattr(peer_networks(), name), *args, **kwargs)
    ours, drawn = seeded(getattr(importlib.import_module("high_order_fused.networks"), name), *args, **kwargs)
    assert torch.equal(drawn, after), "random numbers are drawn otherwise"
    states = weights(theirs.state_dict()), weights(peer_state_dict(ours))
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        assert nn.parameter.is_lazy(value) or torch.equal(states[1][key], value), f"{key} begins otherwise"
    for held, layer, unregistered in paired(theirs, ours):
        for key, expected in weights(dict(held.named_parameters())).items() if unregistered else ():
            parameter = layer.get_parameter(key)
            assert torch.equal(parameter, expected), "a hidden layer begins otherwise"
            expected.data.normal_(std=0.5)
            parameter.data.copy_(expected)
    for key, parameter in theirs.named_parameters():
        if parameter.requires_grad and not nn.parameter.is_lazy(parameter):
            nn.init.zeros_(parameter) if key.endswith("result") else nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(peer_state_dict(ours), strict=True)
    return theirs, ours
