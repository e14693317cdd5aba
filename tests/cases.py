"""The bases every conformance test runs over, each constructor with each policy it allows; sizes of calls."""

import inspect

import torch

from high_order_fused import bases
from high_order_fused.basis import OUTSIDE, lookup_dtype
from tests import support

INPUTS = 3  # features of the cases that have knots of their own
KNOTS = torch.tensor([[-1.0, -0.4, 0.1, 0.8], [-0.9, -0.3, 0.0, 1.1], [-1.2, 0.2, 0.3, 0.9]])
SPLINE_KNOTS = (
    torch.tensor([[-2.0, -1.3, -0.9, -0.2, 0.4, 1.0, 1.7, 2.1]] * INPUTS)
    + torch.arange(INPUTS)[:, None] * 0.05
)

FAMILIES = {
    "lagrange": lambda outside: bases.lagrange(4, outside=outside),
    "lagrange-1": lambda outside: bases.lagrange(1, outside=outside),
    "lagrange-2": lambda outside: bases.lagrange(2, (-2.0, 0.5), outside=outside),
    "piecewise_lagrange-continuous": lambda outside: bases.piecewise_lagrange(4, 3, outside=outside),
    "piecewise_lagrange-discontinuous": lambda outside: bases.piecewise_lagrange(
        3, 5, (-1.5, 1.0), False, outside
    ),
    "piecewise_lagrange-constant": lambda outside: bases.piecewise_lagrange(
        1, 4, continuous=False, outside=outside
    ),
    "piecewise_lagrange-knots": lambda outside: bases.piecewise_lagrange(3, 3, outside=outside, knots=KNOTS),
    "fourier": lambda outside: bases.fourier(5, outside=outside),
    "fourier-even": lambda outside: bases.fourier(4, (-0.5, 1.5), outside=outside),
    "monomial": lambda outside: bases.monomial(3, outside=outside),
    "chebyshev": lambda outside: bases.chebyshev(6, outside=outside),
    "legendre": lambda outside: bases.legendre(4, (0.0, 1.0), outside=outside),
    "bspline": lambda outside: bases.bspline(3, 5, outside=outside),
    "bspline-linear": lambda outside: bases.bspline(1, 4, outside=outside),
    "bspline-knots": lambda outside: bases.bspline(2, knots=SPLINE_KNOTS, outside=outside),
}

POLICIES = {
    family: [p for p in OUTSIDE if not (family.startswith("fourier") and p == "linear")]
    for family in FAMILIES
}
LAST_POLICIES = [f"{family}-{policies[-1]}" for family, policies in POLICIES.items()]
CASES = {f"{family}-{policy}": (family, policy) for family in FAMILIES for policy in POLICIES[family]}


def build(case):
    family, policy = CASES[case]
    return FAMILIES[family](policy)


def constructors():
    """Every public function of `bases` that returns a Basis from numbers alone."""
    return {
        name
        for name, function in inspect.getmembers(bases, inspect.isfunction)
        if function.__module__ == bases.__name__
        and not name.startswith("_")
        and name != "tabulated"
        and inspect.signature(function).return_annotation is bases.Basis
    }


# sizes beside those of vectors, register blocks, tiles and cache lines; a few rows in parts of the inputs
SHAPES = [
    (1, 1, 1, 1),
    (1, 2, 3, 2),
    (2, 3, 17, 2),
    (1, 16, 16, 16),
    (1, 33, 5, 63),
    (1, 300, 7, 65),
    (2, 65, 19, 37),
    (2, 4, 150, 70),
    (1, 530, 33, 130),
    (1, 1, 2100, 33),
    (2, 40, 70, 33),  # more rows in two parts of the inputs
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def points(*shape, dtype=torch.float64, spread=1.6):
    """Random points in and beyond the intervals of the cases, none on a knot."""
    return (torch.rand(*shape, dtype=torch.float64) * 2 - 1).mul(spread).to(support.DEVICE, dtype)


def normal(*shape, dtype=torch.float64):
    """Normally distributed numbers, drawn in float64."""
    return torch.randn(*shape, dtype=torch.float64).to(support.DEVICE, dtype)


def operands(basis, shape, dtype=torch.float32):
    """Random x, w, g, s of (groups, batch, inputs, outputs), and the basis as kernels read it."""
    groups, batch, inputs, outputs = shape
    inputs = basis.inputs or inputs
    x = points(groups, batch, inputs, dtype=dtype)
    g, s = normal(groups, batch, outputs, dtype=dtype), normal(groups, batch, inputs, dtype=dtype)
    w = normal(groups, inputs, basis.size, outputs, dtype=dtype)
    return x, w, g, s, basis.operands(lookup_dtype(x), x.device)


def three(module, x, w, g, s, basis):
    """The three contractions of a backend's module."""
    return (
        module.sum_inputs(x, w, s, basis),
        module.sum_outputs(x, w, g, basis),
        module.sum_batch(x, g, s, basis),
    )
