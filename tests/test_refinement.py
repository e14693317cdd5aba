"""Refinement and conversion: the same outputs, every kind; what does not fit raises; lines; smoothing."""

import random

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused.conv_layers import convolutions, transposed_convolutions
from high_order_fused.kan import KAN, KANLinear
from high_order_fused.layers import fc_layers, high_order_convolution_layers, high_order_fc_layers
from high_order_fused.refinement import conversion, initialize_linear, line, refine, smooth
from tests.support import difference

B = hof.bases
SAME = {  # every function of the first is one of the second
    "p": (B.piecewise_lagrange(3, 4), B.piecewise_lagrange(5, 4)),
    "h": (B.piecewise_lagrange(3, 2), B.piecewise_lagrange(3, 6)),
    "hp": (B.piecewise_lagrange(2, 3), B.piecewise_lagrange(4, 9)),
    "from constants": (
        B.piecewise_lagrange(1, 2, continuous=False),
        B.piecewise_lagrange(3, 4, continuous=False),
    ),
    "discontinuous hp": (
        B.piecewise_lagrange(3, 2, continuous=False),
        B.piecewise_lagrange(4, 6, continuous=False),
    ),
    "continuous to discontinuous": (B.piecewise_lagrange(3, 2), B.piecewise_lagrange(3, 4, continuous=False)),
    "polynomial": (B.lagrange(4), B.lagrange(9)),
    "polynomial to pieces": (B.lagrange(4), B.piecewise_lagrange(4, 3)),
    "families": (B.chebyshev(5), B.legendre(7)),
    "powers": (B.monomial(3), B.monomial(6)),
    "frequencies": (B.fourier(4), B.fourier(9)),
    "knots inserted": (B.bspline(3, 5), B.bspline(3, 15)),
    "degree raised": (B.bspline(2, 1), B.bspline(4, 1)),
    "splines to pieces": (B.bspline(3, 5), B.piecewise_lagrange(4, 5)),
}


def inside(*shape, dtype=torch.float64):
    return 1.9 * torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3)) - 0.95


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", SAME)
def test_the_same_functions(case, dtype, tolerance):
    source, target = SAME[case]
    for kind in (hof.HighOrderLinear, hof.HighOrderProduct):
        ours, finer = kind(3, 4, source, dtype=dtype), kind(3, 4, target, dtype=dtype)
        nn.init.normal_(ours.weight, std=0.3)
        assert refine(ours, finer) is finer
        x = inside(200, 3, dtype=dtype)
        assert difference(finer(x), ours(x)) < tolerance


def test_splines_of_other_grids_and_whole_networks_of_them():
    source, target = KAN([3, 5, 2], grid_size=4), KAN([3, 5, 2], grid_size=12)
    source.double(), target.double()
    refine(source, target)
    x = inside(50, 3)
    assert difference(source.layers[0](x), target.layers[0](x)) < 1e-6  # of grids in float32
    wide, fine = KANLinear(3, 2, grid_size=5, spline_order=2), KANLinear(3, 2, grid_size=5, spline_order=2)
    wide.update_grid(inside(60, 3, dtype=torch.float32))
    with pytest.raises(ValueError, match="target: got interval"):
        refine(wide, fine)
    fine.grid.copy_(wide.grid)
    refine(wide, fine)
    assert difference(fine(x.float()), wide(x.float())) < 1e-5


@pytest.mark.parametrize("kind", ["continuous", "discontinuous", "continuous_prod", "discontinuous_prod"])
@pytest.mark.parametrize("sizes", [((3, 2), (3, 4)), ((2, 3), (5, 3)), ((3, 2), (4, 8))])
def test_piecewise_layers_of_the_peers_names(kind, sizes):
    made = [high_order_fc_layers(kind, n=n, segments=m, in_features=3, out_features=4) for n, m in sizes]
    nn.init.normal_(made[0].w, std=0.3)
    refine(*made)
    x = inside(300, 3, dtype=torch.float32) * 1.2
    assert difference(made[1](x), made[0](x)) < 1e-5


@pytest.mark.parametrize(
    "kind", ["continuous2d", "discontinuous2d", "polynomial2d", "fourier2d", "continuous1d"]
)
def test_convolutions(kind):
    sizes = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1, "groups": 1}
    made = [high_order_convolution_layers(kind, n=n, segments=m, **sizes) for n, m in ((3, 2), (5, 4))]
    nn.init.normal_(made[0].conv.weight)
    refine(*made)
    x = (
        inside(2, 2, 6, 5, dtype=torch.float32)
        if kind.endswith("2d")
        else inside(2, 2, 9, dtype=torch.float32)
    )
    assert difference(made[1](x), made[0](x)) < 1e-5
    ours = [hof.HighOrderConv2d(2, 3, 3, B.bspline(2, segments), stride=2) for segments in (2, 4)]
    nn.init.normal_(ours[0].weight)
    refine(*ours)
    x = inside(2, 2, 6, 5, dtype=torch.float32)
    assert difference(ours[1](x), ours[0](x)) < 1e-5
    with pytest.raises(ValueError, match=r"target: got .'kind'"):
        refine(made[0], high_order_convolution_layers("continuous_prod2d", n=5, segments=4, **sizes))
    with pytest.raises(ValueError, match=r"target: got .*stride"):
        refine(ours[0], hof.HighOrderConv2d(2, 3, 3, B.bspline(2, 2)))


