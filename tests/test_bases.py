"""Bases against numpy's and scipy's polynomials and splines, and the properties they promise."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline, lagrange

import high_order_fused as hof
from high_order_fused import bases, features
from high_order_fused.functional import link, pack
from tests import cases
from tests.support import difference

INSIDE = torch.linspace(-1, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("n", range(1, 11))
def test_lagrange_against_scipy(n):
    nodes = -np.cos(np.pi * np.arange(n) / (n - 1)) if n > 1 else np.zeros(1)
    values = bases.lagrange(n).tabulate(INSIDE)
    for j in range(n):
        expected = lagrange(nodes, np.eye(n)[j])(INSIDE.numpy())
        np.testing.assert_allclose(values[:, j], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("constructor", "vander"),
    [
        (bases.monomial, np.polynomial.polynomial.polyvander),
        (bases.chebyshev, np.polynomial.chebyshev.chebvander),
        (bases.legendre, np.polynomial.legendre.legvander),
    ],
)
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 7])
def test_polynomials_against_numpy(constructor, vander, degree):
    values = constructor(degree, outside="extrapolate").tabulate(1.3 * INSIDE)
    np.testing.assert_allclose(values, vander(1.3 * INSIDE.numpy(), degree), atol=1e-11)


def test_monomials_are_powers_of_x_in_any_interval():
    x = torch.linspace(1, 4, 50, dtype=torch.float64)
    np.testing.assert_allclose(
        bases.monomial(4, (1, 4)).tabulate(x), np.vander(x, 5, increasing=True), rtol=1e-12
    )


@pytest.mark.parametrize("n", range(1, 8))
def test_fourier_against_numpy(n):
    x = torch.linspace(-7, 9, 200, dtype=torch.float64)
    v = 2 * np.pi * (x.numpy() - 1) / 3
    terms = [0.5 + 0 * v] + [f(j * v) for j in range(1, 5) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(bases.fourier(n, (-0.5, 2.5)).tabulate(x), np.stack(terms[:n], -1), atol=1e-12)


@pytest.mark.parametrize("degree", range(6))
def test_bspline_against_scipy(degree):
    rng = np.random.default_rng(0)
    rows = np.cumsum(rng.uniform(0.1, 1, (3, 7 + degree)), 1)
    basis = bases.bspline(degree, knots=torch.from_numpy(rows), outside="zero")
    domain = rows[:, degree], rows[:, -1 - degree]
    x = torch.from_numpy(rng.uniform(*domain, (50, 3)))
    values = basis.tabulate(x)
    for i in range(3):
        for k in range(basis.size):
            spline = BSpline(rows[i], np.eye(basis.size)[k], degree)
            np.testing.assert_allclose(values[:, i, k], spline(x[:, i].numpy()), atol=1e-12)


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_derivatives_against_automatic_ones(family):
    """Of the tabulated value, three times, in and outside the interval under every policy."""
    for policy in cases.POLICIES[family]:
        basis = cases.build(f"{family}-{policy}")
        x = cases.points(40, basis.inputs or 1).requires_grad_()
        for _ in range(3):
            derivative = basis.derivative()
            slopes = derivative.tabulate(x)
            for k, column in enumerate(basis.tabulate(x).unbind(-1)):
                (slope,) = torch.autograd.grad(column.sum(), x, allow_unused=True, retain_graph=True)
                expected = torch.zeros_like(x) if slope is None else slope
                torch.testing.assert_close(slopes[..., k], expected, rtol=1e-9, atol=1e-8)
            basis = derivative


@pytest.mark.parametrize("case", cases.CASES)
def test_one_is_the_function_one(case):
    basis = cases.build(case)
    x = torch.rand(50, basis.inputs or 1, dtype=torch.float64) * 0.5  # inside every interval
    torch.testing.assert_close(basis.tabulate(x) @ basis.one, torch.ones_like(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", [f for f in cases.FAMILIES if "knots" not in f])
def test_policies_outside(family):
    """Linear keeps value and slope at the end, clamp the value; zero is 0; extrapolate has no outside."""
    low, high = cases.build(f"{family}-extrapolate").interval
    for end, direction in ((low, -1.0), (high, 1.0)):
        at, far = (
            torch.tensor([end], dtype=torch.float64),
            torch.tensor([0.3, 2.0, 50.0], dtype=torch.float64),
        )
        for policy in cases.POLICIES[family]:
            basis = cases.build(f"{family}-{policy}")
            values = basis.tabulate(at + direction * far)
            inside = cases.build(f"{family}-extrapolate")
            value, slope = inside.tabulate(at), inside.derivative().tabulate(at)
            if policy == "zero":
                assert (values == 0).all()
            elif policy == "clamp":
                torch.testing.assert_close(values, value.expand_as(values), rtol=0, atol=1e-12)
            elif policy == "linear":
                line = value + slope * direction * far[:, None]
                torch.testing.assert_close(values, line, rtol=1e-10, atol=1e-10)
            assert torch.equal(basis.locate(at)[0] >= 0, torch.tensor([True]))  # the ends are inside


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 6),
    segments=st.integers(1, 9),
    continuous=st.booleans(),
    low=st.floats(-5, 5),
    length=st.floats(0.1, 10),
)
def test_coefficients_are_the_values_at_the_nodes(n, segments, continuous, low, length):
    basis = bases.piecewise_lagrange(n, segments, (low, low + length), continuous)
    step = length / segments
    for s in range(segments):
        # just inside, so that rounding cannot put a shared node into the neighbour
        nodes = low + step * (s + (bases.lobatto(n) * (1 - 1e-9) + 1) / 2)
        window = basis.tabulate(nodes)[:, basis.start[s + 1] : basis.start[s + 1] + n]
        torch.testing.assert_close(window, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("segments", [1, 2, 3, 5, 7, 11])
@pytest.mark.parametrize("continuous", [True, False])
def test_end_nodes_are_exact(segments, continuous, dtype):
    """At a segment's ends one basis function is exactly 1 and all others exactly 0, in every dtype."""
    for n in range(2, 17):
        basis = bases.piecewise_lagrange(n, segments, continuous=continuous, outside="extrapolate")
        knots = basis.operands(dtype, torch.device("cpu")).knots[0]
        values = basis.tabulate(knots)
        assert ((values == 0) | (values == 1)).all() and (values.sum(-1) == 1).all()


