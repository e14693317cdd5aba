"""The kernels of convolutions against the composite of links: odd sizes, storage, wild inputs, operators."""

import itertools

import pytest
import torch

import high_order_fused as hof
from high_order_fused import convolved, native
from high_order_fused.backends import get
from high_order_fused.basis import lookup_dtype
from high_order_fused.geometry import Geometry
from high_order_fused.ops import Plan
from tests import cases
from tests.support import difference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# image, kernel, stride, padding, dilation; groups, images, channels and outputs of a group
SHAPES = {
    "small": ((5, 4, 1), (3, 2, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), 1, 2, 3, 5),
    "strided": ((7, 9, 1), (3, 4, 1), (2, 3, 1), (2, 1, 0), (1, 2, 1), 2, 3, 2, 6),
    "line": ((41, 1, 1), (5, 1, 1), (2, 1, 1), (3, 0, 0), (3, 1, 1), 1, 2, 17, 70),
    "volume": ((3, 4, 5), (2, 3, 2), (1, 2, 1), (0, 1, 1), (1, 1, 2), 1, 2, 3, 33),
    "missed": ((8, 7, 1), (1, 1, 1), (3, 2, 1), (0, 0, 0), (1, 1, 1), 1, 2, 4, 16),
    "outside": ((2, 2, 1), (3, 3, 1), (1, 1, 1), (4, 3, 0), (1, 1, 1), 1, 1, 2, 7),
    "bands": ((90, 70, 1), (3, 3, 1), (1, 1, 1), (1, 1, 0), (1, 1, 1), 1, 1, 2, 64),
    "cropped": ((300, 70, 1), (1, 1, 1), (1, 1, 1), (100, 0, 0), (1, 1, 1), 1, 1, 1, 64),
    "cropped far": ((127, 64, 1), (2, 1, 1), (10, 1, 1), (600, 0, 0), (1, 1, 1), 1, 1, 1, 64),
    "many": ((3, 3, 1), (2, 2, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, 70, 18, 130),
}


def operands(basis, shape, transposed, dtype):
    image, kernel, stride, padding, dilation, groups, images, channels, outputs = SHAPES[shape]
    lists = zip(image, kernel, stride, padding, dilation, strict=True)
    if transposed:
        size = tuple(max((n - 1) * s - 2 * p + d * (k - 1) + 1, 1) for n, k, s, p, d in lists)
    else:
        size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in lists)
    geometry = Geometry(kernel, stride, padding, dilation, size, transposed)
    channels = basis.inputs or channels
    x = cases.points(images, groups * channels, *image, dtype=dtype)
    w = cases.normal(groups, channels, basis.size, geometry.taps, outputs, dtype=dtype)
    g = cases.normal(images, groups * outputs, *size, dtype=dtype)
    return x, w, g, basis.operands(lookup_dtype(x), x.device), geometry


def reference(x, w, g, basis, geometry):
    """y and both gradients in float64, by links on the reference backend."""
    tensors = [t.double() for t in basis.tensors[:3]] + [basis.start]
    a, b = (t.double().requires_grad_() for t in (x, w))
    plan = Plan("g", "reference", basis.layout)
    y = convolved.composite(plan, a, b, tuple(tensors), geometry.integers())
    return y, *torch.autograd.grad(y, (a, b), g.double())


def both(backend, x, w, g, basis, geometry):
    integers = geometry.integers()
    y = backend.conv(x, w, basis, integers)
    return y, *backend.conv_gradients(g, x, w, basis, integers, True, True)


def test_integers_there_and_back():
    for shape, transposed in itertools.product(SHAPES, (False, True)):
        geometry = operands(hof.bases.lagrange(2), shape, transposed, torch.float32)[-1]
        assert Geometry.of(geometry.integers()) == geometry


NATIVE = pytest.mark.skipif(native.native_missing() is not None, reason=f"native: {native.native_missing()}")


BASES = {
    "continuous": lambda: hof.bases.piecewise_lagrange(3, 4),
    "polynomial": lambda: hof.bases.lagrange(5, outside="extrapolate"),
    "polynomial-linear": lambda: hof.bases.lagrange(4),
    "fourier": lambda: hof.bases.fourier(7),
    "many": lambda: hof.bases.piecewise_lagrange(2, 40, continuous=False),
    "knots": lambda: cases.build("bspline-knots-linear"),
}


@NATIVE
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("base", BASES)
def test_cpu(isa, base, shape, transposed):
    for dtype in (torch.float64, torch.float32):
        made = operands(BASES[base](), shape, transposed, dtype)
        for actual, expected in zip(both(get("cpu"), *made), reference(*made), strict=True):
            assert difference(actual, expected) < TOLERANCE[dtype]


@NATIVE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", ["small", "strided", "many"])
def test_cpu_stored_in_16_bits(isa, shape, dtype):
    basis = hof.bases.piecewise_lagrange(3, 4)
    x, w, g, ops, geometry = operands(basis, shape, False, dtype)
    for x_dtype in (dtype, torch.float32):  # the latter as autocast has it
        made = (x.to(x_dtype), w, g, ops, geometry)
        for actual, expected in zip(both(get("cpu"), *made), reference(*made), strict=True):
            assert difference(actual, expected) < TOLERANCE[dtype]


