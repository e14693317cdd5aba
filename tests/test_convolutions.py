"""Convolutions: torch's own over tabulated functions, the peer, the adjoint, derivatives, compilation."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

import high_order_fused as hof
from high_order_fused.functional import conv, conv_product, conv_transpose
from high_order_fused.geometry import phases, place, take, transposed_phases
from high_order_fused.layers import high_order_convolution_layers, high_order_convolution_transpose_layers
from tests import cases, support
from tests.support import difference, golden, golden_names, seeds

BASIS = hof.bases.piecewise_lagrange(3, 4)
# kernel, stride, padding, dilation, groups
SHAPES = [
    (3, 1, 1, 1, 1),
    (2, 2, 0, 1, 1),
    (3, 2, 1, 1, 2),
    (3, 3, 2, 2, 1),
    (1, 2, 0, 1, 1),
    (4, 3, 3, 1, 2),
    (2, 1, 0, 3, 2),
    (1, 3, 1, 1, 1),
]


def tensors(axes, kernel, groups, dtype=torch.float64, outputs=6):
    image, size = (9, 8, 7)[:axes], (kernel,) * axes if isinstance(kernel, int) else kernel
    x = cases.points(2, 4, *image, spread=1.2, dtype=dtype)
    return x, cases.normal(4 // groups, BASIS.size, *size, outputs, dtype=dtype)


def expanded(x, basis=BASIS):
    """All functions at every pixel as channels, K fastest."""
    return basis.tabulate(x).movedim(-1, 2).flatten(1, 2)


def gradients(y, x, w):
    g = torch.cos(torch.arange(y.numel(), dtype=torch.float64, device=y.device)).view(y.shape).to(y.dtype)
    return y, *torch.autograd.grad(y, (x, w), g)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_against_torch(axes, shape, dtype, tolerance):
    kernel, stride, padding, dilation, groups = shape
    x, w = (t.requires_grad_() for t in tensors(axes, kernel, groups, dtype))
    a, b = (t.detach().double().requires_grad_() for t in (x, w))
    found = gradients(conv(x, w, BASIS, stride, padding, dilation, groups), x, w)
    weight = b.movedim(-1, 0).flatten(1, 2)
    torchs = getattr(F, f"conv{axes}d")(expanded(a), weight, None, stride, padding, dilation, groups)
    for actual, expected in zip(found, gradients(torchs, a, b), strict=True):
        assert difference(actual, expected) < tolerance
    if kernel == 1:
        return
    more = 1 if max(stride, dilation) > 1 else 0
    found = gradients(conv_transpose(x, w, BASIS, stride, padding, more, dilation, groups), x, w)
    weight = b.unflatten(-1, (groups, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 2).flatten(0, 1)
    over = getattr(F, f"conv_transpose{axes}d")
    torchs = over(expanded(a), weight, None, stride, padding, more, groups, dilation)
    for actual, expected in zip(found, gradients(torchs, a, b), strict=True):
        assert difference(actual, expected) < tolerance


def test_sizes_of_their_own_and_padding_modes():
    x, w = tensors(2, (3, 2), 1)
    sizes = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    weight = w.movedim(-1, 0).flatten(1, 2)
    assert difference(conv(x, w, BASIS, **sizes), F.conv2d(expanded(x), weight, **sizes)) < 1e-12
    same = conv(x, w, BASIS, padding="same", dilation=(2, 1))
    assert difference(same, F.conv2d(expanded(x), weight, padding="same", dilation=(2, 1))) < 1e-12
    assert torch.equal(conv(x, w, BASIS, padding="valid"), conv(x, w, BASIS))
    for mode in ("reflect", "replicate", "circular"):
        padded = F.pad(x, (0, 0, 1, 1), mode)
        expected = F.conv2d(expanded(padded), weight)
        assert difference(conv(x, w, BASIS, padding=(1, 0), padding_mode=mode), expected) < 1e-12
    assert difference(conv(x[0], w, BASIS), conv(x, w, BASIS)[0]) < 1e-14


def test_no_images_and_parts_of_a_batch(monkeypatch):
    x, w = tensors(2, 3, 1)
    assert conv(x[:0], w, BASIS).shape == (0, 6, 7, 6)
    whole = conv(x, w, BASIS, padding=1)
    monkeypatch.setattr("high_order_fused.convolved._TAP_OUTPUTS", 1)
    assert difference(conv(x, w, BASIS, padding=1), whole) < 1e-14


@pytest.mark.parametrize("over", [conv, conv_transpose, conv_product])
def test_gradients_of_no_images(over):
    x, w = tensors(2, 3, 1)
    x, w = x[:0].requires_grad_(), w.requires_grad_()
    over(x, w, BASIS).sum().backward()
    assert x.grad.shape == x.shape and torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.parametrize("shape", SHAPES)
def test_placing_and_taking_are_adjoint(shape):
    kernel, stride, padding, dilation, _ = shape
    lists = ([kernel] * 2, [stride] * 2, [padding] * 2, [dilation] * 2, [6, 5])
    for part in (*phases(*lists), *transposed_phases(*lists)):
        pixels = (7, 4)
        y = cases.normal(2, *pixels, len(part.taps), 3)
        image = cases.normal(2, 6, 5, 3)
        left = (place(y, part.placement) * image).sum()
        assert abs(left - (y * take(image, pixels, part.placement)).sum()) < 1e-10


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives_of_any_order(transposed):
    basis = hof.bases.piecewise_lagrange(3, 2)
    x = (cases.points(1, 2, 3, 3, spread=0.9) + 1e-3).requires_grad_()
    w = cases.normal(2, basis.size, 2, 2, 2).requires_grad_()
    over = conv_transpose if transposed else conv
    f = lambda x, w: over(x, w, basis, 2, 1)  # noqa: E731
    assert gradcheck(f, (x, w), check_forward_ad=True)
    assert gradgradcheck(f, (x, w))
    slope = lambda x, w: torch.autograd.grad(f(x, w).sin().sum(), x, create_graph=True)[0]  # noqa: E731
    assert gradgradcheck(slope, (x, w))


def test_transforms():
    x, w = tensors(1, 3, 1)
    f = lambda x: conv(x, w, BASIS, 2, 1)  # noqa: E731
    tangent = torch.randn_like(x)
    _, out = jvp(f, (x,), (tangent,))
    assert difference(out, torch.einsum("bowcdv,cdv->bow", jacrev(f)(x), tangent)) < 1e-10
    stacked = torch.stack([x, 0.5 * x])
    assert difference(vmap(f)(stacked)[1], f(0.5 * x)) < 1e-12


@pytest.mark.parametrize("over", [conv, conv_transpose, conv_product])
def test_hessians(over):
    basis = hof.bases.piecewise_lagrange(3, 2)
    x, w = cases.points(1, 1, 3, 3, spread=0.9), cases.normal(1, basis.size, 2, 2, 2)
    f = lambda x: over(x, w, basis).square().sum()  # noqa: E731
    expected = torch.autograd.functional.hessian(f, x)
    for transform in (hessian, lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacfwd(f))):
        assert difference(transform(f)(x), expected) < 1e-10


def test_compile_and_export():
    layer = hof.HighOrderConv2d(4, 6, 3, BASIS, stride=2, padding=1)
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.rand(2, 4, 8, 8, requires_grad=True)
    for actual, expected in zip(
        (compiled(x), *torch.autograd.grad(compiled(x).sum(), (x, layer.weight))),
        (layer(x), *torch.autograd.grad(layer(x).sum(), (x, layer.weight))),
        strict=True,
    ):
        assert difference(actual, expected) < 1e-5
    program = torch.export.export(layer, (x.detach(),))
    assert difference(program.module()(x.detach()), layer(x)) < 1e-6


def unfolded_product(x, weight, basis, **sizes):
    """prod (1 + f) - 1 by torch's unfold of the tabulated functions, zeros where there is no pixel."""
    channels, size, *kernel, _ = weight.shape
    functions = F.unfold(expanded(x, basis), kernel, **sizes).unflatten(1, (channels, size, -1))
    edges = torch.einsum("bcktp,ckto->boctp", functions, weight.flatten(2, -2))
    return (1 + edges).prod(3).prod(2) - 1


