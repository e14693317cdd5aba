"""What compat adds to our layers: expansions, interpolators, base classes, convolutions' names, attention."""

import importlib

import pytest
import torch
from torch import nn

from high_order_fused import layers, sums
from high_order_fused.compat.high_order_layers_torch import (
    Basis,
    FunctionalConvolution,
    FunctionalConvolutionTranspose,
    LagrangePolynomial,
    PolynomialLayers,
    attentions,
)
from high_order_fused.compat.high_order_layers_torch import layers as named
from high_order_fused.compat.high_order_layers_torch.sparse_optimizers import sparse_lion
from tests.support import difference


def peer(module):
    return pytest.importorskip(
        f"high_order_layers_torch.{module}", reason="high-order-layers-torch is not installed"
    )


def same(theirs, ours, *inputs, tolerance=1e-5):
    """Outputs, and the gradients of the inputs, of two functions."""
    results = []
    for function in (ours, theirs):
        own = [t.clone().requires_grad_() for t in inputs]
        y = function(*own)
        g = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
        whole = (y * g).sum() + sum((0 * t).sum() for t in own)  # the peer's constants depend on nothing
        results.append([y, *torch.autograd.grad(whole, own)])
    for actual, expected in zip(*results, strict=True):
        assert difference(actual, expected) < tolerance


@pytest.mark.parametrize("n", [1, 2, 3, 6, 20])
def test_nodes(n):
    nodes = LagrangePolynomial.chebyshevLobatto(n)
    steps = torch.arange(n, dtype=torch.float64)
    exact = -torch.cos(torch.pi * steps / (n - 1)) if n > 1 else 0 * steps
    assert nodes.shape == (n,) and nodes.dtype == torch.float32
    assert difference(nodes, exact) < 1e-7 and bool((nodes.diff() > 0).all())


@pytest.mark.parametrize("length", [2.0, 3.0])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_functions_by_number(n, length):
    module, x = peer("LagrangePolynomial"), torch.linspace(-2, 2, 23).reshape(1, 23)
    theirs, ours = module.get_lagrange_basis(n, length), LagrangePolynomial.get_lagrange_basis(n, length)
    assert ours.num_basis == theirs.num_basis == n and difference(ours.X, theirs.X) < 1e-6
    for j in range(n):
        same(lambda x, j=j: theirs(x, j), lambda x, j=j: ours(x, j), x)
    theirs, ours = module.FourierBasis(length), LagrangePolynomial.FourierBasis(length)
    for j in range(n):
        same(lambda x, j=j: theirs(x, j), lambda x, j=j: ours(x, j), x, tolerance=1e-4)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_products_of_functions_are_one_at_their_node(dimensions):
    basis = LagrangePolynomial.LagrangeBasisND(n=5, dimensions=dimensions)
    x = torch.tensor([[[-1] * dimensions], [[1] * dimensions]])
    first, last = (basis(x, index=[j] * dimensions) for j in (0, 4))
    assert first.tolist() == [[1], [0]] and last.tolist() == [[0], [1]]
    assert basis.num_basis == 5**dimensions


def test_polynomials_reproduce_their_nodes_and_constants():
    poly = LagrangePolynomial.LagrangePoly(5)
    w, x = LagrangePolynomial.chebyshevLobatto(5).reshape(1, 1, 1, 5), torch.linspace(-1, 1, 9)[:, None]
    assert (poly.interpolate(x, w.expand(9, -1, -1, -1)) - x).abs().max() < 1e-6
    constant = LagrangePolynomial.LagrangePoly(1).interpolate(x[:1], torch.full((1, 1, 1, 1), 0.25))
    assert constant.item() == 0.25