@NATIVE
def test_cpu_threads_give_the_same_bits():
    threads = torch.get_num_threads()
    # many segments: one part of the sums, and units of fewer inputs the more threads there are
    for shape, segments in (("bands", 4), ("many", 4), ("strided", 4), ("many", 40)):
        made = operands(hof.bases.piecewise_lagrange(3, segments), shape, False, torch.float32)
        found = []
        try:
            for count in (1, 2, 3, 16):
                torch.set_num_threads(count)
                found.append(both(get("cpu"), *made))
        finally:
            torch.set_num_threads(threads)
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@NATIVE
def test_cpu_gives_what_is_wanted():
    x, w, g, ops, geometry = operands(hof.bases.fourier(3), "strided", False, torch.float32)
    gradients, integers = get("cpu").conv_gradients, geometry.integers()
    of_x, of_w = gradients(g, x, w, ops, integers, True, True)
    assert torch.equal(gradients(g, x, w, ops, integers, True, False)[0], of_x)
    assert torch.equal(gradients(g, x, w, ops, integers, False, True)[1], of_w)
    assert gradients(g, x, w, ops, integers, False, False) == (None, None)


@NATIVE
def test_cpu_wild_inputs(isa):
    basis = cases.build("bspline-clamp")
    x, w, g, ops, geometry = operands(basis, "small", False, torch.float32)
    for place, value in ((0, torch.nan), (7, torch.inf), (11, -torch.inf), (13, 3e38)):
        x.view(-1)[place] = value
    y, of_x, of_w = both(get("cpu"), x, w, g, ops, geometry)
    met = convolved.composite(Plan("g", "reference", ops.layout), x, w, ops.tensors, geometry.integers())
    assert torch.equal(y.isnan(), met.isnan()) and 0 < y.isnan().sum() < y.numel()
    assert of_w.isnan().any() and of_x.view(-1)[20:].isfinite().all()


_triton = hof.backends()["triton"]
TRITON = pytest.mark.skipif(not _triton.available, reason=f"triton: {_triton.detail}")


SMALL = [(base, shape) for base in ("continuous", "fourier", "knots") for shape in ("small", "outside")]
SMALL += [("continuous", "missed")]
SMALL += [("polynomial-linear", shape) for shape in SHAPES if shape not in ("bands", "many")]


@TRITON
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("base", "shape"), SMALL)
def test_triton(base, shape, transposed):
    for dtype in (torch.float32, torch.float64) if base == "continuous" else (torch.float32,):
        made = operands(BASES[base](), shape, transposed, dtype)
        for actual, expected in zip(both(get("triton"), *made), reference(*made), strict=True):
            assert difference(actual, expected) < TOLERANCE[dtype]


@TRITON
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_triton_stored_in_16_bits(dtype):
    made = operands(hof.bases.piecewise_lagrange(3, 4), "small", False, dtype)
    for actual, expected in zip(both(get("triton"), *made), reference(*made), strict=True):
        assert actual.dtype == dtype and difference(actual, expected) < TOLERANCE[dtype]


@TRITON
def test_triton_wild_inputs():
    x, w, g, ops, geometry = operands(cases.build("bspline-clamp"), "small", False, torch.float32)
    for place, value in ((0, torch.nan), (7, torch.inf), (11, -torch.inf), (13, 3e38)):
        x.view(-1)[place] = value
    y, of_x, of_w = both(get("triton"), x, w, g, ops, geometry)
    met = convolved.composite(Plan("g", "reference", ops.layout), x, w, ops.tensors, geometry.integers())
    assert torch.equal(y.isnan(), met.isnan()) and 0 < y.isnan().sum() < y.numel()
    assert of_w.isnan().any() and of_x.view(-1)[20:].isfinite().all()


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=NATIVE), pytest.param("triton", marks=TRITON)])
@pytest.mark.parametrize("empty", ["images", "channels", "outputs"])
def test_empty(backend, empty):
    x, w, g, ops, geometry = operands(hof.bases.lagrange(3), "small", False, torch.float32)
    if empty == "images":
        x, g = x[:0], g[:0]
    elif empty == "channels":
        x, w = x[:, :0], w[:, :0]
    else:
        w, g = w[..., :0], g[:, :0]
    y, of_x, of_w = both(get(backend), x, w, g, ops, geometry)
    assert y.shape == g.shape and of_x.shape == x.shape and of_w.shape == w.shape
    for t in (y, of_x, of_w):
        assert torch.equal(t, torch.zeros_like(t))


@NATIVE
@pytest.mark.parametrize("operator", ["conv", "conv_gradients"])
def test_opcheck(operator):
    x, w, g, ops, geometry = operands(hof.bases.piecewise_lagrange(3, 2), "strided", False, torch.float64)
    rest = (*ops.tensors, list(ops.layout), "cpu", list(geometry.integers()))
    arguments = (x.requires_grad_(), w.requires_grad_(), *rest)
    if operator == "conv_gradients":
        arguments = (g, x.detach(), w.detach(), *rest, False, True)
    torch.library.opcheck(getattr(torch.ops.high_order_fused, operator).default, arguments)


@NATIVE
@pytest.mark.parametrize("change", ["x", "w", "g", "geometry"])
def test_malformed_calls_raise(change):
    x, w, g, ops, geometry = operands(hof.bases.lagrange(3), "small", False, torch.float32)
    integers = geometry.integers()
    if change == "x":
        x = x[:, :2].contiguous()
    elif change == "w":
        w = w[:, :, :2].contiguous()
    elif change == "g":
        g = g[:, :2].contiguous()
    else:
        integers = geometry._replace(size=(9, 9, 9)).integers()
    with pytest.raises(RuntimeError):
        get("cpu").conv_gradients(g, x, w, ops, integers, True, True)