@pytest.mark.parametrize(
    "sizes", [{}, {"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": (1, 2), "padding": (0, 1)}]
)
def test_products(sizes):
    basis = hof.bases.piecewise_lagrange(3, 2)
    x, w = cases.points(2, 2, 5, 6), 0.3 * cases.normal(2, basis.size, 3, 2, 3)
    x, w = x.requires_grad_(), w.requires_grad_()
    y = conv_product(x, w, basis, **sizes)
    expected = unfolded_product(x, w, basis, **sizes).view(y.shape)
    for actual, wanted in zip(gradients(y, x, w), gradients(expected, x, w), strict=True):
        assert difference(actual, wanted) < 1e-12
    whole = conv_product(torch.cat([x, x], 1), torch.cat([w, w], -1), basis, groups=2, **sizes)
    assert difference(whole, torch.cat([y, y], 1)) < 1e-12


def test_derivatives_of_products():
    basis = hof.bases.lagrange(3)
    x, w = cases.points(1, 2, 3, 2, spread=0.9).requires_grad_(), cases.normal(2, 3, 2, 2, 2).requires_grad_()
    f = lambda x, w: conv_product(x, w, basis, 1, 1)  # noqa: E731
    assert gradcheck(f, (x, w), check_forward_ad=True)
    assert gradgradcheck(f, (x, w))
    slope = lambda x, w: torch.autograd.grad(f(x, w).sin().sum(), x, create_graph=True)[0]  # noqa: E731
    assert gradgradcheck(slope, (x, w))
    stacked = torch.stack([x, 0.5 * x])
    assert difference(vmap(lambda x: f(x, w))(stacked)[1], f(0.5 * x, w)) < 1e-12