@pytest.mark.parametrize(("n", "length"), [(1, 2.0), (3, 2.0), (4, 3.0)])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("LagrangePolyFlat", (5, 4, "n")),
        ("LagrangePolyFlatProd", (5, 4, "n")),
        ("FourierSeriesFlat", (5, 4, "n")),
        ("LagrangePoly", (7, 4, 5, "n")),
        ("LagrangePolyProd", (7, 4, 5, "n")),
    ],
)
def test_interpolators_are_the_peers(name, shape, n, length):
    theirs, ours = (
        getattr(module, name)(n, length) for module in (peer("LagrangePolynomial"), LagrangePolynomial)
    )
    assert getattr(theirs, "num_basis", None) in (None, getattr(ours, "num_basis", None))
    x, w = torch.randn(7, 4), torch.randn([n if size == "n" else size for size in shape])
    same(theirs.interpolate, ours.interpolate, x, w, tolerance=1e-4 if "Prod" in name else 2e-5)
    if name.endswith("Flat"):
        same(theirs.interpolate, ours.interpolate, x[:, :1], w, tolerance=2e-5)  # one feature for all


def test_interpolators_of_several_variables_are_the_peers():
    theirs, ours = (
        module.LagrangePolyFlatND(3, 2.0, dimensions=3)
        for module in (peer("LagrangePolynomial"), LagrangePolynomial)
    )
    assert torch.equal(ours.indexes, theirs.indexes) and ours.num_basis == 27
    same(theirs.interpolate, ours.interpolate, torch.randn(7, 4, 3), torch.randn(5, 4, 27))
    same(theirs.interpolate, ours.interpolate, torch.randn(7, 1, 3), torch.randn(5, 4, 27))


def powers(x, j):
    """A basis of a user."""
    return x**j


powers.num_basis = 3


@pytest.mark.parametrize("alpha", [None, 1.0, 0.3])
def test_bases_of_ones_own(alpha):
    module, x, w = peer("Basis"), torch.randn(7, 4), torch.randn(5, 4, 3)
    settings = {} if alpha is None else {"alpha": alpha}
    flat, each = ("BasisFlat", "Basis") if alpha is None else ("BasisFlatProd", "BasisProd")
    for name, weights in ((flat, w), (each, torch.randn(7, 4, 5, 3))):
        theirs, ours = (getattr(source, name)(3, powers, **settings) for source in (module, Basis))
        same(theirs.interpolate, ours.interpolate, x, weights)
    lagrange = LagrangePolynomial.LagrangeBasis(3)
    plain = getattr(Basis, flat)(3, lambda x, j: lagrange(x, j), **settings)
    fused = getattr(Basis, flat)(3, lagrange, **settings)
    same(plain.interpolate, fused.interpolate, x, w)
    some = getattr(Basis, flat)(2, lagrange, **settings)  # the first two of three
    same(lambda x: getattr(module, flat)(2, lagrange, **settings).interpolate(x, w[..., :2]),
         lambda x: some.interpolate(x, w[..., :2]), x)  # fmt: skip


@pytest.mark.parametrize("length", [2.0, 3.0])
@pytest.mark.parametrize(("n", "segments"), [(1, 3), (2, 1), (3, 4)])
@pytest.mark.parametrize("name", ["PiecewisePolynomialExpand", "PiecewiseDiscontinuousPolynomialExpand"])
def test_expansions_are_the_peers(name, n, segments, length):
    module = peer("LagrangePolynomial")
    for suffix, shape in (("", (2, 3, 4, 5)), ("1d", (2, 3, 4))):
        theirs, ours = (
            getattr(source, name + suffix)(n, segments, length) for source in (module, LagrangePolynomial)
        )
        same(theirs, ours, torch.randn(shape))
    expand = getattr(LagrangePolynomial, name)(n, segments)
    assert expand(torch.rand(2, 3, dtype=torch.float64)).dtype == torch.float64  # where the peer raises


