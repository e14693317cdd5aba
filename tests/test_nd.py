"""Functions of several variables: explicit tensor products, the peer, derivatives."""

import io
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

import high_order_fused as hof
from high_order_fused.functional import link_nd
from high_order_fused.layers import high_order_fc_layers
from tests import cases, support
from tests.support import difference, golden, golden_names, sample, seeds


def explicit(x, w, bases):
    """Sum over all tuples of functions, in float64."""
    values = torch.ones(*x.shape[:-1], 1, dtype=torch.float64)
    for basis, variable in zip(bases, x.double().unbind(-1), strict=True):
        values = torch.einsum("...k,...l->...kl", values, basis.tabulate(variable)).flatten(-2)
    return torch.einsum("...ik,iko->...o", values, w.double())


MIXED = (
    hof.bases.piecewise_lagrange(3, 2),
    hof.bases.piecewise_lagrange(2, 3, continuous=False),
    hof.bases.fourier(3),
)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_piecewise_and_mixed_bases(dimensions, dtype, tolerance):
    bases = MIXED[:dimensions]
    x = cases.points(7, 2, 4, dimensions, dtype=dtype)
    w = cases.normal(4, math.prod(basis.size for basis in bases), 5, dtype=dtype)
    y = link_nd(x, w, bases)
    assert y.dtype == dtype and difference(y, explicit(x, w, bases)) < tolerance


SMOOTH = {
    "polynomial": [hof.bases.lagrange(3), hof.bases.fourier(3)],
    "piecewise": [hof.bases.piecewise_lagrange(3, 2), hof.bases.piecewise_lagrange(2, 3, continuous=False)],
}


def smooth(kind, rows=3, outputs=2):
    """Points between the knots, for finite differences."""
    bases = SMOOTH[kind]
    x = cases.points(rows, 2, 2, spread=0.8)
    knots = torch.cat([basis.knots.flatten() for basis in bases])
    near = (x[..., None] - knots).abs().amin(-1) < 1e-3
    x = torch.where(near, x + 3e-3, x).requires_grad_()
    return bases, x, cases.normal(2, math.prod(b.size for b in bases), outputs).requires_grad_()


@pytest.mark.parametrize("kind", SMOOTH)
def test_first_second_and_third_order(kind):
    bases, x, w = smooth(kind)
    function = lambda x, w: link_nd(x, w, bases)  # noqa: E731
    assert gradcheck(function, (x, w), check_forward_ad=True)
    assert gradgradcheck(function, (x, w))
    bases, x, w = smooth(kind, rows=2, outputs=1)

    def slope(x, w):
        return torch.autograd.grad(link_nd(x, w, bases).sin().sum(), x, create_graph=True)[0]

    assert gradgradcheck(slope, (x, w))


@pytest.mark.parametrize("kind", SMOOTH)
def test_transforms(kind):
    bases, x, w = smooth(kind)
    x, w = x.detach(), w.detach()
    f = lambda x: link_nd(x, w, bases)  # noqa: E731
    jacobian, tangent = jacrev(f)(x), torch.randn_like(x)
    assert difference(jacfwd(f)(x), jacobian) < 1e-12
    assert difference(jvp(f, (x,), (tangent,))[1], torch.einsum("bocde,cde->bo", jacobian, tangent)) < 1e-12
    assert difference(vmap(f)(x), f(x)) < 1e-12
    several = vmap(lambda w: link_nd(x, w, bases))(torch.stack([w, 2 * w]))
    assert difference(several[1], 2 * f(x)) < 1e-12
    second = hessian(lambda x: f(x).sum())(x)
    assert difference(second, second.movedim((0, 1, 2), (3, 4, 5))) < 1e-12


