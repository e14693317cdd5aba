"""Whole links in C++: packing, both gradients in one pass, the base branch, and what is refused."""

import itertools

import pytest
import torch

import high_order_fused as hof
from high_order_fused import cpu, native, reference
from high_order_fused.basis import lookup_dtype
from tests import cases
from tests.cases import LAST_POLICIES, SHAPES, TOLERANCE, operands
from tests.support import difference

pytestmark = pytest.mark.skipif(
    native.native_missing() is not None, reason=f"native: {native.native_missing()}"
)


def arranged(tensor, how):
    """The same numbers, lying otherwise in memory."""
    last = tensor.dim() - 1
    if how == "outputs first":
        order = (last, *range(last)) if last < 3 else (0, 3, 1, 2)
    elif how == "reversed":
        order = tuple(reversed(range(last + 1)))
    elif how == "every second":
        return torch.stack([tensor, torch.zeros_like(tensor)], -1).flatten(-2)[..., ::2]
    else:
        return tensor
    back = sorted(range(last + 1), key=order.__getitem__)
    return tensor.permute(order).contiguous().permute(back)


def link(x, weight, gain, basis):
    """cpu.link with no base."""
    return cpu.link(x, weight, gain, None, None, basis)


def link_gradients(g, x, w, weight, gain, basis, of_x, of_weight):
    """The three gradients of cpu.link_gradients with no base."""
    found = cpu.link_gradients(g, x, w, weight, gain, None, None, basis, of_x, of_weight, False)
    assert found[3:] == (None, None)
    return found[:3]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_packing_from_every_arrangement(isa, dtype):
    """Coefficients and gain, with groups and without, as torch multiplies; gradients by their formula."""
    basis = hof.bases.bspline(2, 5)
    for shape in [(1, 11, 1), (2, 15, 3), (16, 14, 16), (61, 19, 37), (20, 17, 33), (3, 12, 0)]:
        for groups in ((), (3,)):
            inputs, rows, outputs = shape
            x, g = torch.rand(*groups, rows, inputs), torch.randn(*groups, rows, outputs).to(dtype)
            x, ops = x.to(dtype), basis.operands(lookup_dtype(x.to(dtype)), x.device)
            for how in ("as read", "outputs first", "reversed", "every second"):
                weight = arranged(torch.randn(*groups, inputs, basis.size, outputs, dtype=dtype), how)
                for gain_how in (None, "as read", "outputs first", "every second"):
                    gain = None
                    if gain_how:
                        gain = arranged(torch.randn(*groups, inputs, outputs, dtype=dtype), gain_how)
                    product = weight if gain is None else weight * gain.unsqueeze(-2)
                    y, w = link(x, weight, gain, ops)
                    slope, of_weight, of_gain = link_gradients(g, x, w, weight, gain, ops, True, True)
                    lifted = [t if groups else t[None] for t in (x, product.contiguous(), g)]
                    assert w.is_contiguous() and torch.equal(w, product)
                    assert torch.equal(y.view(-1), cpu.sum_inputs(*lifted[:2], None, ops).view(-1))
                    steep = ops.derivative()
                    assert torch.equal(slope.view(-1), cpu.sum_outputs(*lifted, steep).view(-1))
                    wide = (lifted[k].to(torch.promote_types(dtype, torch.float32)) for k in (0, 2))
                    v = cpu.sum_batch(*wide, None, ops).view(product.shape)
                    exact = v.double() if gain is None else v.double() * gain.double().unsqueeze(-2)
                    assert of_weight.shape == weight.shape and difference(of_weight, exact) < TOLERANCE[dtype]
                    if how == "outputs first":  # rounded once
                        scaled = v if gain is None else v * gain.to(v.dtype).unsqueeze(-2)
                        assert torch.equal(of_weight, scaled.to(dtype))
                    if gain is None:
                        assert of_gain is None
                    else:
                        exact = (v.double() * weight.double()).sum(-2)
                        assert of_gain.shape == gain.shape and difference(of_gain, exact) < TOLERANCE[dtype]