ROWS = {"in_features": 3, "out_features": 4, "dimensions": 2}
IMAGES = {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2, "groups": 2}
OTHERS = ("baseline", "baseline_relu", "kan")  # no functions on edges; knots below
LAYERS = [(make, kind, ROWS) for kind, make in fc_layers.items() if kind not in OTHERS]
LAYERS += [
    (make, kind, IMAGES) for kinds in (convolutions, transposed_convolutions) for kind, make in kinds.items()
]


def size(kind):
    """Of inputs for a layer."""
    if kind in convolutions:
        return (2, 2, *(7,) * int(kind[-2]))
    variables = kind.removesuffix("d").rpartition("_")[2] if kind.endswith("d") else ""
    return (40, 3, int(variables)) if variables.isdigit() else (40, 3, 2) if kind.endswith("nd") else (40, 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("make", "kind", "sizes"), LAYERS)
def test_every_kind_of_layer(make, kind, sizes, dtype, tolerance):
    known = sizes if "_nd" in kind else {key: value for key, value in sizes.items() if key != "dimensions"}
    source, target = (make(n=n, segments=segments, **known).to(dtype) for n, segments in ((3, 2), (5, 4)))
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.3)
    refine(source, target)
    x = inside(*size(kind), dtype=dtype)
    assert difference(target(x), source(x)) < tolerance


@pytest.mark.parametrize("scaler", [True, False])
def test_splines_with_knots_inserted_in_double(scaler):
    source, target = (
        KANLinear(3, 4, grid_size, enable_standalone_scale_spline=scaler).double() for grid_size in (5, 15)
    )
    for layer in (source, target):  # whose knots are otherwise rounded to float32
        step = 2 / layer.grid_size
        layer.grid.copy_(-1 + step * (torch.arange(layer.grid.shape[1], dtype=torch.float64) - 3))
    nn.init.normal_(source.spline_weight)
    refine(source, target)
    x = inside(50, 3)
    assert difference(target(x), source(x)) < 1e-11


def test_several_variables():
    made = [
        hof.HighOrderLinearND(2, 3, [B.piecewise_lagrange(n, m), B.fourier(2 * n - 1)])
        for n, m in ((2, 2), (4, 4))
    ]
    nn.init.normal_(made[0].weight)
    refine(*made)
    x = inside(40, 2, 2, dtype=torch.float32)
    assert difference(made[1](x), made[0](x)) < 1e-5
    planes = [high_order_fc_layers("polynomial_2d", n=n, in_features=2, out_features=3) for n in (2, 4)]
    nn.init.normal_(planes[0].w)
    refine(*planes)
    assert difference(planes[1](x), planes[0](x)) < 1e-5


def network(n, segments):
    return nn.Sequential(
        high_order_fc_layers("continuous", n=n, segments=segments, in_features=3, out_features=8),
        nn.BatchNorm1d(8),
        high_order_fc_layers("switch_discontinuous", n=n, segments=segments, in_features=8, out_features=4),
        nn.Tanh(),
        nn.Linear(4, 4),
        nn.Sequential(hof.HighOrderProduct(4, 2, B.lagrange(n))),
    )


def test_whole_networks():
    source, target = network(3, 2).eval(), network(4, 4).eval()
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.2)
    source[1].running_mean.normal_()
    refine(source, target)
    x = inside(50, 3, dtype=torch.float32)
    assert difference(target(x), source(x)) < 1e-5