@pytest.mark.parametrize("kind", sample(["ours", "polynomial_2d", "continuous_nd"], 2))
def test_compile_and_export(kind):
    if kind == "ours":
        layer = hof.HighOrderLinearND(4, 3, MIXED[:2])
    else:
        layer = high_order_fc_layers(kind, n=3, in_features=4, out_features=3, segments=2)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    leaf = layer.weight if kind == "ours" else layer.w
    compiled = torch.compile(layer, fullgraph=True)
    for rows in (5, 9):
        x = (2 * torch.rand(rows, 4, 2) - 1).requires_grad_()
        for actual, expected in zip(
            (compiled(x), *torch.autograd.grad(compiled(x).sum(), (x, leaf))),
            (layer(x), *torch.autograd.grad(layer(x).sum(), (x, leaf))),
            strict=True,
        ):
            assert difference(actual, expected) < 1e-6
    program = torch.export.export(
        layer, (torch.rand(5, 4, 2),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    x = torch.rand(7, 4, 2)
    assert difference(torch.export.load(file).module()(x), layer(x)) < 1e-6


@pytest.mark.parametrize("continuous", [True, False])
def test_piecewise_layers_with_numbers_for_each_variable(continuous):
    kind = "continuous_nd" if continuous else "discontinuous_nd"
    layer = high_order_fc_layers(kind, n=[3, 2], in_features=4, out_features=5, segments=[2, 3])
    sizes = [5, 4] if continuous else [6, 6]
    assert layer.w.shape == (5, 4, math.prod(sizes)) and layer.dimensions == 2
    edge = torch.rand(1, 4, 2) * 0.5
    assert difference(layer(edge), layer.w[..., 0].sum(1)[None]) < 1e-6  # constants at first
    torch.nn.init.normal_(layer.w)
    x = cases.points(7, 4, 2, dtype=torch.float32)
    bases = [
        hof.bases.piecewise_lagrange(n, m, continuous=continuous, outside="extrapolate")
        for n, m in ((3, 2), (2, 3))
    ]
    assert difference(layer(x), explicit(x, layer.w.permute(1, 2, 0), bases)) < 1e-5
    across = torch.tensor([[[-1e-7, 0.2]], [[1e-7, 0.2]]]).expand(-1, 4, -1)
    jump = (layer(across)[0] - layer(across)[1]).abs().max()
    assert jump < 1e-4 if continuous else jump > 1e-3
    three = high_order_fc_layers(kind, n=2, in_features=1, out_features=1, segments=[2, 1, 3])
    assert three.dimensions == 3
    with pytest.raises(ValueError, match=r"n: got \[3, 2\], needs one number or 3"):
        high_order_fc_layers(kind, n=[3, 2], in_features=1, out_features=1, segments=[2, 1, 3])
    square = high_order_fc_layers("polynomial_2d", n=[3, 4], in_features=2, out_features=3)
    assert square.w.shape == (3, 2, 12)


def test_our_layer_begins_constant_and_keeps_its_bases():
    layer = hof.HighOrderLinearND(4, 3, MIXED[1:])
    x = cases.points(6, 4, 2, spread=0.9, dtype=torch.float32)
    y = layer(x)
    assert difference(y, y[:1].expand_as(y)) < 1e-5 and y.std() > 0
    with pytest.raises(ValueError, match="state dict: got coefficients of"):
        layer.load_state_dict(hof.HighOrderLinearND(4, 3, MIXED[::2]).state_dict(), strict=False)
    layer.load_state_dict(hof.HighOrderLinearND(4, 3, MIXED[1:]).state_dict())
    with pytest.raises(ValueError, match="bases: got"):
        hof.HighOrderLinearND(4, 3, [])


def test_bad_arguments():
    bases = [hof.bases.lagrange(3)] * 2
    with pytest.raises(ValueError, match=r"x: got shape \(7, 2, 3\), needs \[..., in, 2\]"):
        link_nd(torch.rand(7, 2, 3), torch.rand(2, 9, 4), bases)
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 8, 4\), needs \[2, 9, out\]"):
        link_nd(torch.rand(7, 2, 2), torch.rand(2, 8, 4), bases)
    own = hof.bases.bspline(2, knots=torch.linspace(-1, 1, 8).expand(2, -1))
    with pytest.raises(ValueError, match="bases: got knots of their own"):
        link_nd(torch.rand(7, 2, 2), torch.rand(2, 9, 4), [own, own])
    with pytest.raises(TypeError, match="dimensions: got 3"):
        high_order_fc_layers("polynomial_2d", n=3, in_features=1, out_features=1, dimensions=3)


@pytest.mark.parametrize("name", golden_names("hol-fc-polynomial_*d-*"))
def test_golden(name):
    meta, values = golden(name)
    layer = high_order_fc_layers(meta["layer_type"], **meta["kwargs"]).to(support.DEVICE)
    layer.load_state_dict(values["state"], strict=True)
    x = values["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(values["g"])
    assert difference(y, values["y"]) < 1e-5 and difference(x.grad, values["grad_x"]) < 1e-5
    assert difference(layer.w.grad, values["grad"]["w"]) < 1e-5


def test_by_hand():
    layer = high_order_fc_layers("polynomial_2d", n=3, in_features=1, out_features=1)
    layer.w.data = torch.arange(9.0).view(1, 1, 9)
    points = torch.tensor([[a, b] for a in (-1, 0.25, 1) for b in (-1, 0.5, 1)])[:, None]
    expected = torch.tensor([0, 1.5, 2, 3.75, 5.25, 5.75, 6, 7.5, 8])
    torch.testing.assert_close(layer(points)[:, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", seeds(400))
def test_live(seed):
    """100 random configurations for each number of variables."""
    peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")
    generator = torch.Generator().manual_seed(seed)

    def pick(*options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    dimensions = 2 + seed % 4
    arguments = {"n": pick(1, 2, 3) if dimensions > 3 else pick(1, 2, 3, 4, 5), "in_features": pick(1, 2, 5)}
    arguments |= {
        "out_features": pick(1, 3, 8),
        "periodicity": pick(None, 2.0),
        "length": pick(2.0, 2.0, 4.0),
    }
    arguments |= {"weight_magnitude": pick(1.0, 0.3), "initialize": pick("constant_random", "uniform")}
    kind = f"polynomial_{dimensions}d"
    torch.manual_seed(seed)
    theirs = peer.high_order_fc_layers(layer_type=kind, **arguments)
    torch.manual_seed(seed)
    ours = high_order_fc_layers(kind, **arguments)
    assert torch.equal(ours.w, theirs.w), "initialisation differs"
    torch.nn.init.normal_(theirs.w)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(pick(1, 4, 17), arguments["in_features"], dimensions, generator=generator) * 2.4 - 1.2
    # of one sign: gradients that nearly cancel would show rounding alone
    g = torch.rand(len(x), arguments["out_features"], generator=generator) + 0.5
    results = []
    for layer in (theirs, ours):
        point = x.clone().requires_grad_()
        y = layer(point)
        found = torch.autograd.grad(y, (point, layer.w), g, allow_unused=True)
        results.append((y, *(torch.zeros(()) if d is None else d for d in found)))
    for actual, expected in zip(results[1], results[0], strict=True):
        if expected.dim():
            assert difference(actual, expected) < 1e-5
