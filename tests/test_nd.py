"""Functions of several variables: explicit tensor products, the peer, derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import high_order_fused as hof
from high_order_fused.functional import link_nd
from high_order_fused.layers import high_order_fc_layers
from tests import cases, support
from tests.support import difference, golden, golden_names


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


def test_derivatives():
    bases = [hof.bases.lagrange(3), hof.bases.fourier(3)]
    x = cases.points(3, 2, 2).requires_grad_()
    w = cases.normal(2, 9, 2).requires_grad_()
    function = lambda x, w: link_nd(x, w, bases)  # noqa: E731
    assert gradcheck(function, (x, w), check_forward_ad=True)
    assert gradgradcheck(function, (x, w))


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


@pytest.mark.parametrize("seed", range(100))
def test_live(seed):
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
    results = []
    for layer in (theirs, ours):
        point = x.clone().requires_grad_()
        y = layer(point)
        found = torch.autograd.grad(y.sin().sum(), (point, layer.w), allow_unused=True)
        results.append((y, *(torch.zeros(()) if d is None else d for d in found)))
    for actual, expected in zip(results[1], results[0], strict=True):
        if expected.dim():
            assert difference(actual, expected) < 1e-5