@pytest.mark.parametrize("axes", [1, 2])
def test_expansions_of_images_are_the_peers_and_one_segment_is_a_polynomial(axes):
    theirs, ours = (
        getattr(module, f"Expansion{axes}d")
        for module in (peer("FunctionalConvolution"), FunctionalConvolution)
    )
    x, expand = torch.randn(2, 3, 5, 6)[..., 0] if axes == 1 else torch.randn(2, 3, 5, 6), LagrangePolynomial
    same(theirs(expand.LagrangeExpand(3)), ours(expand.LagrangeExpand(3)), x)
    same(theirs(expand.FourierExpand(3, 2.0)), ours(expand.FourierExpand(3, 2.0)), x)
    one = ours(expand.PiecewisePolynomialExpand(n=3, segments=1))
    assert difference(one(x), ours(expand.LagrangeExpand(3))(x)) < 1e-5
    with pytest.raises(TypeError, match="basis: got None, needs a function"):
        ours(None)


def test_a_layer_of_ones_own_interpolator():
    module = peer("PolynomialLayers")
    for basis in (LagrangePolynomial.LagrangePolyFlat(3), Basis.BasisFlat(3, powers)):
        for more in ({}, {"initialize": "uniform", "periodicity": 2.0, "weight_magnitude": 2.0}):
            torch.manual_seed(0)
            theirs = module.Function(3, 4, 5, basis, **more)
            torch.manual_seed(0)
            ours = PolynomialLayers.Function(3, 4, 5, basis, **more)
            assert torch.equal(ours.w, theirs.w) and list(ours.state_dict()) == list(theirs.state_dict())
            same(theirs, ours, torch.randn(7, 4))