@pytest.mark.parametrize("kind", ["continuous_prod2d", "discontinuous_prod2d", "polynomial_prod2d"])
def test_product_layers(kind):
    sizes = {"in_channels": 2, "out_channels": 3, "kernel_size": 2, "padding": 1}
    torch.manual_seed(0)
    layer = high_order_convolution_layers(kind, n=3, segments=2, rescale_output=True, **sizes)
    torch.manual_seed(0)
    of_sums = high_order_convolution_layers(kind.replace("_prod", ""), n=3, segments=2, **sizes)
    of_sums.load_state_dict(layer.state_dict())  # drawn alike, too
    x = cases.points(2, 2, 4, 5, dtype=torch.float32)
    w = layer.conv.weight.unflatten(1, (2, -1)).movedim(0, -1)
    expected = unfolded_product(x.double(), w.double(), layer.basis, padding=1)
    assert difference(layer(x), expected.view(2, 3, 5, 6) / 8) < 1e-5
    compiled = torch.compile(layer, fullgraph=True)
    assert difference(compiled(x), layer(x)) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_product2d(alpha):
    layer = high_order_convolution_layers(
        "product2d", in_channels=2, out_channels=3, kernel_size=3, padding=1, alpha=alpha, n=3
    )
    x = cases.points(2, 2, 4, 5, dtype=torch.float32)
    patches = F.unfold(x, 3, padding=1).view(2, 1, 18, 20)
    terms = layer.weight.view(1, 3, 18, 1) * patches
    y = (1 + terms).prod(2) - 1 - (1 - alpha) * terms.sum(2) + layer.bias[:, None]
    assert difference(layer(x), y.view(2, 3, 4, 5)) < 1e-5
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_our_layers(axes):
    layer = getattr(hof, f"HighOrderConv{axes}d")(4, 6, 3, BASIS, padding=1, groups=2)
    x = cases.points(2, 4, *(5,) * axes, dtype=torch.float32)
    twin = getattr(hof, f"HighOrderConv{axes}d")(4, 6, 3, BASIS, padding=1, groups=2)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), layer(x)) and layer(x).shape == (2, 6, *(5,) * axes)
    other = hof.bases.piecewise_lagrange(3, 4, (-2.0, 2.0))
    with pytest.raises(ValueError, match="state dict: got coefficients of"):
        getattr(hof, f"HighOrderConv{axes}d")(4, 6, 3, other, groups=2).load_state_dict(layer.state_dict())
    inner = layer(torch.zeros_like(x))[(0, slice(None), *(2,) * axes)]
    other = layer(0.7 * torch.ones_like(x))[(0, slice(None), *(2,) * axes)]
    assert difference(inner, other) < 1e-5  # constants, to begin with
    if axes < 3:
        layer = getattr(hof, f"HighOrderConvTranspose{axes}d")(4, 6, 3, BASIS, stride=2, output_padding=1)
        assert layer(x).shape == (2, 6, *(12,) * axes)