WINDOWS = [
    hof.bases.piecewise_lagrange(n, 3, continuous=n > 1, outside="clamp") for n in (1, 2, 3, 4, 5, 6, 7, 9)
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("basis", [*WINDOWS, hof.bases.lagrange(5), hof.bases.fourier(7)], ids=str)
def test_few_rows_of_coefficients_as_they_lie(isa, basis, dtype):
    """Outputs first, against float64; any gain and branch, threads to the bit; gradients as of packed."""
    before = torch.get_num_threads()
    branches = itertools.cycle([(False, False), (True, True), (False, True)])
    gains = itertools.cycle([None, "as read", "outputs first", "every second"])
    try:
        for shape in [
            (1, 1, 2, 2),
            (2, 3, 5, 3),
            (1, 4, 70, 21),
            (3, 5, 33, 16),
            (1, 1, 129, 35),
            (2, 4, 0, 3),
        ]:
            groups, _, inputs, outputs = shape
            x, w, g, _, operand = operands(basis, shape, dtype)
            weight = arranged(w, "outputs first")
            gain = next(gains)
            gain = gain and arranged(torch.randn(groups, inputs, outputs).to(dtype), gain)
            given, branch = next(branches)
            base = torch.randn_like(x) if given else None
            base_weight = torch.randn(groups, outputs, inputs).to(dtype) if branch else None
            product = weight if gain is None else weight * gain.unsqueeze(-2)
            exact = weight.double() * (1 if gain is None else gain.double().unsqueeze(-2))
            expected = reference.sum_inputs(x.double(), exact, None, basis.operands(torch.float64, x.device))
            if base_weight is not None:
                values = torch.nn.functional.silu(x.double()) if base is None else base.double()
                expected = expected + values @ base_weight.double().mT
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y, kept = cpu.link(x, weight, gain, base, base_weight, operand)
                assert kept.data_ptr() == weight.data_ptr() and kept.stride() == weight.stride()
                assert y.dtype == dtype and difference(y, expected) < 2 * TOLERANCE[dtype], shape
                found.append(y)
            assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
            together = weight, gain, base, base_weight, operand, True, True, given
            grads = (cpu.link_gradients(g, x, w, *together) for w in (kept, product.contiguous()))
            for a, b in zip(*grads, strict=True):
                assert a is b or torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("basis", "shape"),
    [
        (hof.bases.piecewise_lagrange(4, 20), (1, 70, 67, 21)),
        (hof.bases.piecewise_lagrange(4, 20), (2, 40, 66, 1)),
        (hof.bases.piecewise_lagrange(5, 150), (1, 160, 64, 3)),  # one input has more than a band
        (hof.bases.piecewise_lagrange(4, 60), (1, 100, 70, 17)),  # a band has fewer inputs than a tile
        (hof.bases.bspline(3, 5), (3, 30, 64, 35)),
    ],
    ids=str,
)
def test_coefficients_packed_for_a_tile(isa, basis, shape, dtype):
    """Rows few for their segments, coefficients that lie outputs first: to the bit as if packed before."""
    before = torch.get_num_threads()
    groups, _, inputs, outputs = shape
    x, w, g, _, operand = operands(basis, shape, dtype)
    weight, base_weight = arranged(w, "outputs first"), torch.randn(groups, outputs, inputs).to(dtype)
    try:
        for gain_how in (None, "as read", "outputs first", "every second"):
            gain = None
            if gain_how == "outputs first":  # in each group
                gain = torch.randn(groups, outputs, inputs).to(dtype).mT
            elif gain_how:
                gain = arranged(torch.randn(groups, inputs, outputs).to(dtype), gain_how)
            product = weight if gain is None else weight * gain.unsqueeze(-2)
            exact = weight.double() * (1 if gain is None else gain.double().unsqueeze(-2))
            expected = reference.sum_inputs(x.double(), exact, None, basis.operands(torch.float64, x.device))
            expected = expected + torch.nn.functional.silu(x.double()) @ base_weight.double().mT
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y, kept = cpu.link(x, weight, gain, None, base_weight, operand)
                assert difference(y, expected) < 2 * TOLERANCE[dtype]
                if threads < 3 and outputs > 1 and gain_how != "every second":
                    assert kept.data_ptr() == weight.data_ptr()  # nothing was packed
                together = weight, gain, None, base_weight, operand, True, True, False
                given = [product.contiguous(), kept, *([] if weight.is_contiguous() else [weight])]
                packed, *others = ([y, *cpu.link_gradients(g, x, w, *together)] for w in given)
                for other in others:
                    assert all(a is b or torch.equal(a, b) for a, b in zip(packed, other, strict=True))
                found.append(packed)
            for other in found[1:]:
                assert all(a is b or torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", LAST_POLICIES)
def test_both_gradients_in_one_pass(isa, case, dtype):
    """The same bits as one after the other, for one thread (one pass) and more threads than inputs (two).

    Wherever the gradient of the coefficients is given: as kernels read them, or outputs first.
    """
    basis = cases.build(case)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for shape in [*SHAPES, (0, 4, 3, 2), (1, 0, 3, 2), (1, 4, 3, 0)]:
                x, w, g, _, operand = operands(basis, shape, dtype)
                slope, v, _ = link_gradients(g, x, w, w, None, operand, True, True)
                assert torch.equal(slope, cpu.sum_outputs(x, w, g, operand.derivative()))
                assert torch.equal(v, cpu.sum_batch(x, g, None, operand))
                assert link_gradients(g, x, w, w, None, operand, False, False) == (None, None, None)
                assert torch.equal(link_gradients(g, x, w, w, None, operand, True, False)[0], slope)
                peers = arranged(w, "outputs first")
                for weight in (w, peers):
                    for of_x in (True, False):
                        found = link_gradients(g, x, w, weight, None, operand, of_x, True)
                        assert found[1].stride() == weight.stride() and torch.equal(found[1], v)
                        assert torch.equal(found[0], slope) if of_x else found[0] is None
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shape", "segments"),
    [
        ((2, 20, 5, 37), 4),
        ((1, 20, 16, 64), 3),
        ((1, 20, 33, 33), 4),
        ((1, 530, 40, 3000), 4),  # sums of less than all inputs at once, rows in several tiles
        ((1, 20, 40, 9000), 4),  # of less than a tile's inputs
        ((1, 9, 3, 20000), 8),  # of too few: packed first
    ],
)
def test_gradients_where_coefficients_lie(isa, shape, segments):
    """Outputs first, with a gain: the packed ones times the gain; the same bits for any number of threads."""
    basis = hof.bases.piecewise_lagrange(3, segments)
    x, w, g, _, operand = operands(basis, shape, torch.float32)
    gain = torch.rand(shape[0], shape[2], shape[3])
    product, peers = w * gain.unsqueeze(-2), arranged(w, "outputs first")
    v = cpu.sum_batch(x, g, None, operand)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found.append(link_gradients(g, x, product, peers, gain, operand, True, True))
            assert torch.equal(found[-1][1], v * gain.unsqueeze(-2))
            assert torch.equal(link_gradients(g, x, w, peers, None, operand, True, True)[1], v)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))
    assert difference(found[0][2], (v.double() * w.double()).sum(-2)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", ["bspline-linear", "lagrange-linear"])
def test_base_branch(isa, case, dtype):
    """Against products in float64; others' gradients keep their bits, all are the same for any threads."""
    basis = cases.build(case)
    before = torch.get_num_threads()
    try:
        for shape in [*SHAPES, (2, 2100, 70, 3), (0, 4, 3, 2), (1, 0, 3, 2), (1, 4, 3, 0), (1, 4, 0, 3)]:
            x, w, g, _, operand = operands(basis, shape, dtype)
            groups, _, inputs, outputs = shape
            base, base_weight = torch.randn_like(x), torch.randn(groups, outputs, inputs).to(dtype)
            peers, gain = arranged(w, "outputs first"), torch.rand(groups, inputs, outputs).to(dtype)
            exact = [t.double() for t in (x, peers * gain.unsqueeze(-2), base, base_weight, g)]
            double = basis.operands(torch.float64, x.device)
            expected = [
                reference.sum_inputs(*exact[:2], None, double) + exact[2] @ exact[3].mT,
                exact[4] @ exact[3],
                exact[4].mT @ exact[2],
            ]
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y, packed = cpu.link(x, peers, gain, base, base_weight, operand)
                grads = cpu.link_gradients(
                    g, x, packed, peers, gain, base, base_weight, operand, True, True, True
                )
                for a, b in zip((y, *grads[3:]), expected, strict=True):
                    assert a.dtype == dtype and difference(a, b) < 2 * TOLERANCE[dtype], shape
                others = link_gradients(g, x, packed, peers, gain, operand, True, True)
                assert all(torch.equal(*pair) for pair in zip(grads, others, strict=False))
                half = cpu.link_gradients(
                    g, x, packed, peers, gain, base, base_weight, operand, False, True, True
                )
                assert half[0] is None and torch.equal(half[3], grads[3]) and torch.equal(half[4], grads[4])
                half = cpu.link_gradients(
                    g, x, packed, peers, gain, base, base_weight, operand, True, True, False
                )
                assert half[3] is None and torch.equal(half[0], grads[0]) and torch.equal(half[4], grads[4])
                found.append((y, *grads))
            for other in found[1:]:
                assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True)), shape
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", ["bspline-zero", "lagrange-linear"])
def test_silu_branch(isa, case, dtype):
    """Against torch in float64; x wide or of 16 bits, every arrangement of it, any threads to the bit."""
    basis = cases.build(case)
    before = torch.get_num_threads()
    shapes = [*SHAPES, (2, 2100, 70, 3), (0, 4, 3, 2), (1, 0, 3, 2), (1, 4, 3, 0), (1, 4, 0, 3)]
    arrangements = ["as read", "outputs first", "every second", "reversed"]
    try:
        for shape, how in zip(shapes, itertools.cycle(arrangements)):
            x, w, g, _, operand = operands(basis, shape, dtype)
            x = arranged(x.to(lookup_dtype(x)) if how == "every second" else x, how)
            groups, _, inputs, outputs = shape
            base_weight = torch.randn(groups, outputs, inputs).to(dtype)
            wide = x.double().requires_grad_()
            values = torch.nn.functional.silu(wide)
            exact = [t.double() for t in (w, base_weight, g)]
            double = basis.operands(torch.float64, x.device)
            (slope,) = torch.autograd.grad(values, wide, exact[2] @ exact[1])
            expected = [
                reference.sum_inputs(wide, exact[0], None, double) + values @ exact[1].mT,
                reference.sum_outputs(wide, exact[0], exact[2], double.derivative()) + slope,
                exact[2].mT @ values,
            ]
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y, packed = cpu.link(x, w, None, None, base_weight, operand)
                arguments = g, x, packed, w, None, None, base_weight, operand
                of_x, of_w, _, of_base, of_weight = cpu.link_gradients(*arguments, True, True, False)
                assert of_base is None and of_x.dtype == x.dtype and y.dtype == dtype
                for a, b in zip((y, of_x, of_weight), expected, strict=True):
                    assert difference(a, b.detach()) < 2 * TOLERANCE[dtype], (shape, how)
                half = cpu.link_gradients(*arguments, False, True, False)
                assert half[0] is None and torch.equal(half[1], of_w) and torch.equal(half[4], of_weight)
                assert torch.equal(link_gradients(g, x, packed, w, None, operand, True, True)[1], of_w)
                found.append((y, of_x, of_w, of_weight))
            for other in found[1:]:
                assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True)), shape
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_silu_of_any_number(isa, dtype):
    """To a few roundings of torch's in float64, its zeros and what is no number; slopes, too."""
    basis, far = cases.build("bspline-zero"), torch.finfo(dtype).max
    special = torch.tensor(
        [far, -far, torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 1e-30, 1e-310], dtype=dtype
    )
    near, wide = torch.linspace(-30, 30, 4001), torch.linspace(-1200, 1200, 4001)
    x = torch.cat([near.to(dtype), wide.to(dtype), special])[:, None]
    w, one = x.new_zeros(1, basis.size, 1), x.new_ones(1, 1)
    operand = basis.operands(dtype, x.device)
    y, packed = cpu.link(x, w, None, None, one, operand)
    slope = cpu.link_gradients(torch.ones_like(x), x, packed, w, None, None, one, operand, True, True, False)[
        0
    ]
    exact = x.double().requires_grad_()
    values = torch.nn.functional.silu(exact)
    (expected,) = torch.autograd.grad(values.sum(), exact)
    rounding = torch.finfo(dtype).eps
    for a, b in ((y, values.detach()), (slope, expected)):
        torch.testing.assert_close(a.double(), b, rtol=8 * rounding, atol=rounding, equal_nan=True)


