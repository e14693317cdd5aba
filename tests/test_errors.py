"""A bad argument raises at once and says its name, what it got and what it needs."""

import pytest
import torch

import high_order_fused as hof
from high_order_fused import bases
from high_order_fused.functional import link, link_nd, product, sum_batch, sum_inputs, sum_outputs
from high_order_fused.kan import KAN, KANLinear
from high_order_fused.layers import PolynomialLayer, PRePU, high_order_fc_layers

BASIS = bases.lagrange(3)
X, W = torch.rand(4, 2), torch.rand(2, 3, 5)


def tabulated(shape=(1, 2, 2, 2), start=(0, 2), one=4):
    values = torch.ones(shape, dtype=torch.float64)
    return bases.tabulated("two(", values, torch.tensor(start).long(), one=torch.ones(one).double())


CONSTRUCTION = [
    (lambda: bases.lagrange(0), ValueError, "n: got 0, needs an int of at least 1"),
    (lambda: bases.lagrange(2.0), TypeError, "n: got 2.0, needs an int"),
    (lambda: bases.lagrange(True), TypeError, "n: got True, needs an int"),
    (lambda: bases.fourier(-1), ValueError, "n: got -1"),
    (lambda: bases.fourier(3, outside="linear"), ValueError, "outside: got 'linear', needs 'extrapolate'"),
    (lambda: bases.monomial(-1), ValueError, "degree: got -1, needs an int of at least 0"),
    (lambda: bases.chebyshev(-1), ValueError, "degree: got -1"),
    (lambda: bases.legendre(None), TypeError, "degree: got None"),
    (lambda: bases.piecewise_lagrange(3, 0), ValueError, "segments: got 0"),
    (lambda: bases.piecewise_lagrange(3, None), TypeError, "segments: got None"),
    (lambda: bases.bspline(3, 0), ValueError, "segments: got 0"),
    (lambda: bases.lagrange(3, (1, 1)), ValueError, r"interval: got \(1.0, 1.0\), needs finite low < high"),
    (lambda: bases.lagrange(3, (0, float("nan"))), ValueError, "interval: got"),
    (lambda: bases.lagrange(3, (0, float("inf"))), ValueError, "interval: got"),
    (lambda: bases.lagrange(3, 2), ValueError, "interval: got 2, needs two numbers"),
    (
        lambda: bases.lagrange(3, outside="wrap"),
        ValueError,
        "outside: got 'wrap', needs one of 'extrapolate', 'linear'",
    ),
    (
        lambda: bases.bspline(1, knots=torch.tensor([0.0, 1, 1, 2])),
        ValueError,
        "knots: got values that do not increase",
    ),
    (lambda: bases.bspline(1, knots=torch.tensor([0.0, 1, torch.nan, 2])), ValueError, "knots: got"),
    (lambda: bases.bspline(1, knots=torch.tensor([0.0, 1, 2, torch.inf])), ValueError, "knots: got"),
    (
        lambda: bases.bspline(3, knots=torch.arange(7.0)),
        ValueError,
        r"knots: got 7 of them, needs at least 2 degree \+ 2 = 8",
    ),
    (lambda: bases.bspline(1, knots=torch.ones(2, 2, 2)), ValueError, r"knots: got shape \(2, 2, 2\)"),
    (
        lambda: bases.piecewise_lagrange(2, 3, knots=torch.arange(3.0)),
        ValueError,
        r"knots: got 3 of them, needs segments \+ 1 = 4",
    ),
    (lambda: tabulated(start=[[0, 2]]), ValueError, r"start: got shape \(1, 2\), needs \[segments\]"),
    (lambda: tabulated(start=[]), ValueError, r"start: got shape \(0,\), needs \[segments\]"),
    (lambda: tabulated(start=[0, -1]), ValueError, "start: got -1, needs none below 0"),
    (
        lambda: tabulated((1, 3, 2, 2)),
        ValueError,
        r"values: got shape \(1, 3, 2, 2\), needs \[features or 1, 2 or 1, n, points\] for start of 2",
    ),
    (lambda: tabulated((2, 2)), ValueError, r"values: got shape \(2, 2\), needs \[features or 1"),
    (lambda: tabulated(one=3), ValueError, r"one: got shape \(3,\), needs \[4\], max\(start\) \+ n"),
    (lambda: hof.HighOrderLinear(0, 2, BASIS), ValueError, "in_features: got 0"),
    (lambda: hof.HighOrderLinear(2, 2.5, BASIS), TypeError, "out_features: got 2.5"),
    (lambda: hof.HighOrderLinear(2, 2, "lagrange"), TypeError, "basis: got str, needs a Basis"),
    (lambda: hof.HighOrderLinear(2, 2, BASIS.derivative()), ValueError, "basis: got .*derivative"),
    (
        lambda: hof.HighOrderLinear(2, 2, bases.bspline(1, knots=torch.arange(6.0).expand(3, -1))),
        ValueError,
        "basis: got knots for 3 features, needs one row or 2",
    ),
    (
        lambda: high_order_fc_layers("spline", n=3),
        ValueError,
        "layer_type: got 'spline', needs one of 'continuous'",
    ),
    (
        lambda: high_order_fc_layers("continuous", n=0, in_features=1, out_features=1, segments=2),
        ValueError,
        "n: got 0",
    ),
    (
        lambda: high_order_fc_layers("discontinuous", n=2, in_features=1, out_features=1, segments=0),
        ValueError,
        "segments: got 0",
    ),
    (
        lambda: high_order_fc_layers("polynomial", n=2, in_features=0, out_features=1),
        ValueError,
        "in_features: got 0",
    ),
    (lambda: high_order_fc_layers("fourier", n=0, in_features=1, out_features=1), ValueError, "n: got 0"),
    (lambda: PolynomialLayer(2, 3, -1), ValueError, "polynomial_degree: got -1"),
    (lambda: PRePU(0), ValueError, "num_features: got 0"),
    (lambda: KANLinear(2, 3, grid_size=0), ValueError, "grid_size: got 0"),
    (lambda: KANLinear(2, 3, spline_order=-1), ValueError, "spline_order: got -1"),
    (lambda: KANLinear(2, 3, grid_range=[1, -1]), ValueError, "grid_range: got"),
    (
        lambda: KANLinear(2, 3, base_activation="silu"),
        TypeError,
        "base_activation: got str, needs a function",
    ),
    (lambda: hof.refinement.refine(1, torch.nn.ReLU()), TypeError, "source: got int, needs a module"),
    (lambda: KAN([2, 0, 1]), ValueError, "out_features: got 0"),
]
CALLS = [
    (lambda: link(X.numpy(), W, BASIS), TypeError, "x: got ndarray, needs a tensor"),
    (lambda: link(X, None, BASIS), TypeError, "weight: got NoneType, needs a tensor"),
    (lambda: link(X.long(), W, BASIS), TypeError, "x: got torch.int64, needs float32"),
    (
        lambda: link(X.double(), W, BASIS),
        TypeError,
        "weight: got torch.float32, needs that of x, torch.float64",
    ),
    (
        lambda: link(X.bfloat16(), W, BASIS),
        TypeError,
        "weight: got torch.float32, needs that of x, torch.bfloat16",
    ),
    (
        lambda: link(X, W.double(), BASIS),
        TypeError,
        "weight: got torch.float64, needs that of x, torch.float32",
    ),
    (lambda: link(X, W.to("meta"), BASIS), ValueError, "weight: got device meta, needs that of x, cpu"),
    (lambda: link(X, W[0], BASIS), ValueError, r"weight: got shape \(3, 5\), needs \[in, K, out\]"),
    (lambda: link(X, W[:, :2], BASIS), ValueError, "weight: got shape .*, needs K = 3"),
    (lambda: link(X[:, :1], W, BASIS), ValueError, r"x: got shape .*, needs \[..., 2\] for weight"),
    (lambda: link(X[0, 0], W, BASIS), ValueError, r"x: got shape \(\), needs \[..., in\]"),
    (lambda: link(X, W.expand(3, -1, -1, -1), BASIS), ValueError, r"x: got shape .*, needs \[3, ..., 2\]"),
    (lambda: link(X, W, BASIS, X[0]), ValueError, r"scale: got shape \(2,\), needs that of x"),
    (lambda: link(X, W, BASIS, X.double()), TypeError, "scale: got torch.float64, needs that of x"),
    (lambda: link(X, W, BASIS, gain=X), ValueError, r"gain: got shape .*, needs \[in, out\] of weight"),
    (lambda: link(X, W, BASIS, gain=[1.0]), TypeError, "gain: got list, needs a tensor"),
    (
        lambda: link(X, W.half(), BASIS, gain=torch.ones(2, 5)),
        TypeError,
        "gain: got torch.float32, needs that of weight, torch.float16",
    ),
    (lambda: link(X, W, BASIS, base=X), ValueError, "base_weight: got None with base"),
    (lambda: link(X, W, BASIS, base_weight=X), ValueError, r"base_weight: got shape \(4, 2\)"),
    (
        lambda: link(X, W, BASIS, base=X[:1], base_weight=W[:, 0].mT),
        ValueError,
        r"base: got shape \(1, 2\), needs that of x, \(4, 2\)",
    ),
    (
        lambda: link(X, W, BASIS, base=X, base_weight=W[:, 0]),
        ValueError,
        r"base_weight: got shape \(2, 5\), needs \(5, 2\) for weight",
    ),
    (
        lambda: link(X, W.half(), BASIS, base=X, base_weight=W[:, 0].mT.half()),
        TypeError,
        "base: got torch.float32, needs that of weight, torch.float16",
    ),
    (lambda: sum_inputs(X, W, BASIS), ValueError, r"x: got shape \(4, 2\), needs \[groups, batch, in\]"),
    (lambda: sum_inputs(X[None], W, BASIS), ValueError, "w: got shape"),
    (lambda: sum_inputs(X[None], W[None], BASIS, X), ValueError, "s: got shape"),
    (
        lambda: sum_outputs(X[None], W[None], BASIS, X[None]),
        ValueError,
        r"g: got shape \(1, 4, 2\), needs \[1, 4, 5\]",
    ),
    (lambda: sum_batch(X[None], X[None, :2], BASIS), ValueError, "g: got shape"),
    (
        lambda: link(X, W, bases.piecewise_lagrange(2, 2, knots=torch.arange(3.0).expand(3, -1))),
        ValueError,
        "basis: got knots for 3 features, needs one row or 2",
    ),
    (
        lambda: bases.bspline(1, knots=torch.arange(6.0).expand(3, -1)).tabulate(X),
        ValueError,
        "x: got shape .* 3 features",
    ),
    (lambda: hof.HighOrderLinear(2, 3, BASIS)(torch.rand(4, 3)), ValueError, "x: got shape"),
    (lambda: PolynomialLayer(2, 3, 1)(torch.rand(4, 3)), ValueError, "x: got shape"),
    (
        lambda: PolynomialLayer(2, 3, 1, dense=False)(torch.rand(4, 3)),
        ValueError,
        r"x: got shape \(4, 3\), needs \[..., 2\]",
    ),
    (lambda: link(X, W, None), TypeError, "basis: got NoneType, needs a Basis"),
    (lambda: product(X, W, "lagrange"), TypeError, "basis: got str, needs a Basis"),
    (lambda: sum_inputs(X[None], W[None], None), TypeError, "basis: got NoneType, needs a Basis"),
    (lambda: hof.HighOrderLinearND(2, 3, BASIS), TypeError, "bases: got Basis, needs a sequence"),
    (lambda: link_nd(X[..., None], W, None), TypeError, "bases: got NoneType, needs a sequence"),
    (lambda: link_nd(X[..., None], W, [None]), TypeError, "bases: got NoneType, needs a Basis"),
    (lambda: KANLinear(2, 3)(X.tolist()), TypeError, "x: got list, needs a tensor"),
    (lambda: KANLinear(2, 3)(X.long()), TypeError, "x: got torch.int64, needs float32"),
    (lambda: KANLinear(2, 3).b_splines(X.long()), TypeError, "x: got torch.int64, needs float32"),
    (
        lambda: KANLinear(2, 3)(X.double()),
        TypeError,
        "x: got torch.float64, needs that of the layer, torch.float32",
    ),
    (
        lambda: KANLinear(2, 3).bfloat16()(X),
        TypeError,
        "x: got torch.float32, needs that of the layer, torch.bfloat16",
    ),
    (lambda: KANLinear(2, 3)(torch.rand(4, 3)), ValueError, r"x: got shape \(4, 3\), needs \[..., 2\]"),
    (lambda: KANLinear(2, 3).update_grid(X[:0]), ValueError, "x: got 0 rows"),
    (lambda: KANLinear(2, 3).update_grid(X * torch.nan), ValueError, "x: got 4 rows, 8 values not finite"),
    (
        lambda: KANLinear(2, 3).update_grid(X * 0, margin=0.0),
        ValueError,
        "margin: got 0.0 with constant data",
    ),
    (lambda: KANLinear(2, 3).curve2coeff(X, [1.0]), TypeError, "y: got list, needs a tensor"),
    (lambda: KANLinear(2, 3).curve2coeff([1.0], X), TypeError, "x: got list, needs a tensor"),
    (lambda: KANLinear(2, 3).curve2coeff(X, X), ValueError, r"y: got shape \(4, 2\), needs \(4, 2, 3\)"),
    (
        lambda: hof.use_backend("fast"),
        ValueError,
        "name: got 'fast', needs one of 'auto', 'reference'",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), CONSTRUCTION + CALLS)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_failed_grid_update_changes_nothing():
    layer = KANLinear(2, 3)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    with pytest.raises(ValueError):
        layer.update_grid(X * 0, margin=0.0)
    assert all(torch.equal(t, before[name]) for name, t in layer.state_dict().items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: hof.HighOrderLinear(2, 3, bases.piecewise_lagrange(3, 4)),
        lambda: high_order_fc_layers("continuous", n=3, in_features=2, out_features=3, segments=4),
        lambda: high_order_fc_layers("discontinuous", n=1, in_features=2, out_features=3, segments=4),
        lambda: high_order_fc_layers("fourier", n=1, in_features=2, out_features=3),
        lambda: PolynomialLayer(2, 3, 0),
        lambda: KANLinear(2, 3),
    ],
)
def test_nan_in_is_nan_out_in_its_row(make):
    x = torch.rand(5, 2)
    x[2, 1] = torch.nan
    y = make()(x)
    assert y[2].isnan().all() and y[[0, 1, 3, 4]].isfinite().all()