def test_bad_arguments():
    x, w = tensors(2, 3, 1)
    with pytest.raises(TypeError, match="basis: got int, needs a Basis"):
        hof.HighOrderConv2d(4, 6, 3, 4)
    with pytest.raises(ValueError, match="basis: got knots for 3 features"):
        hof.HighOrderConv1d(4, 6, 3, cases.build("bspline-knots-zero"))
    with pytest.raises(ValueError, match="basis: got knots for 3 features"):
        conv(x, cases.normal(4, 5, 3, 3, 2), cases.build("bspline-knots-zero"))
    with pytest.raises(ValueError, match="groups: got 4, needs to divide 4 and 6"):
        hof.HighOrderConvTranspose2d(4, 6, 3, BASIS, groups=4)
    for arguments, message in (
        ({"stride": 0}, "stride: got 0"),
        ({"stride": 1.5}, "stride: got 1.5, needs a whole number"),
        ({"padding": (1, 2, 3)}, "padding: got"),
        ({"padding": "some"}, "padding: got 'some'"),
        ({"padding": "same", "stride": 2}, "needs stride 1"),
        ({"groups": 3}, "x: got 4 channels"),
        ({"padding_mode": "odd"}, "padding_mode: got 'odd'"),
        ({"dilation": 9}, "x: got image"),
    ):
        with pytest.raises(ValueError, match=message):
            conv(x, w, BASIS, **arguments)
    with pytest.raises(ValueError, match="K = 9"):
        conv(x, w[:, :5], BASIS)
    with pytest.raises(ValueError, match="output_padding: got 1"):
        conv_transpose(x, w, BASIS, output_padding=1)
    for over in (conv, conv_product, conv_transpose):
        with pytest.raises(ValueError, match=r"weight: got shape .*, needs kernel sizes of at least 1"):
            over(x, w[:, :, :0], BASIS)
        with pytest.raises(TypeError, match="basis: got Operands, needs a Basis"):
            over(x, w, BASIS.operands(torch.float64, x.device))
    with pytest.raises(TypeError, match="weight: got list"):
        conv(x, [1.0], BASIS)


# ---- the peer


