"""State dicts of every kind of layer that the peers have: theirs into ours and back, strictly, bit by bit."""

import pytest
import torch
from torch import nn

from high_order_fused import kan, layers
from high_order_fused.networks import peer_state_dict
from tests.support import difference

peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")

ROWS = {"in_features": 3, "out_features": 2}
IMAGES = {"in_channels": 2, "out_channels": 3, "kernel_size": 3}
MADE = {
    **{kind: (peer.high_order_fc_layers, layers.high_order_fc_layers, ROWS) for kind in peer.fc_layers},
    **{
        f"{kind} convolution": (
            peer.high_order_convolution_layers,
            layers.high_order_convolution_layers,
            IMAGES,
        )
        for kind, made in peer.convolutional_layers.items()
        if made is not None
    },
    **{
        f"{kind} transposed": (
            peer.high_order_convolution_transpose_layers,
            layers.high_order_convolution_transpose_layers,
            IMAGES,
        )
        for kind in peer.convolutional_transpose_layers
    },
}
RAISES = {"polynomial_prod", "fourier1d convolution"}  # the peer's constructors


def inputs(name):
    if "polynomial_" in name and name.endswith("d"):
        return torch.rand(5, 3, int(name[-2]))
    return torch.rand(5, 2, *(6,) * int(name.split("d ")[0][-1])) if " " in name else torch.rand(5, 3)


@pytest.mark.filterwarnings("ignore:non-inplace resize", "ignore:torch.meshgrid")
@pytest.mark.parametrize("name", sorted(MADE.keys() - RAISES))
def test_a_layers_state_dict_goes_to_ours_and_back(name):
    kind, settings = name.split()[0], {"n": 3, "segments": 2}
    make, ours, sizes = MADE[name]
    first, back = (make(layer_type=kind, **settings, **sizes) for _ in range(2))
    layer = ours(kind, **settings, **sizes)
    for key, value in first.state_dict().items():
        nn.init.normal_(value) if key != "result" else nn.init.ones_(value)
    layer.load_state_dict(first.state_dict(), strict=True)
    returned = peer_state_dict(layer)
    back.load_state_dict(returned, strict=True)
    assert list(back.state_dict()) == list(returned) == list(first.state_dict())
    for key, value in first.state_dict().items():
        assert torch.equal(returned[key], value) and torch.equal(back.state_dict()[key], value)
    if not kind.startswith("switch"):  # whose layers the peer does not save
        x = inputs(name)
        assert difference(layer(x), first(x)) < 1e-4 and torch.equal(back(x), first(x))


@pytest.mark.parametrize("name", sorted(RAISES))
def test_the_peers_constructor_raises_where_no_state_dict_is_compared(name):
    make, _, sizes = MADE[name]
    with pytest.raises((AttributeError, TypeError)):
        make(layer_type=name.split()[0], n=3, segments=2, **sizes)


@pytest.mark.parametrize("scaler", [True, False])
def test_a_kan_layers_state_dict_goes_to_ours_and_back(scaler):
    theirs = pytest.importorskip("efficient_kan", reason="efficient-kan is not installed").KANLinear
    first, layer, back = (
        made(3, 2, enable_standalone_scale_spline=scaler) for made in (theirs, kan.KANLinear, theirs)
    )
    first.update_grid(torch.rand(50, 3))
    layer.load_state_dict(first.state_dict(), strict=True)
    back.load_state_dict(layer.state_dict(), strict=True)
    x = torch.rand(5, 3)
    assert list(layer.state_dict()) == list(first.state_dict()) and torch.equal(back(x), first(x))
    assert difference(layer(x), first(x)) < 1e-5
