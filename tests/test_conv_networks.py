"""Networks of convolutions and the autoencoder: the peer's outputs, gradients, state dicts and seeds."""

import pytest
import torch
from torch import nn

from high_order_fused import networks, norm
from tests.peer_networks import alike
from tests.support import difference

KINDS = ("continuous", "discontinuous", "polynomial", "fourier")


def same_step(theirs, ours, x):
    """Outputs and all gradients are the same; norms after each layer keep rounding small."""
    results = []
    for net in (theirs, ours):
        point = x.clone().requires_grad_()
        y = net(point)
        g = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).view(y.shape)
        results.append((y, *torch.autograd.grad(y, (point, *net.parameters()), g)))
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for actual, expected in zip(results[1], results[0], strict=True):
        assert difference(actual, expected) < 1e-5


@pytest.mark.parametrize("pooling", ["2d", None])
@pytest.mark.parametrize("kind", KINDS)
def test_row_27_convolutional_network_is_the_peers(kind, pooling):
    shared = {"rescale_output": True, "periodicity": 2.0, "normalization": nn.BatchNorm2d, "padding": 1}
    sizes = [3, 2], [2, 4, 3], [2, 3], [3, 1]
    shared |= {"pooling": pooling, "stride": [2, 1]}
    theirs, ours = alike("HighOrderFullyConvolutionalNetwork", [f"{kind}2d"] * 2, *sizes, **shared)
    x = 2 * torch.rand(3, 2, 7, 6) - 1
    same_step(theirs, ours, x)
    assert ours.output_size == theirs.output_size == 3
    assert ours(x).shape == ((3, 3) if pooling else (3, 3 * 6 * 5))


@pytest.mark.parametrize("kind", KINDS[:3])
def test_row_27_one_value_for_all_layers_and_lazy_norms(kind):
    """LazyBatchNorm1d takes the channels for eps, which the outputs show."""
    shared = {"pooling": "1d", "stride": 2, "normalization": nn.LazyBatchNorm1d}
    theirs, ours = alike("HighOrderFullyConvolutionalNetwork", f"{kind}1d", 3, [2, 3, 3], 2, [3, 3], **shared)
    assert ours.model[1].eps == 3
    same_step(theirs, ours, 2 * torch.rand(4, 2, 15) - 1)
    ours.load_state_dict(theirs.state_dict(), strict=True)


def test_row_27_deconvolutional_network_is_the_peers():
    shared = {"normalization": nn.BatchNorm2d, "stride": [2, 1], "padding": 1, "periodicity": 2.0}
    name = "HighOrderFullyDeconvolutionalNetwork"
    theirs, ours = alike(name, "continuous2d", 3, [2, 3, 2], 2, [4, 3], **shared)
    assert ours.in_channels == theirs.in_channels == 2
    same_step(theirs, ours, 2 * torch.rand(3, 2, 3, 2) - 1)


@pytest.mark.parametrize("focus", [[2, 3, 1], 2, [4]])
def test_row_27_tail_focus_network_is_the_peers(focus):
    shared = {"stride": [2, 1, 2], "normalization": nn.BatchNorm1d, "focus": focus}
    theirs, ours = alike("HighOrderTailFocusNetwork", "continuous1d", 3, [2, 3, 2, 4], 2, [3, 3, 2], **shared)
    x = 2 * torch.rand(3, 2, 20) - 1
    same_step(theirs, ours, x)
    assert next(iter(ours.state_dict())) == "conv_0.conv.weight" and "normal_2.weight" in ours.state_dict()
    assert ours.compute_sizes(20)[0] == theirs.compute_sizes(20)[0]
    if focus != [4]:
        assert ours.compute_sizes(20) == theirs.compute_sizes(20)
    assert ours(x).shape == (3, sum(ours.compute_sizes(20)[1]))


@pytest.mark.parametrize("normalization", [None, nn.BatchNorm1d])
@pytest.mark.parametrize(("padding", "stride", "width"), [(0, None, 9), (1, 2, 8), (2, [3, 1], 3)])
def test_sizes_of_a_tail_focus_network_are_those_of_its_output(padding, stride, width, normalization):
    shared = {"padding": padding, "stride": stride, "normalization": normalization, "focus": [5, 9]}
    net = networks.HighOrderTailFocusNetwork("polynomial1d", 3, [2, 3, 4], None, 3, **shared)
    sizes, widths = [], []
    for layer in (net.conv_0, net.conv_1):
        layer.register_forward_hook(lambda _, x, y: widths.append((x[0].shape[-1], y.shape[-1])))
    y = net(torch.rand(2, 2, width))
    sizes = net.compute_sizes(width)
    assert sizes[0] == [widths[0][0], widths[0][1], widths[1][1]]
    assert y.shape == (2, sum(sizes[1])) and len(sizes[1]) == (2 if normalization is None else 3)


def test_row_27_without_norms_a_tail_focus_network_is_the_peers_too():
    theirs, ours = alike("HighOrderTailFocusNetwork", "polynomial1d", 2, [2, 3, 2], 1, [3, 3], focus=2)
    same_step(theirs, ours, 0.1 * torch.rand(3, 2, 12))


class Encoder(nn.Module):
    """As the peer's network, of which it needs no more."""

    output_size = 3

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.model(x)


class Decoder(nn.Module):
    in_channels = 4

    def __init__(self):
        super().__init__()
        self.model = nn.ConvTranspose2d(4, 2, 5)

    def forward(self, x):
        return self.model(x)