@pytest.mark.parametrize("name", [*golden_names("hol-conv-*"), *golden_names("hol-convtranspose-*")])
def test_golden(name):
    meta, values = golden(name)
    make = high_order_convolution_layers
    if meta["call"] == "high_order_convolution_transpose_layers":
        make = high_order_convolution_transpose_layers
    layer = make(meta["layer_type"], **meta["kwargs"]).to(support.DEVICE)
    layer.load_state_dict(values["state"], strict=True)
    x = values["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(values["g"])
    assert difference(y, values["y"]) < 1e-5 and difference(x.grad, values["grad_x"]) < 1e-5
    assert difference(layer.conv.weight.grad, values["grad"]["conv.weight"]) < 1e-5


def counted(shape):
    k = torch.arange(torch.Size(shape).numel())
    return (((7 * k) % 11 - 5) / 5).view(shape)


@pytest.mark.parametrize(
    ("kind", "arguments", "y"),
    [
        ("polynomial2d", {"n": 3}, [0.275, -0.96875, 1.3, -0.9375, -0.89375, 1.28125, 0.85, -1.3, 0.05]),
        ("continuous2d", {"n": 3, "segments": 2}, [0.1, -0.725, 0, -1.575, 1.25, -0.75, -0.85, 0.6, -0.2]),
        ("discontinuous2d", {"n": 2, "segments": 2}, [0.75, -1.6, -0.7, 0.25, 0.8, -0.55, 0.6, 0.2, -0.4]),
        (
            "fourier2d",
            {"n": 3},
            [0.507107, 0.275736, 0.1, 1.824264, -0.2, -0.2, -0.424264, 0.831371, -1.007107],
        ),
        ("polynomial1d", {"n": 3}, [0.3625, 0.25, -1.00625]),
        ("continuous1d", {"n": 3, "segments": 2}, [1.25, -1.975, 0.9]),
        ("discontinuous1d", {"n": 2, "segments": 2}, [0.6, -1.2, -0.15]),
    ],
)
def test_by_hand(kind, arguments, y):
    layer = high_order_convolution_layers(
        kind, in_channels=2, out_channels=1, kernel_size=2, padding=1, **arguments
    )
    layer.conv.weight.data = counted(layer.conv.weight.shape)
    shape = (1, 2, 2, 2) if kind.endswith("2d") else (1, 2, 2)
    k = torch.arange(torch.Size(shape).numel())
    x = (((3 * k) % 7 - 3) / 4).view(shape)
    torch.testing.assert_close(layer(x).flatten(), torch.tensor(y, dtype=torch.float32), rtol=1e-5, atol=2e-6)


LIVE = (
    "continuous1d",
    "continuous2d",
    "discontinuous1d",
    "discontinuous2d",
    "polynomial1d",
    "polynomial2d",
    "fourier2d",
)


def test_row_16_fourier1d_which_the_peer_never_made_is_torchs_over_the_series():
    settings = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1}
    layer = high_order_convolution_layers("fourier1d", n=5, rescale_output=True, length=3.0, **settings)
    assert layer.conv.weight.shape == (3, 10, 3) and 0 < layer.conv.weight.abs().max() <= 1 / 90
    x = 2 * torch.rand(4, 2, 9) - 1
    v = 2 * torch.pi * x / 3
    series = torch.stack([0.5 * torch.ones_like(x), v.sin(), v.cos(), (2 * v).sin(), (2 * v).cos()], 2)
    expected = F.conv1d(series.flatten(1, 2), layer.conv.weight, stride=2, padding=1) / 18
    assert difference(layer(x), expected) < 1e-5


@pytest.mark.filterwarnings("ignore:non-inplace resize")
@pytest.mark.parametrize("seed", seeds(800))
def test_live(seed):
    """Random configurations of each kind; every eighth a transposed one."""
    peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")
    generator = torch.Generator().manual_seed(seed)

    def pick(*options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    transposed = seed % 8 == 7
    kind = "continuous2d" if transposed else LIVE[seed % 8]
    arguments = {"n": pick(1, 2, 3, 4, 5), "segments": pick(1, 2, 3, 5), "in_channels": pick(1, 2, 3)}
    arguments |= {"out_channels": pick(1, 2, 5), "kernel_size": pick(1, 2, 3), "stride": pick(1, 2, 3)}
    arguments |= {"padding": pick(0, 1, 2), "dilation": pick(1, 2), "rescale_output": pick(True, False)}
    arguments |= {"periodicity": pick(None, 2.0), "length": pick(2.0, 2.0, 4.0)}
    arguments["weight_magnitude"] = pick(1.0, 0.5)
    if not transposed:
        arguments["padding_mode"] = pick("zeros", "zeros", "reflect", "replicate", "circular")
    name = f"high_order_convolution{'_transpose' if transposed else ''}_layers"
    ours_make = high_order_convolution_transpose_layers if transposed else high_order_convolution_layers
    torch.manual_seed(seed)
    theirs = getattr(peer, name)(layer_type=kind, **arguments)
    torch.manual_seed(seed)
    ours = ours_make(kind, **arguments)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.conv.weight, theirs.conv.weight), "initialisation differs"
    torch.nn.init.normal_(theirs.conv.weight)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = (9, 8) if kind.endswith("2d") else (11,)
    x = torch.rand(pick(1, 3), arguments["in_channels"], *image, generator=generator) * 2.4 - 1.2
    results = []
    for layer in (theirs, ours):
        point = x.clone().requires_grad_()
        y = layer(point)
        # of one sign: sums that nearly cancel have no relative accuracy in float32, the peer's neither
        g = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
        found = torch.autograd.grad(y, (point, layer.conv.weight), g, allow_unused=True)
        results.append((y, *(torch.zeros_like(x) if d is None else d for d in found)))
    for actual, expected in zip(results[1], results[0], strict=True):
        assert difference(actual, expected) < 1e-5
