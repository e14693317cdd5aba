"""The code of docs/extending.md, run as it stands, against scipy."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import BPoly, CubicHermiteSpline

import high_order_fused as hof
from high_order_fused.bases import lobatto, tabulated
from high_order_fused.functional import conv, link


@pytest.fixture(scope="module")
def written():
    text = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    return names


@pytest.mark.parametrize("degree", [1, 3, 6])
def test_bernstein(written, degree):
    basis = written["bernstein"](degree, (0.5, 2.0), outside="extrapolate")
    x = np.linspace(0.5, 2, 40)
    for k in range(degree + 1):
        expected = BPoly(np.eye(degree + 1)[:, k : k + 1], [0.5, 2.0])(x)
        np.testing.assert_allclose(basis.tabulate(torch.from_numpy(x))[:, k], expected, atol=1e-13)


def test_hermite(written):
    basis = written["hermite"](4, (-1.0, 3.0))
    knots, rng, x = np.linspace(-1, 3, 5), np.random.default_rng(0), np.linspace(-1, 3, 60)
    values, slopes = rng.normal(size=5), rng.normal(size=5)
    spline = CubicHermiteSpline(knots, values, slopes)
    weight = torch.from_numpy(np.stack([values, slopes], 1).reshape(1, 10, 1))
    points = torch.from_numpy(x)[:, None].requires_grad_()
    y = link(points, weight, basis)
    np.testing.assert_allclose(y[:, 0].detach(), spline(x), atol=1e-12)
    (slope,) = torch.autograd.grad(y.sum(), points)
    np.testing.assert_allclose(slope[:, 0], spline(x, 1), atol=1e-11)


@pytest.mark.parametrize("make", [lambda w: w["bernstein"](5), lambda w: w["hermite"](3)])
def test_they_are_bases_like_any_other(written, make):
    basis = make(written)
    x = torch.rand(4, 2, dtype=torch.float64) * 2.6 - 1.3
    torch.testing.assert_close(basis.tabulate(x) @ basis.one, torch.ones_like(x))
    w = torch.randn(2, basis.size, 2, dtype=torch.float64, requires_grad=True)
    f = lambda x, w: link(x, w, basis)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x.requires_grad_(), w)) and torch.autograd.gradgradcheck(f, (x, w))


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_functions_of_very_different_size(name):
    """x beside x^3 and x^5 up to 100: its slope is no rounding error of theirs."""
    if not hof.backends()[name].available:
        pytest.skip(hof.backends()[name].detail)
    x = 100 * lobatto(6)
    values = torch.stack([x, x**3, x**5])
    basis = tabulated("odd", values[None, None], torch.zeros(1, dtype=torch.int64), interval=(-100, 100))
    points = torch.tensor([[0.5], [2.0], [-70.0]], requires_grad=True)
    image = torch.tensor([[[0.5, 2.0, 3.0], [1.0, 1.0, 1.0]]], requires_grad=True)
    first = torch.tensor([1.0, 0, 0])
    with hof.use_backend(name):
        y = link(points, first.view(1, 3, 1), basis)
        z = conv(image, first.view(1, 3, 1, 1).expand(2, 3, 1, 1).contiguous(), basis)
    torch.testing.assert_close(y, points, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z, image.sum(1, keepdim=True), rtol=1e-5, atol=1e-5)
    for given, result in ((points, y), (image, z)):
        (slope,) = torch.autograd.grad(result.sum(), given)
        torch.testing.assert_close(slope, torch.ones_like(slope))
