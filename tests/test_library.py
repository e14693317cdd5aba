"""Sums and convolutions by the library's products, functions of some rows at a time written out by Triton."""

import pytest
import torch

import high_order_fused as hof
from high_order_fused import reference
from tests import cases, support
from tests import test_conv_kernels as convolutions
from tests.support import difference

_status = hof.backends()["triton"]
pytestmark = pytest.mark.skipif(not _status.available, reason=f"triton: {_status.detail}")
if _status.available:
    from high_order_fused.triton_kernels import call, choice, launch, library

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}
FAMILIES = [f"{family}-{policies[-1]}" for family, policies in cases.POLICIES.items()]


@pytest.fixture(autouse=True)
def whatever_the_work(monkeypatch):
    """Few rows at a time, wherever the library can be asked."""
    monkeypatch.setattr(launch, "LIBRARY_WORK", 1)
    monkeypatch.setattr(choice, "LIBRARY_WORK", 1)
    monkeypatch.setattr(library, "CONVOLVES", True)
    monkeypatch.setattr(call, "_remembered", lambda globally, *arguments: choice.chosen(*arguments))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def small_room(monkeypatch):
    monkeypatch.setattr(library, "ROOM", 2**14)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", FAMILIES)
def test_sums(small_room, case, dtype):
    basis = cases.build(case)
    x, w, g, s, operands = cases.operands(basis, (2, 133, 5, 64), dtype)
    exact = [t.double() for t in (x, w, g, s)]
    exactly = basis.operands(torch.float64, x.device)
    for scale, scaled in ((s, exact[3]), (None, None)):
        assert launch.choice("sum_batch", x, 70, dtype, operands).library
        y, v = launch.sum_inputs(x, w, scale, operands), launch.sum_batch(x, g, scale, operands)
        assert y.dtype == v.dtype == dtype
        assert difference(y, reference.sum_inputs(exact[0], exact[1], scaled, exactly)) < TOLERANCE[dtype]
        assert difference(v, reference.sum_batch(exact[0], exact[2], scaled, exactly)) < TOLERANCE[dtype]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", convolutions.SHAPES)
def test_convolutions(monkeypatch, shape, transposed):
    """All geometries, in every dtype one after the other; two images at a time."""
    dtype = [*TOLERANCE][(list(convolutions.SHAPES).index(shape) + transposed) % 4]
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x, w, g, operands, geometry = convolutions.operands(basis, shape, transposed, dtype)
    monkeypatch.setattr(library, "ROOM", 2 * x[0].numel() * basis.size * x.element_size())
    # of an image that has no places the library would make none, where ours has one
    assert launch._library_convolves(x, w, operands, geometry) != (shape == "outside" and transposed)
    tensors = x, w, g, operands, geometry
    for a, e in zip(convolutions.both(launch, *tensors), convolutions.reference(*tensors), strict=True):
        assert a.dtype == dtype and a.is_contiguous() and difference(a, e) < TOLERANCE[dtype]


def test_one_gradient_of_a_convolution():
    basis = cases.build("bspline-zero")
    x, w, g, operands, geometry = convolutions.operands(basis, "strided", False, torch.float32)
    of_x, of_w = launch.conv_gradients(g, x, w, operands, geometry.integers(), True, True)
    alone, none = launch.conv_gradients(g, x, w, operands, geometry.integers(), True, False)
    assert none is None and torch.equal(alone, of_x)
    none, alone = launch.conv_gradients(g, x, w, operands, geometry.integers(), False, True)
    assert none is None and torch.equal(alone, of_w)


def test_inputs_of_groups_with_knots_of_their_own_are_no_images_of_one_group():
    basis = cases.build("bspline-knots-clamp")
    x, w, _, operands, geometry = convolutions.operands(basis, "strided", False, torch.float32)
    assert not launch._library_convolves(x, w, operands, geometry)


def test_what_is_written_out_has_a_bound():
    """An image that needs more room than there is goes to the tiles, as do results that must not vary."""
    basis = cases.build("bspline-zero")
    x, w, _, operands, geometry = convolutions.operands(basis, "small", False, torch.float32)
    image = x[0].numel() * basis.size * x.element_size()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "ROOM", image)
        assert launch._library_convolves(x, w, operands, geometry)
        patch.setattr(library, "ROOM", image - 1)
        assert not launch._library_convolves(x, w, operands, geometry)


def test_a_library_that_promises_no_same_results_is_not_asked(monkeypatch):
    x, _, _, _, operands = cases.operands(cases.build("lagrange-zero"), (1, 100, 3, 70))
    assert launch.choice("sum_inputs", x, 70, x.dtype, operands).library
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert not launch.choice("sum_inputs", x, 70, x.dtype, operands).library
    torch.use_deterministic_algorithms(False)
    assert launch.choice("sum_inputs", x, 70, x.dtype, operands).library


def test_layers(small_room):
    """Gradients of the second order."""
    layer = hof.HighOrderLinear(3, 64, hof.bases.lagrange(3)).to(support.DEVICE)
    torch.nn.init.normal_(layer.weight)
    x = cases.points(20, 3, dtype=torch.float32).requires_grad_()
    found = []
    for backend in ("triton", "reference"):
        with hof.use_backend(backend):
            (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
            found.append((slope, *torch.autograd.grad(slope.square().sum(), (x, layer.weight))))
    for a, e in zip(*found, strict=True):
        assert difference(a, e) < 1e-4