def test_what_cannot_be_refined_raises_and_changes_nothing():
    source, target = network(4, 4), network(3, 4)
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(ValueError, match="needs a basis that holds the functions of piecewise_lagrange"):
        refine(source, target)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), before, strict=True))
    for a, b in [
        (B.piecewise_lagrange(3, 2), B.piecewise_lagrange(3, 3)),
        (B.piecewise_lagrange(3, 2, continuous=False), B.piecewise_lagrange(3, 4)),
        (B.fourier(5), B.lagrange(9)),
        (B.fourier(5), B.fourier(4)),
        (B.bspline(3, 4), B.bspline(2, 8)),
    ]:
        with pytest.raises(ValueError, match="target: got"):
            conversion(a, b)
    with pytest.raises(ValueError, match="got interval"):
        refine(
            hof.HighOrderLinear(1, 1, B.lagrange(3)), hof.HighOrderLinear(1, 1, B.lagrange(3, (-2.0, 2.0)))
        )
    with pytest.raises(ValueError, match=r"got edges \(4, 3\), needs \(2, 3\)"):
        refine(hof.HighOrderLinear(3, 2, B.lagrange(3)), hof.HighOrderLinear(3, 4, B.lagrange(3)))
    with pytest.raises(ValueError, match="kind"):
        refine(hof.HighOrderLinear(3, 2, B.lagrange(3)), hof.HighOrderProduct(3, 2, B.lagrange(3)))
    with pytest.raises(TypeError, match="target at 1: got Linear, needs a layer or network like ReLU"):
        refine(nn.Sequential(nn.Tanh(), nn.ReLU()), nn.Sequential(nn.Tanh(), nn.Linear(2, 2)))


def test_a_coarser_curve_meets_the_finer_at_its_nodes():
    source, target = B.piecewise_lagrange(4, 4), B.piecewise_lagrange(3, 2)
    w = torch.randn(source.size, dtype=torch.float64)
    coarse = conversion(source, target, exact=False) @ w
    nodes = torch.cat([(B.lobatto(3) - 1) / 2, (B.lobatto(3)[1:] + 1) / 2])
    assert difference(coarse, source.tabulate(nodes) @ w) < 1e-12


def test_layers_of_the_size_of_mnist():
    made = [
        high_order_fc_layers("continuous", n=n, segments=4, in_features=784, out_features=128) for n in (3, 4)
    ]
    refine(*made)
    x = inside(4, 784, dtype=torch.float32)
    assert difference(made[1](x), made[0](x)) < 1e-5


def test_lines():
    layer = high_order_fc_layers("continuous", n=3, segments=2, in_features=2, out_features=1)
    random.seed(0)
    initialize_linear(layer, 1.0, 0.5)
    expected = torch.tensor([-0.430889, -0.086467, 0.257954, 0.602376, 0.946798])
    torch.testing.assert_close(layer.w[0, 0], expected, rtol=0, atol=1e-6)
    for basis in (B.bspline(3, 5), B.chebyshev(4), B.piecewise_lagrange(2, 3, continuous=False)):
        ours = hof.HighOrderLinear(3, 2, basis).double()
        initialize_linear(nn.Sequential(ours, nn.Tanh()), 2.0, 1.0)
        x = inside(9, 3)
        a, b, c = ours(x), ours(x + 0.02), ours(x + 0.04)
        assert difference(c - b, b - a) < 1e-9 and (b - a).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs one that holds straight lines"):
        initialize_linear(hof.HighOrderLinear(3, 2, B.fourier(5)))
    with pytest.raises(TypeError, match="model: got Linear"):
        initialize_linear(nn.Linear(2, 2))


def test_smoothing():
    layer = high_order_fc_layers("discontinuous", n=3, segments=2, in_features=1, out_features=1)
    layer.w.data = torch.arange(6.0).view(1, 1, 6)
    smooth(layer, 0.5)
    assert layer.w.flatten().tolist() == [0, 1, 2.25, 2.75, 4, 5]
    smooth(layer, 1.0)
    assert layer.w[0, 0, 2] == layer.w[0, 0, 3]
    with pytest.raises(ValueError, match="needs at least 2 nodes"):
        smooth(high_order_fc_layers("discontinuous", n=1, segments=2, in_features=1, out_features=1), 1.0)


@pytest.mark.parametrize("method", ["interpolate", "refine"])
@pytest.mark.parametrize("sizes", [((2, 3), (4, 3)), ((3, 2), (5, 2)), ((5, 2), (3, 2)), ((1, 2), (3, 2))])
@pytest.mark.parametrize("kind", ["continuous", "discontinuous"])
def test_the_peers_methods(kind, sizes, method):
    peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")
    if kind == "discontinuous" and method == "refine":
        pytest.skip("the peer raises")
    results = []
    for make in (peer.high_order_fc_layers, high_order_fc_layers):
        torch.manual_seed(0)
        made = [make(layer_type=kind, n=n, segments=m, in_features=2, out_features=3) for n, m in sizes]
        nn.init.normal_(made[0].w)
        getattr(made[0], method)(made[1])
        results.append(made[1].w)
    assert difference(results[1], results[0]) < 1e-5