def test_gradients_of_other_coefficients_are_exactly_zero_at_segment_ends():
    basis = bases.piecewise_lagrange(5, 3)
    x = torch.tensor([-1.0, 1.0]).repeat(20, 1)  # images sit on the ends
    w = torch.randn(2, basis.size, 4, requires_grad=True)
    link(x, w, basis).sin().sum().backward()
    touched = (w.grad != 0).any(-1)
    assert touched[0].nonzero().flatten().tolist() == [0]
    assert touched[1].nonzero().flatten().tolist() == [basis.size - 1]


@pytest.mark.parametrize("kind", [features.POLYNOMIAL, features.HARMONIC])
@pytest.mark.parametrize("m", [1, 3, 5, 9])
def test_differentiation_matrix(kind, m):
    u = torch.linspace(-1, 1, 33, dtype=torch.float64).requires_grad_()
    values = features.features(u, m, kind)
    d = torch.tensor(features.differentiation(m, kind), dtype=torch.float64)
    for k in range(m):
        (slope,) = torch.autograd.grad(values[:, k].sum(), u, allow_unused=True, retain_graph=True)
        expected = torch.zeros_like(u) if slope is None else slope
        torch.testing.assert_close(values @ d[k], expected, rtol=0, atol=1e-11)


def test_float32_accuracy_at_sixteen_nodes():
    x = torch.linspace(-1, 1, 4001)
    basis = bases.lagrange(16)
    assert (basis.tabulate(x).double() - basis.tabulate(x.double())).abs().max() < 1e-5


@pytest.mark.parametrize("case", cases.CASES)
def test_equality_repr_pickle_copy(case):
    basis = cases.build(case)
    for twin in (cases.build(case), pickle.loads(pickle.dumps(basis)), copy.deepcopy(basis)):
        assert twin == basis and hash(twin) == hash(basis) and repr(twin) == repr(basis)
        x = torch.rand(4, basis.inputs or 1)
        assert torch.equal(twin.tabulate(x), basis.tabulate(x))
    assert basis.derivative() != basis and basis != "basis"
    others = [other for name in cases.CASES if name != case for other in [cases.build(name)]]
    assert all(other != basis for other in others)


def test_repr_tells_the_constructor():
    assert repr(bases.lagrange(4)) == "lagrange(n=4, interval=(-1.0, 1.0), outside='linear')"
    spec = "piecewise_lagrange(n=2, segments=3, continuous=True, interval=(0.0, 0.1), outside='zero')"
    assert repr(bases.piecewise_lagrange(2, 3, (0, 0.1), outside="zero")) == spec


@pytest.mark.parametrize("case", cases.CASES)
def test_folding_keeps_the_functions(case):
    basis = cases.build(case)
    inputs = basis.inputs or 2
    w = torch.randn(inputs, basis.size, 3, dtype=torch.float64, requires_grad=True)
    x = cases.points(20, inputs)
    packed, folded = pack(w, basis, fold=True)
    y, expected = link(x[None], packed, folded)[0], link(x, w, basis)
    assert difference(y, expected) < 1e-12
    g = torch.randn_like(y)
    assert difference(torch.autograd.grad(y, w, g)[0], torch.autograd.grad(expected, w, g)[0]) < 1e-12


def test_pack_makes_contiguous():
    w = torch.randn(4, 3, 5).permute(1, 2, 0)
    packed, basis = pack(w, bases.lagrange(5))
    assert packed.is_contiguous() and torch.equal(packed[0], w) and basis == bases.lagrange(5)


def test_bases_do_not_follow_the_default_dtype_or_device():
    usual = bases.piecewise_lagrange(4, 3)
    torch.set_default_dtype(torch.float64)
    assert bases.piecewise_lagrange(4, 3) == usual
    with torch.device("meta"):
        other = bases.bspline(3, 5)
        layer = hof.HighOrderLinear(2, 3, other)
    assert layer.weight.is_meta and other == bases.bspline(3, 5)


def test_ends_elsewhere_need_extrapolation():
    values, start = torch.ones(1, 1, 1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"span: got \(-1.0, 2.0\) where outside is 'linear'"):
        bases.tabulated("own(", values, start, span=(-1.0, 2.0))
