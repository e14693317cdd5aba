"""Every backend x basis x contraction x dtype x derivative order x shape, against direct sums in float64."""

import inspect
from functools import cache, partial

import pytest
import torch

import high_order_fused as hof
from high_order_fused import functional, ops
from high_order_fused.backends import _registered
from tests import cases, support
from tests.support import difference

BACKENDS = list(_registered)
DTYPES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def basis_values(x, basis, orders=1):
    """phi_k^(r)(x), r < orders, [E, B, I, K], float64: by public tabulation and automatic derivatives."""
    x = x.double().requires_grad_()
    found = [basis.tabulate(x)]
    while len(found) < orders:
        columns = [
            torch.autograd.grad(column.sum(), x, create_graph=True, allow_unused=True)[0]
            if column.requires_grad
            else None
            for column in found[-1].unbind(-1)
        ]
        found.append(torch.stack([torch.zeros_like(x) if c is None else c for c in columns], -1))
    return [values.detach() for values in found]


@cache
def values_of(case, dtype):
    """x of the contractions of a case, and its basis values for four orders; the same for every backend."""
    torch.manual_seed(0)
    basis = cases.build(case)
    x = cases.points(2, 9, basis.inputs or 5, dtype=dtype)
    return x, basis_values(x, basis, 4)


def expected(missing, phi, g, s, w):
    """The form by one einsum over explicit basis values."""
    operands = {"g": ("ebo", g), "s": ("ebi", s), "w": ("eiko", w)}
    del operands[missing]
    letters = ",".join(index for index, _ in operands.values())
    result = {"g": "ebo", "s": "ebi", "w": "eiko"}[missing]
    return torch.einsum(f"ebik,{letters}->{result}", phi, *(t.double() for _, t in operands.values()))


def actual(missing, x, basis, order, g, s, w):
    for _ in range(order):
        basis = basis.derivative()
    if missing == "g":
        return functional.sum_inputs(x, w, basis, s)
    return functional.sum_outputs(x, w, basis, g) if missing == "s" else functional.sum_batch(x, g, basis, s)