def test_row_27_autoencoder_is_the_peers():
    """Seeds, state dict, every method; the encoder and decoder have no part in the difference."""
    theirs, ours = alike("VanillaVAE", 6, Encoder(), Decoder(), in_channels=2)
    ours.encoder, ours.decoder = Encoder(), Decoder()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, results = torch.rand(3, 2, 5, 5), []
    for net in (theirs, ours):
        torch.manual_seed(3)
        found = net(x)
        losses = net.loss_function(*found, M_N=0.3, batch_idx=1)
        slopes = torch.autograd.grad(losses["loss"], list(net.parameters()))
        assert not losses["KLD"].requires_grad and not losses["Reconstruction_Loss"].requires_grad
        results.append([*found, *losses.values(), *slopes, net.sample(2), net.generate(x), *net.encode(x)])
    assert list(losses) == ["loss", "Reconstruction_Loss", "KLD"]
    for actual, expected in zip(*results, strict=True):
        assert difference(actual, expected) < 1e-5


def test_row_27_an_autoencoder_of_high_order_networks_learns():
    sizes = {"n": 3, "segments": 2, "normalization": nn.BatchNorm2d}
    encoder = networks.HighOrderFullyConvolutionalNetwork(
        "continuous2d", channels=[1, 4, 8], kernel_size=[3, 3], stride=2, **sizes
    )
    decoder = networks.HighOrderFullyDeconvolutionalNetwork(
        "polynomial2d", channels=[8, 4, 1], kernel_size=[4, 5], stride=[1, 1], **sizes
    )
    net = networks.VanillaVAE(2, encoder, decoder)
    scale = torch.rand(16, 1, 1, 1)
    x, losses = scale * torch.linspace(-1, 1, 64).view(1, 1, 8, 8), []
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(15):
        optimizer.zero_grad()
        loss = net.loss_function(*net(x), M_N=0.01)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for key, p in net.named_parameters()) and losses[-1] < 0.7 * losses[0]
    assert net.sample(3).shape == net.generate(x[:3]).shape == (3, 1, 8, 8)
    assert net.double().sample(1).dtype == torch.float64


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("kind", ["continuous1d", "fourier1d", "discontinuous2d", "polynomial2d"])
def test_row_57_shapes_of_convolutional_networks(kind, kernel_size, layers):
    sizes = {"kernel_size": [kernel_size] * layers, "stride": [2] * layers, "pooling": kind[-2:]}
    net = networks.HighOrderFullyConvolutionalNetwork(kind, 3, [3] * (layers + 1), 2, **sizes)
    image = torch.rand(2, 3, *(20,) * int(kind[-2]))
    assert net(image).shape == (2, 3)
    sizes["pooling"] = None
    net = networks.HighOrderFullyConvolutionalNetwork(kind, 3, [3] * (layers + 1), 2, **sizes)
    width = 20
    for _ in range(layers):
        width = (width - kernel_size) // 2 + 1
    assert net(image).shape == (2, 3 * width ** int(kind[-2]))


def test_longer_lists_are_cut_and_bad_arguments_named():
    make = networks.HighOrderFullyConvolutionalNetwork
    longer = make(["polynomial2d"] * 3, [3] * 3, [1, 2], None, [3, 3, 3], stride=[2, 2])
    assert len(longer.model) == 3 and longer.model[0].conv.stride == (2, 2)
    assert make("polynomial2d", 3, [1, 2, 2], None, 3)(torch.rand(1, 1, 6, 6)).shape == (1, 2)
    for wrong, message in (
        ({"channels": [3]}, r"channels: got \[3\], needs at least two"),
        ({"n": [3]}, r"n: got \[3\], needs 2 values"),
        ({"kernel_size": [3]}, r"kernel_size: got \[3\], needs 2 values"),
        ({"stride": [1]}, r"stride: got \[1\], needs 2 values"),
        ({"pooling": "max"}, "pooling: got 'max'"),
        ({"layer_type": "polynomial4d"}, "layer_type: got 'polynomial4d'"),
    ):
        given = {
            "layer_type": "polynomial2d",
            "n": 3,
            "channels": [1, 2, 2],
            "segments": None,
            "kernel_size": 3,
        }
        with pytest.raises(ValueError, match=message):
            make(**{**given, **wrong})
    for focus in (None, []):
        with pytest.raises(ValueError, match="focus: got"):
            networks.HighOrderTailFocusNetwork("polynomial1d", 3, [1, 2], None, 3, focus=focus)
    with pytest.raises(ValueError, match="focus: got 0"):
        networks.HighOrderTailFocusNetwork("polynomial1d", 3, [1, 2], None, 3, focus=0)
    with pytest.raises(TypeError, match=r"encoder\.output_size: got None"):
        networks.VanillaVAE(2, nn.Identity(), Decoder())
    with pytest.raises(TypeError, match=r"decoder\.in_channels: got None"):
        networks.VanillaVAE(2, Encoder(), nn.Identity())
    with pytest.raises(TypeError, match="segments: got None"):
        make("continuous2d", 3, [1, 2], None, 3)


def test_norms_without_parameters_take_the_channels_as_the_peers_do():
    theirs = pytest.importorskip("high_order_layers_torch.layers").MaxAbsNormalizationND
    net = networks.HighOrderFullyConvolutionalNetwork(
        "polynomial2d", 3, [1, 4], None, 3, normalization=norm.MaxAbsNormalizationND
    )
    x = torch.randn(2, 4, 3, 3)
    assert net.model[1].eps == 4 and difference(net.model[1](x), theirs(4)(x)) < 1e-6


def test_pooling_over_other_axes_raises():
    with pytest.raises(ValueError, match="pooling: got '2d', needs '1d', the axes of the layers"):
        networks.HighOrderFullyConvolutionalNetwork("continuous1d", 3, [2, 4], 2, 3)
