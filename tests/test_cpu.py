"""The C++ kernels: every instruction set against the reference, odd sizes, threads equal to the bit."""

import pytest
import torch

import high_order_fused as hof
from high_order_fused import cpu, functional, native, reference
from tests import cases
from tests.cases import LAST_POLICIES, SHAPES, TOLERANCE, operands, three
from tests.support import difference

pytestmark = pytest.mark.skipif(
    native.native_missing() is not None, reason=f"native: {native.native_missing()}"
)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", LAST_POLICIES)
def test_every_variant_and_size(isa, case, dtype):
    basis = cases.build(case)
    for shape in SHAPES:
        arguments = operands(basis, shape, dtype)
        exact = three(
            reference,
            *(t.double() for t in arguments[:4]),
            basis.operands(torch.float64, torch.device("cpu")),
        )
        for actual, expected in zip(three(cpu, *arguments), exact, strict=True):
            assert actual.dtype == dtype and difference(actual, expected) < TOLERANCE[dtype], shape


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 65, 19, 37), (2, 8, 150, 70)])
@pytest.mark.parametrize("case", LAST_POLICIES)
def test_narrow_storage_is_rounded_once(isa, case, shape, low):
    """What float32 kernels give for the same numbers, rounded as torch rounds: NaN and infinity, too."""
    basis = cases.build(case)
    x, w, g, s, narrow = operands(basis, shape, low)
    x[0, 3, 1], w[0, 0], g[1, 7, 5], g[0, 6] = float("nan"), float("inf"), float("nan"), 6e4
    wide = three(cpu, x.float(), w.float(), g.float(), s.float(), narrow)
    for actual, expected in zip(three(cpu, x, w, g, s, narrow), wide, strict=True):
        torch.testing.assert_close(actual, expected.to(low), rtol=0, atol=0, equal_nan=True)
    mixed = three(cpu, x.float(), w, g, s.float(), narrow)
    for actual, expected, dtype in zip(mixed, wide, (low, torch.float32, low), strict=True):
        torch.testing.assert_close(actual, expected.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
@pytest.mark.parametrize("segments", [1, 2, 8, 24, 40, 150])
def test_every_window_and_number_of_segments(isa, n, segments):
    """Beyond 10 segments another sort, beyond 128 knots another search, beyond 4 functions several blocks."""
    for knots in (None, torch.linspace(-1, 1, segments + 1) ** 3):
        basis = hof.bases.piecewise_lagrange(n, segments, knots=knots)
        arguments = operands(basis, (1, 70, 4, 20), torch.float64)
        for actual, expected in zip(three(cpu, *arguments), three(reference, *arguments), strict=True):
            assert difference(actual, expected) < 1e-11


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_more_rows_than_a_tile(isa, dtype):
    """Of very many segments a tile has 2048 rows, or 4096 where it sums over rows."""
    basis = hof.bases.piecewise_lagrange(3, 70)
    arguments = operands(basis, (1, 4500, 3, 5), dtype)
    exact = three(
        reference, *(t.double() for t in arguments[:4]), basis.operands(torch.float64, torch.device("cpu"))
    )
    for actual, expected in zip(three(cpu, *arguments), exact, strict=True):
        assert actual.dtype == dtype and difference(actual, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("continuous", [True, False])
def test_sums_too_many_for_caches(isa, continuous):
    """Those of one tile are written past them, by whole lines: two groups, and windows that no row meets."""
    basis = hof.bases.piecewise_lagrange(6, 50, continuous=continuous)
    for outputs in (64, 60):
        x, _, g, s, operand = operands(basis, (2, 70, 70, outputs), torch.float64)
        x[0] = x[0].clamp(-0.5, 0.1)
        for scale in (s, None):
            found, exact = (module.sum_batch(x, g, scale, operand) for module in (cpu, reference))
            assert difference(found, exact) < 1e-12
            assert (found[exact == 0] == 0).all()


@pytest.mark.parametrize("segments", [1, 6])
@pytest.mark.parametrize("away", [0.0, 1e-9, 1e-3])
def test_functions_that_nearly_add_up_to_a_number(isa, segments, away):
    """What sums leave out must be known from the rest: to rounding, and beside a small first function."""
    values = torch.randn(1, segments, 4, 4, dtype=torch.float64)
    values[..., 0, :] = torch.arange(segments)[:, None] % 3 / 2 - values[..., 1:, :].sum(-2)  # to 0, 1/2, 1
    values[:, ::2, 0, 1] += away
    small = values.clone()
    small[..., 0, :] *= 1e-13
    starts = 3 * torch.arange(segments)
    for table, first in ((values, 1.0), (small, 1e13)):
        basis = hof.bases.tabulated(
            "nearly(", table, starts, outside="extrapolate", one=torch.ones(3 * segments + 1)
        )
        x, w, g, s, operand = operands(basis, (2, 90, 5, 37), torch.float64)
        w[:, :, 0] *= first
        for scale in (s, None):
            found, exact = (three(module, x, w, g, scale, operand) for module in (cpu, reference))
            for actual, expected in zip(found, exact, strict=True):
                assert difference(actual, expected) < 1e-12
            assert difference(found[2][:, :, 0], exact[2][:, :, 0]) < 1e-12  # the first function's own


@pytest.mark.parametrize("rows", [90, 3000])
@pytest.mark.parametrize("case", LAST_POLICIES)
def test_functions_that_are_zero_in_every_row_get_no_gradient(isa, case, rows):
    """To the bit: an optimiser that divides by a gradient's size would take its rounding for one."""
    basis = cases.build(case)
    _, _, g, _, operand = operands(basis, (1, rows, 3, 37))
    ends = operand.domain.expand(3, 2)
    for x in (ends[:, 0], ends.mean(1), ends[:, 1]):
        constant = x.expand(1, rows, 3)
        exact = reference.sum_batch(constant, g, None, operand)
        assert (cpu.sum_batch(constant, g, None, operand)[exact == 0] == 0).all()


@pytest.mark.parametrize("case", LAST_POLICIES)
def test_a_row_that_is_nan_reaches_what_it_meets(isa, case):
    """As in the reference: its own output and slope, and the sums of every function of its window."""
    x, w, g, _, basis = operands(cases.build(case), (1, 90, 5, 33))
    x[0, 70, 1] = torch.nan
    for actual, expected in zip(
        three(cpu, x, w, g, None, basis), three(reference, x, w, g, None, basis), strict=True
    ):
        assert torch.equal(actual.isnan(), expected.isnan())


@pytest.mark.parametrize(
    "case", ["piecewise_lagrange-continuous-linear", "lagrange-linear", "bspline-knots-zero"]
)
@pytest.mark.parametrize("shape", [(1, 1, 40, 200), (2, 12, 150, 70), (1, 700, 20, 70), (3, 40, 5, 9)])
def test_threads_do_not_change_a_bit(isa, case, shape):
    arguments = operands(cases.build(case), shape)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(three(cpu, *arguments))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_lookup_to_the_bit(isa):
    for segments in (2, 3, 7, 12, 64):
        basis = hof.bases.piecewise_lagrange(
            1, segments, (-1.5, 0.7), continuous=False, outside="extrapolate"
        )
        knots = basis.operands(torch.float32, torch.device("cpu")).knots[0]
        x = torch.cat(
            [knots, knots.nextafter(torch.tensor(9.0)), knots.nextafter(torch.tensor(-9.0)), torch.randn(999)]
        )
        y = functional.link(x[:, None], torch.arange(float(segments))[None, :, None], basis)
        assert torch.equal(y[:, 0].long(), basis.locate(x)[0])


def test_transposition(isa):
    for shape in [(1, 1), (5, 3), (16, 16), (37, 61 * 19), (2, 33, 65), (0, 4), (128, 130)]:
        for dtype in TOLERANCE:
            matrix = torch.randn(*shape).to(dtype)
            assert torch.equal(cpu.transpose(matrix), matrix.mT.contiguous())


def test_an_instruction_set_that_is_not_there():
    with pytest.raises(ValueError, match="isa: got 'avx1024', needs one of 'baseline'"):
        cpu.use_isa("avx1024").__enter__()


def test_more_than_two_to_the_31_elements():
    """Stride-0 rows: 32769 x 65536 inputs are 2^31 and 65536 more."""
    basis = hof.bases.lagrange(2)
    x, w = torch.rand(1, 1, 65536) * 2 - 1, torch.randn(1, 65536, 2, 1)
    exact = reference.sum_inputs(x.double(), w.double(), None, basis.operands(torch.float64, x.device))
    many = cpu.sum_inputs(x.expand(1, 32769, -1), w, None, basis.operands(torch.float32, x.device))
    assert many.shape == (1, 32769, 1) and difference(many, exact.expand_as(many)) < 1e-5


def test_one_segment_that_leaves_coefficients_unused(isa):
    """A window in the middle of the coefficients: legal for `tabulated`, not for the matrix product."""
    values, start = torch.eye(3, dtype=torch.float64)[None, None], torch.tensor([1])
    basis = hof.bases.tabulated("odd(", values, start, outside="extrapolate", one=torch.ones(4))
    arguments = operands(basis, (1, 40, 18, 5), torch.float64)
    for actual, expected in zip(three(cpu, *arguments), three(reference, *arguments), strict=True):
        assert difference(actual, expected) < 1e-11


def test_fourier_far_away(isa):
    """Reduction is exact as long as the dtype has fractions, and beyond."""
    basis = hof.bases.fourier(5)
    x = torch.tensor([2e6, 3145729.5, 4194304.5, 6500001.0, 7000001.0, 8388607.5, 12000001.0, 3e7, 1e30])
    x = torch.cat([x, -x])[:, None]
    w = torch.randn(1, 5, 3)
    with hof.use_backend("reference"):
        expected = functional.link(x, w, basis)
    assert difference(functional.link(x, w, basis), expected) < 1e-5