def tensors(basis, shape, dtype):
    groups, batch, inputs, outputs = shape
    inputs = basis.inputs or inputs
    x = cases.points(groups, batch, inputs, dtype=dtype)
    random = partial(cases.normal, dtype=dtype)
    return (
        x,
        random(groups, batch, outputs),
        random(groups, batch, inputs),
        random(groups, inputs, basis.size, outputs),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("missing", "gsw")
@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_contractions(backend, case, missing, dtype):
    basis = cases.build(case)
    x, values = values_of(case, dtype)
    _, g, s, w = tensors(basis, (2, 9, 5, 4), dtype)
    with hof.use_backend(backend):
        for order, phi in enumerate(values):
            result = actual(missing, x, basis, order, g, s, w)
            assert result.dtype == dtype
            truth = expected(missing, phi, g, s, w)
            # a derivative of order r multiplies the rounding of u by about (2 / h)^r
            assert difference(result, truth) < DTYPES[dtype] * 4**order, order


STEEP = {
    "lagrange": hof.bases.lagrange(9),
    "chebyshev": hof.bases.chebyshev(20),
    "piecewise": hof.bases.piecewise_lagrange(8, 20, (0.0, 1.0)),
    "cubic": hof.bases.bspline(3, 5),
    "knots": hof.bases.piecewise_lagrange(6, 3, knots=cases.KNOTS),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("backend", BACKENDS)
def test_lines_far_outside(backend, name, dtype):
    """Where powers of the local coordinate exceed the dtype, and times roundings the slope."""
    basis = STEEP[name]
    w = torch.randn(1, basis.inputs or 1, basis.size, 3, dtype=dtype)
    for end, sign in ((0, -1), (1, 1)):
        at = basis.domain[:, end][None]
        value, slope = (
            torch.einsum("bik,iko->bo", derivative.tabulate(at)[0].unsqueeze(0), w[0].double())
            for derivative in (basis, basis.derivative())
        )
        for distance in (0.5, 7.0, 60.0, 1e4, 1e7):
            x = (at + sign * distance).to(dtype).unsqueeze(0)
            line = value + slope * sign * distance
            with hof.use_backend(backend):
                found = [functional.sum_inputs(x, w, b)[0] for b in (basis, basis.derivative())]
                curvature = functional.sum_inputs(x, w, basis.derivative().derivative())
            assert difference(found[0], line) < DTYPES[dtype] * 10, (end, distance)
            assert difference(found[1], slope) < DTYPES[dtype], (end, distance)
            assert curvature.abs().max() <= 1e-12 * slope.abs().max(), (end, distance)


SHAPES = {"ragged": (1, 17, 5, 3), "one": (1, 1, 1, 1), "grouped": (3, 5, 4, 2), "one output": (1, 9, 6, 1)}
SHAPES |= {
    "no rows": (1, 0, 4, 2),
    "no rows, grouped": (2, 0, 1, 1),
    "no outputs": (1, 20, 4, 0),
    "wide": (1, 2, 40, 70),
}
SAMPLE = (
    "piecewise_lagrange-continuous-linear",
    "fourier-even-extrapolate",
    "bspline-zero",
    "bspline-knots-clamp",
)


@pytest.mark.parametrize("missing", "gsw")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", SAMPLE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes(backend, case, shape, missing):
    basis = cases.build(case)
    x, g, s, w = tensors(basis, SHAPES[shape], torch.float32)
    with hof.use_backend(backend):
        result = actual(missing, x, basis, 0, g, s, w)
    assert difference(result, expected(missing, *basis_values(x, basis), g, s, w)) < 1e-5


@pytest.mark.parametrize("missing", "gsw")
@pytest.mark.parametrize("case", SAMPLE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_strides(backend, case, missing):
    """Transposed, sliced, expanded (stride 0) operands."""
    basis = cases.build(case)
    x, g, s, w = tensors(basis, (2, 6, 4, 3), torch.float64)
    x, s = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (x, s))
    g = torch.stack([g, g], -1)[..., 0]
    w = w.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    with hof.use_backend(backend):
        truth = expected(missing, *basis_values(x, basis), g, s, w)
        assert difference(actual(missing, x, basis, 0, g, s, w), truth) < 1e-12
        flat = x[:, :1].expand(-1, 6, -1)
        truth = expected(missing, *basis_values(flat, basis), g, s, w)
        assert difference(actual(missing, flat, basis, 0, g, s, w), truth) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_weights_under_float_inputs(backend):
    basis = hof.bases.piecewise_lagrange(3, 64)
    x, _, _, w = tensors(basis, (1, 50, 4, 3), torch.float32)
    low = w.to(torch.bfloat16)
    with hof.use_backend(backend):
        y = functional.sum_inputs(x, low, basis)
    assert y.dtype == torch.bfloat16
    assert difference(y, expected("g", *basis_values(x, basis), None, torch.ones_like(x), low)) < 5e-3


@pytest.mark.parametrize("outside", ["extrapolate", "linear", "clamp", "zero"])
@pytest.mark.parametrize("family", ["lagrange", "piecewise_lagrange-constant", "bspline-knots", "bspline"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_wild_inputs(backend, family, outside):
    """NaN makes its own row NaN and no other; infinity is harmless where the policy is bounded."""
    basis = cases.build(f"{family}-{outside}")
    x, g, _, w = tensors(basis, (1, 6, 3, 2), torch.float32)
    x[0, 1, 0], x[0, 2, 1], x[0, 3, 2], x[0, 4, 0] = torch.nan, torch.inf, -torch.inf, 1e38
    with hof.use_backend(backend):
        y, r = functional.sum_inputs(x, w, basis), functional.sum_outputs(x, w, basis, g)
        v = functional.sum_batch(x, g, basis)
    assert y[0, 1].isnan().all() and y[0, [0, 5]].isfinite().all()
    assert r[0, 1, 0].isnan() and r[0, [0, 5]].isfinite().all() and r[0, 1, 1:].isfinite().all()
    assert v[0, 0].isnan().any()
    if outside in ("clamp", "zero"):
        assert y[0, 2:5].isfinite().all() and r[0, 2:5].isfinite().all() and v[0, 1:].isfinite().all()
        ends = x.clamp(-1e3, 1e3).nan_to_num(0)
        with hof.use_backend(backend):
            assert torch.equal(y[0, 2:5], functional.sum_inputs(ends, w, basis)[0, 2:5])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lookup_of_every_backend_is_the_same_to_the_bit(backend):
    """Coefficients that are their segment's number show which was taken, at and beside every knot."""
    for segments in (1, 2, 3, 5, 7, 12, 64):
        basis = hof.bases.piecewise_lagrange(
            1, segments, (-1.5, 0.7), continuous=False, outside="extrapolate"
        )
        knots = basis.operands(torch.float32, support.DEVICE).knots[0]
        low, high = knots.new_tensor([-1.5, 0.7])
        beside = [knots.nextafter(knots.new_tensor(end)) for end in (9.0, -9.0)]
        x = torch.cat([knots, *beside, cases.normal(100, dtype=torch.float32)])
        position = (x - low) / (high - low) * segments
        with hof.use_backend(backend):
            numbers = torch.arange(float(segments), device=support.DEVICE)
            y = hof.functional.link(x[:, None], numbers[None, :, None], basis)
        assert torch.equal(y[:, 0], position.clamp(0, segments - 1).trunc())


def test_every_constructor_and_backend_has_a_case():
    assert {family.split("-")[0] for family in cases.FAMILIES} == cases.constructors()
    assert {policy for _, policy in cases.CASES.values()} == set(hof.basis.OUTSIDE)
    assert "reference" in BACKENDS


def test_operators_match_the_reference_by_name():
    """The three contractions have the same names and argument names wherever they are implemented."""
    for name, order in ops._RAW.values():
        arguments = list(inspect.signature(getattr(hof.reference, name)).parameters)
        assert arguments == [*order, "basis"]