@pytest.mark.parametrize("name", ["Piecewise", "PiecewiseDiscontinuous"])
@pytest.mark.parametrize("poly", ["LagrangePoly", "LagrangePolyProd"])
def test_base_classes_build_layers(name, poly):
    made = []
    for module, source in ((peer("PolynomialLayers"),) * 2, (PolynomialLayers, LagrangePolynomial)):
        torch.manual_seed(0)
        made.append(getattr(module, name)(3, 4, 5, 2, poly=getattr(source, poly)))
    theirs, ours = made
    assert torch.equal(ours.w, theirs.w)
    nn.init.normal_(theirs.w, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    same(theirs, ours, torch.randn(7, 4).clamp(-1.1, 1.1), tolerance=1e-4)
    with pytest.raises(TypeError, match="poly: got None, needs LagrangePoly or"):
        getattr(PolynomialLayers, name)(3, 4, 5, 2)


@pytest.mark.parametrize(
    "kind",
    ["continuous", "continuous_prod", "discontinuous", "discontinuous_prod", "polynomial", "fourier"],
)
def test_layers_are_instances_of_the_peers_base_classes(kind):
    module = peer("layers")
    arguments = {"n": 3, "in_features": 2, "out_features": 2, "segments": 2}
    theirs = module.high_order_fc_layers(kind, **arguments)
    ours = layers.high_order_fc_layers(kind, **arguments)
    for name in ("Function", "Piecewise", "PiecewiseDiscontinuous", "PiecewisePolynomial", "Polynomial"):
        assert isinstance(ours, getattr(named, name)) == isinstance(theirs, getattr(module, name)), name
    assert named.PiecewisePolynomial is sums.PiecewisePolynomial


CONVOLUTIONS = [
    (f"{kind}Convolution{axes}d", sizes)
    for kind, sizes in (
        ("Fourier", (3,)),
        ("Polynomial", (3,)),
        ("PiecewisePolynomial", (3, 2)),
        ("PiecewiseDiscontinuousPolynomial", (3, 2)),
    )
    for axes in (1, 2)
]


@pytest.mark.parametrize(("name", "sizes"), CONVOLUTIONS)
def test_convolutions_by_class_are_the_peers(name, sizes):
    module, made = peer("FunctionalConvolution"), []
    shape = (2, 2, 5, 6) if name.endswith("2d") else (2, 2, 6)
    ours = getattr(FunctionalConvolution, name)
    key = {"Fourier": "fourier", "Polynomial": "polynomial", "PiecewisePolynomial": "continuous"}
    kind = key.get(name.partition("Convolution")[0], "discontinuous") + name[-2:]
    assert named.convolutional_layers[kind] is ours
    if name == "FourierConvolution1d":  # the peer's raises
        assert ours(3, 2, 4, out_channels=3)(torch.rand(shape)).shape == (2, 3, 3)
        return
    two = name.endswith("2d") and not name.startswith("Fourier")
    positions = (*sizes, 2, 3, 4, 2.0, True) if two else (*sizes, 2, 4, 2.0, True)
    others = {"device": "cpu", "padding": 1} if two else {"out_channels": 3, "padding": 1, "device": "cpu"}
    for kind in (getattr(module, name), ours):
        torch.manual_seed(0)
        made.append(kind(*positions, **others))
    assert torch.equal(made[0].conv.weight, made[1].conv.weight)
    nn.init.normal_(made[0].conv.weight)
    made[1].load_state_dict(made[0].state_dict())
    same(*made, torch.randn(shape))
    base = getattr(FunctionalConvolution, name[:-2])
    assert isinstance(made[1], base)
    with pytest.raises(TypeError, match=f"{name[:-2]}: has no number of axes"):
        base(*positions, **others)
    with pytest.raises(TypeError, match="arguments by position, takes"):
        ours(*range(20))


@pytest.mark.parametrize(("kernel", "stride", "height"), [(1, 1, 1), (4, 2, 3), (4, 1, 1)])
def test_transposed_convolutions_by_class_are_the_peers(kernel, stride, height):
    made, name = [], "PiecewisePolynomialConvolutionTranspose2d"
    for module in (peer("FunctionalConvolutionTranspose"), FunctionalConvolutionTranspose):
        torch.manual_seed(0)
        made.append(getattr(module, name)(3, 4, 2, kernel, out_channels=3, stride=stride, segment=1))
    assert torch.equal(made[0].conv.weight, made[1].conv.weight)
    x = torch.randn(1, 2, height, 3)
    same(*made, x)
    assert made[1](x).shape == (1, 3, stride * (height - 1) + kernel, stride * 2 + kernel)
    assert isinstance(made[1], named.PiecewisePolynomialConvolutionTranspose)
    assert named.convolutional_transpose_layers["continuous2d"] is type(made[1])


@pytest.mark.parametrize("rescale", [False, True])
def test_torchs_convolutions_drawn_as_by_the_peer(rescale):
    sizes = {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2}
    settings = {**sizes, "weight_magnitude": 0.5, "rescale_output": rescale, "unknown": 1}
    for module in ("FunctionalConvolution", "FunctionalConvolutionTranspose"):
        name = "conv_wrapper" if module == "FunctionalConvolution" else "conv_transpose_wrapper"
        made = []
        for source in (peer(module), globals()[module]):
            torch.manual_seed(0)
            made.append(getattr(source, name)(**settings))
        assert str(made[0]) == str(made[1]) and torch.equal(made[0].weight, made[1].weight)
    weights = []
    for source in (peer("FunctionalConvolution"), FunctionalConvolution):
        torch.manual_seed(0)
        weights.append(nn.Parameter(torch.zeros(4, 6, 3, 2)))
        source.constant_random_initialization_conv2d(weights[-1], 3, 4, 6, 3, 2, 0.5, "cpu")
    assert torch.equal(*weights)


def test_constants_drawn_as_by_the_peer():
    weights = []
    for source in (peer("PolynomialLayers"), PolynomialLayers):
        torch.manual_seed(0)
        weights.append(nn.Parameter(torch.zeros(4, 6, 3)))
        source.constant_random_initialization(weights[-1], 4, 6, 0.5, "cpu")
    assert torch.equal(*weights)
    with pytest.raises(ValueError, match=r"w: got shape \(4, 6, 3\), needs \[6, 4, K\]"):
        PolynomialLayers.constant_random_initialization(weights[1], 6, 4, 0.5)


def test_a_step_of_sparse_lion_by_function():
    made = []
    for source in (importlib.import_module(peer("sparse_optimizers").__name__ + ".sparse_lion"), sparse_lion):
        torch.manual_seed(0)
        p, grad, average = torch.randn(5), torch.randn(5), torch.randn(5)
        source.update_fn(p, grad, average, 0.1, 0.0, 0.9, 0.99, grad > 0)
        made.append(torch.stack([p, average]))
    assert difference(made[1], made[0]) < 1e-6 and sparse_lion.exists(0) and not sparse_lion.exists(None)


B, Q, V, D = 3, 4, 5, 8
MASK = torch.arange(B * Q * V).view(B, Q, V) % 3 == 0


def seen(*shape):
    return torch.randn(shape)


ATTENTIONS = {
    "ScaledDotProductAttention": [
        ((D,), lambda: (seen(B, Q, D), seen(B, V, D), seen(B, V, D))),
        ((D,), lambda: (seen(B, Q, D), seen(B, V, D), seen(B, V, D), MASK)),
    ],
    "DotProductAttention": [((D,), lambda: (seen(B, Q, D), seen(B, V, D)))],
    "AdditiveAttention": [((D,), lambda: (seen(B, 1, D), seen(B, V, D), seen(B, V, D)))],
    "LocationAwareAttention": [
        ((D,), lambda: (seen(B, 1, D), seen(B, V, D), None)),
        ((D, False), lambda: (seen(B, 1, D), seen(B, V, D), seen(B, V))),
    ],
    "MultiHeadLocationAwareAttention": [
        ((D, 4), lambda: (seen(B, 1, D), seen(B, V, D), None)),
        ((D, 4, 3), lambda: (seen(B, 1, D), seen(B, V, D), seen(B, 4, V))),
    ],
    "MultiHeadAttention": [
        ((D, 4), lambda: (seen(B, Q, D), seen(B, V, D), seen(B, V, D))),
        ((D, 4), lambda: (seen(B, Q, D), seen(B, V, D), seen(B, V, D), MASK)),
    ],
    "RelativeMultiHeadAttention": [
        ((D, 4, 0.0), lambda: tuple(seen(B, V, D) for _ in range(4))),
        ((D, 2, 0.0), lambda: (*(seen(B, V, D) for _ in range(4)), MASK[:, :1])),
    ],
}


@pytest.mark.parametrize(
    ("name", "arguments", "inputs"), [(name, *case) for name, cases in ATTENTIONS.items() for case in cases]
)
def test_attention_is_the_peers(name, arguments, inputs):
    made, results, given = [], [], inputs()
    for module in (peer("attentions"), attentions):
        torch.manual_seed(0)
        made.append(getattr(module, name)(*arguments))
    theirs, ours = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    results = [module(*given) for module in made]
    pairs = zip(*results, strict=True) if isinstance(results[0], tuple) else [results]
    for expected, actual in pairs:
        assert difference(actual, expected) < 1e-5


class _TwoArguments(nn.Module):
    """What the peer's CustomizingAttention takes its attention for."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, query, value):
        return self.attention(query, value, value)


def test_customizing_attention_works():
    made = []
    for module in (peer("attentions"), attentions):
        torch.manual_seed(0)
        made.append(module.CustomizingAttention(D, 4, 3))
    theirs, ours = made
    query, value, last = seen(B, 1, D), seen(B, V, D), torch.rand(B * 4, V)
    with pytest.raises(TypeError):
        theirs(query, value, None)
    theirs.scaled_dot_attn = _TwoArguments(theirs.scaled_dot_attn)
    for before in (None, last):
        context, attention = ours(query, value, before)
        assert difference(context, theirs(query, value, before)[0]) < 1e-5
        assert attention.shape == (B * 4, V) and difference(attention.sum(-1), torch.ones(B * 4)) < 1e-6
    first = theirs(query, value, last)[1].view(4, B, V).transpose(0, 1)  # the peer's has heads first
    assert difference(attention.view(B, 4, V), first) < 1e-5
    assert ours(query, value, attention)[1].shape == attention.shape
    with pytest.raises(ValueError, match="num_heads: got 3, needs to divide d_model = 8"):
        attentions.MultiHeadAttention(D, 3)