def test_switches_have_them_too():
    made = [
        high_order_fc_layers("switch_continuous", n=n, segments=2, in_features=2, out_features=3)
        for n in (2, 4)
    ]
    made[0].initialize(1.0, 0.5)
    x = inside(20, 2, dtype=torch.float32)
    for method in ("interpolate", "refine"):
        made[1].initialize(1.0, 0.5)
        assert difference(made[1](x), made[0](x)) > 1e-2
        getattr(made[0], method)(made[1])
        assert difference(made[1](x), made[0](x)) < 1e-5
    other = high_order_fc_layers("switch_continuous", n=4, segments=3, in_features=2, out_features=3)
    with pytest.raises(ValueError, match="layer_out: got 3 segments, needs 2"):
        made[0].interpolate(other)


def test_conversions_do_not_follow_the_default_device():
    source, target = SAME["knots inserted"]
    usual = conversion(source, target)
    with torch.device("meta"):
        assert torch.equal(conversion(source, target), usual)
        assert line(source).device.type == "cpu"


def test_what_stands_beside_the_edges_is_compared_and_copied_too():
    """Base activations, biases, settings of modules without edges: nothing differs in silence."""
    with pytest.raises(
        TypeError, match="target at base_activation: got Tanh, needs a layer or network like SiLU"
    ):
        refine(KANLinear(3, 2), KANLinear(3, 2, 10, base_activation=nn.Tanh))
    source, target = (KANLinear(3, 2, size, base_activation=nn.PReLU) for size in (5, 10))
    nn.init.constant_(source.base_activation.weight, 0.7)
    refine(source, target)
    x = 2 * torch.rand(20, 3) - 1
    assert difference(target(x), source(x)) < 1e-5
    with pytest.raises(ValueError, match=r"target: got tensors \['weight'\], needs \['bias', 'weight'\]"):
        refine(nn.Linear(3, 2), nn.Linear(3, 2, bias=False))
    with pytest.raises(ValueError, match=r"target: got {'alpha': 0.3}, needs {'alpha': 1.0}"):
        refine(*(high_order_fc_layers("product", in_features=3, out_features=2, alpha=a) for a in (1.0, 0.3)))
    with pytest.raises(ValueError, match=r"target: got {'dilation': 2}, needs {'dilation': 1}"):
        refine(nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3, dilation=2))
    with pytest.raises(
        ValueError, match=r"target at 1: got {'negative_slope': 0.5}, needs {'negative_slope': 0.1}"
    ):
        refine(*(nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(slope)) for slope in (0.1, 0.5)))
    basis = hof.bases.piecewise_lagrange(3, 2)
    refine(
        hof.HighOrderConv2d(3, 2, 3, basis, padding=1), hof.HighOrderConv2d(3, 2, 3, basis, padding=(1, 1))
    )


def test_functions_of_every_size_are_converted():
    """Powers on [0, 1000] differ by 18 orders of magnitude; each counts by its own size."""
    few, many = (hof.bases.monomial(degree, (0, 1000)) for degree in (6, 8))
    x = torch.linspace(0, 1000, 50, dtype=torch.float64)[:, None]
    wanted = few.tabulate(x)
    apart = (many.tabulate(x) @ conversion(few, many) - wanted).abs().amax((0, 1))
    assert (apart < 1e-9 * wanted.amax((0, 1))).all()
    with pytest.raises(ValueError, match="needs a basis that holds"):
        conversion(hof.bases.monomial(3, (-1e-3, 1e-3)), hof.bases.monomial(2, (-1e-3, 1e-3)))
    for one, other in (((1e6, 1e6 + 1), (1e6 + 5, 1e6 + 6)), ((0, 1e-6), (0, 2e-6))):
        with pytest.raises(ValueError, match="got interval"):
            refine(*(hof.HighOrderLinear(2, 2, hof.bases.monomial(2, at)) for at in (one, other)))


def test_lines_begin_everywhere_or_nowhere():
    model = nn.Sequential(
        high_order_fc_layers("continuous", n=3, in_features=2, out_features=2, segments=2),
        high_order_fc_layers("fourier", n=3, in_features=2, out_features=2),
    )
    before = model[0].w.clone()
    with pytest.raises(ValueError):
        initialize_linear(model)
    assert torch.equal(model[0].w, before)


def test_only_jumps_are_smoothed():
    with pytest.raises(TypeError, match="got PiecewisePolynomial, needs a discontinuous piecewise layer"):
        smooth(high_order_fc_layers("continuous", n=3, in_features=2, out_features=2, segments=2), 0.5)


def test_polynomial_mlps_layer_is_refined():
    source, target = (hof.layers.PolynomialLayer(3, 2, degree) for degree in (2, 4))
    refine(source, target)
    x = torch.randn(10, 3)
    assert difference(target(x), source(x)) < 1e-6
    with pytest.raises(ValueError, match="'dense': False"):
        refine(source, hof.layers.PolynomialLayer(3, 2, 2, dense=False))