def test_a_base_as_it_lies():
    """Rows apart, numbers apart, one row for all, negative views, no rows."""
    basis = hof.bases.bspline(2, 5)
    x, w, g, _, operand = operands(basis, (1, 40, 6, 5), torch.float32)
    x, w, g = x[0], w[0], g[0]
    values, base_weight = torch.randn(40, 12), torch.randn(6, 5).mT
    negative = torch.complex(torch.zeros(40, 6), values[:, :6].contiguous()).conj().imag
    for base in (values[:, 3:9], values[:, ::2], values[:1, :6].expand(40, 6), negative):
        y, packed = cpu.link(x, w, None, base, base_weight, operand)
        assert difference(y, link(x, w, None, operand)[0] + base @ base_weight.mT) < 1e-5
        found = cpu.link_gradients(g, x, packed, w, None, base, base_weight, operand, True, True, True)
        assert difference(found[3], g @ base_weight) < 1e-5
        assert difference(found[4], g.mT @ base) < 1e-5
    for base in (torch.empty(0, 12)[:, ::2], torch.empty(0, 1).expand(0, 6)):
        assert cpu.link(x[:0], w, None, base, base_weight, operand)[0].shape == (0, 5)
        found = cpu.link_gradients(
            g[:0], x[:0], packed, w, None, base, base_weight, operand, True, True, True
        )
        assert found[3].shape == (0, 6) and found[4].abs().sum() == 0


def test_a_base_that_does_not_match_is_refused():
    """By the operator itself, which would read past its end."""
    basis = hof.bases.piecewise_lagrange(3, 2)
    x, w, _, _, operand = operands(basis, (1, 7, 4, 5), torch.float32)
    base, weight = torch.randn(1, 7, 4), torch.randn(1, 5, 4)
    for wrong in (base[:, :6], base[..., :3], base[0, :6]):
        with pytest.raises(RuntimeError, match="base"):
            cpu.link(x, w, None, wrong, weight, operand)
    for wrong in (weight[:, :4], weight[..., :3], weight.mT):
        with pytest.raises(RuntimeError, match="base_weight"):
            cpu.link(x, w, None, base, wrong, operand)
    with pytest.raises(RuntimeError, match="dtypes differ"):
        cpu.link(x, w, None, base.double(), weight, operand)


def test_a_weight_that_does_not_match_is_refused():
    """By the operator itself, which would write its gradient past the end."""
    basis = hof.bases.piecewise_lagrange(3, 2)
    x, w, g, _, operand = operands(basis, (1, 7, 4, 5), torch.float32)
    for weight in (w[:, :3], w[..., :4], arranged(w[:, :3], "outputs first")):
        with pytest.raises(RuntimeError, match="weight"):
            link_gradients(g, x, w, weight, None, operand, True, True)


@pytest.mark.parametrize("negative", ["x", "weight", "gain"])
def test_negative_views(negative):
    """torch keeps the imaginary part of a conjugate as it lies, with a bit that says to negate it."""
    basis = hof.bases.piecewise_lagrange(3, 2)
    given = {"x": torch.rand(5, 2), "weight": torch.randn(2, basis.size, 3), "gain": torch.randn(2, 3)}
    plain = dict(given)
    plain[negative] = -given[negative]
    given[negative] = torch.complex(torch.zeros_like(given[negative]), given[negative]).conj().imag
    assert given[negative].is_neg()
    operand = basis.operands(torch.float32, torch.device("cpu"))
    found, expected = [link(g["x"], g["weight"], g["gain"], operand)[0] for g in (given, plain)]
    assert torch.equal(found, expected)
