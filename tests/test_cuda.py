"""The results of the CUDA kernels: on a GPU if there is one, else of their own C++ on a CPU.

The shim in tests/cuda_shim runs the threads of a block as fibers, in their order or in the opposite one.
"""

import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import get_cxx_compiler, include_paths, library_paths

import high_order_fused as hof
from high_order_fused import cuda, functional, gpu_cost, reference
from high_order_fused.backends import Backend, _registered
from tests import cases, support
from tests import test_conformance as conformance
from tests.cases import operands, three
from tests.support import difference

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "csrc"
SHIM = Path(__file__).parent / "cuda_shim"
FAMILIES = [f"{family}-{policies[-1]}" for family, policies in cases.POLICIES.items()]


@pytest.mark.skipif(not SOURCES.exists(), reason="an installation without sources")
def test_the_cost_model_knows_the_sizes_of_the_kernels():
    text = "".join(path.read_text() for path in (SOURCES / "cuda").iterdir())
    found = dict(re.findall(r"constexpr int (TILE|THREADS|ENTRIES|DEPTH) = ([^;]+);", text))
    sizes = {name: found[name] for name in ("TILE", "THREADS", "ENTRIES", "DEPTH")}
    assert sizes == {
        "TILE": str(cuda._TILE),
        "THREADS": str(cuda._THREADS),
        "ENTRIES": f"{cuda._SORTED // cuda._THREADS} * THREADS",
        "DEPTH": f"{4 * cuda._DEPTH} / int(sizeof(T))",
    }


@functools.cache
def shim():
    """The kernels for a CPU: their operator."""
    sources = sorted((SOURCES / "cuda").glob("*.cu"))
    read = [*sources, *SOURCES.glob("*.h"), *SOURCES.glob("cuda/*.h"), *SHIM.iterdir()]
    contents = b"".join(path.read_bytes() for path in sorted(read))
    key = hashlib.sha256(contents + torch.__version__.encode()).hexdigest()[:16]
    library = ROOT / "build" / "cuda_shim" / f"{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        whole = library.with_name(f"{os.getpid()}.cpp")
        whole.write_text("".join(f'#include "{path}"\n' for path in (*sources, SHIM / "ops.cpp")))
        command = [get_cxx_compiler(), "-shared", "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-w"]
        command += ["-fno-strict-aliasing", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
        command += [f"-I{folder}" for folder in (SHIM, SOURCES / "cuda", *include_paths())]
        made = whole.with_suffix(".so")
        command += [str(whole), "-o", str(made)]
        command += [*(f"-L{folder}" for folder in library_paths()), "-ltorch_cpu"]
        subprocess.run(command, check=True)
        made.replace(library)  # at once, for processes side by side
    torch.ops.load_library(library)
    return torch.ops.high_order_fused_shim.contract.default


SHIMMED = pytest.param("shim", marks=pytest.mark.slow)
PLACE = SHIMMED if support.DEVICE.type == "cpu" else pytest.param("device", marks=pytest.mark.gpu)


@pytest.fixture(params=[PLACE])
def kernels(request, monkeypatch):
    """Has the backend "cuda" run where tests have their tensors: on a GPU, or on a CPU in the shim."""
    if request.param == "device":
        status = hof.backends()["cuda"]
        if not status.available:
            pytest.skip(f"cuda: {status.detail}")
        return
    if shutil.which(get_cxx_compiler()) is None:
        pytest.skip("no C++ compiler")
    operator = shim()
    monkeypatch.setattr(cuda, "_operator", lambda: operator)
    monkeypatch.setattr(cuda, "_stream", lambda device: 0)
    here = Backend(
        "cuda", cuda.sum_inputs, cuda.sum_outputs, cuda.sum_batch, lambda x: None, "shim", choice=cuda.choice
    )
    monkeypatch.setitem(_registered, "cuda", here)


@pytest.fixture(params=["dense", "gather"])
def kind(request):
    with gpu_cost.prefer(request.param):
        yield request.param


# ---- results

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 5e-4}
# sizes beside those of tiles, vectors and teams; several tiles of everything
SHAPES = [(1, 1, 1, 1), (2, 3, 17, 2), (1, 66, 3, 67), (2, 5, 130, 8), (1, 130, 9, 129)]
# with every case each kind; dtypes, shapes and thus everything else in every company
EVERY = list(itertools.product(FAMILIES, TOLERANCE, SHAPES))
SAMPLE = [EVERY[k] for k in range(0, len(EVERY), 3)]


@pytest.mark.parametrize(("case", "dtype", "shape"), SAMPLE, ids=str)
def test_every_kernel_and_size(kernels, kind, case, dtype, shape):
    basis = cases.build(case)
    arguments = operands(basis, shape, dtype)
    exact = three(
        reference,
        *(t.double() for t in arguments[:4]),
        basis.operands(torch.float64, arguments[0].device),
    )
    for actual, expected in zip(three(cuda, *arguments), exact, strict=True):
        assert actual.dtype == dtype and difference(actual, expected) < TOLERANCE[dtype]


def test_the_sample_meets_everything():
    for axis, values in enumerate((FAMILIES, TOLERANCE, SHAPES)):
        assert {case[axis] for case in SAMPLE} == set(values)
    pairs = {(case[1], case[2]) for case in SAMPLE}
    assert pairs == set(itertools.product(TOLERANCE, SHAPES))


CONFORMANCE = list(itertools.product(cases.CASES, "gsw", conformance.DTYPES))


@pytest.mark.parametrize(("case", "missing", "dtype"), CONFORMANCE[::13], ids=str)
def test_derivatives_of_every_order(kernels, kind, case, missing, dtype):
    conformance.test_contractions("cuda", case, missing, dtype)


@pytest.mark.parametrize("shape", conformance.SHAPES)
def test_shapes(kernels, kind, shape):
    for case, missing in itertools.product(conformance.SAMPLE[::2], "gsw"):
        conformance.test_shapes("cuda", case, shape, missing)


@pytest.mark.parametrize("case", conformance.SAMPLE)
def test_strides(kernels, kind, case):
    for missing in "gsw":
        conformance.test_strides("cuda", case, missing)


def test_half_weights_under_float_inputs(kernels, kind):
    conformance.test_half_weights_under_float_inputs("cuda")


@pytest.mark.parametrize("family", ["lagrange", "piecewise_lagrange-constant", "bspline-knots", "bspline"])
def test_wild_inputs(kernels, kind, family):
    for outside in hof.basis.OUTSIDE:
        conformance.test_wild_inputs("cuda", family, outside)


def test_lookup_to_the_bit(kernels, kind):
    conformance.test_lookup_of_every_backend_is_the_same_to_the_bit("cuda")


@pytest.mark.parametrize(("n", "segments"), [(1, 3), (2, 40), (5, 2), (5, 30), (9, 2), (13, 1), (70, 1)])
def test_every_window_and_number_of_segments(kernels, kind, n, segments):
    """Windows of several quartets; functions of one input in several strips; a search of every depth."""
    for knots in (None, torch.linspace(-1, 1, segments + 1) ** 3):
        basis = hof.bases.piecewise_lagrange(n, segments, knots=knots)
        arguments = operands(basis, (1, 70, 2, 5), torch.float64)
        for actual, expected in zip(three(cuda, *arguments), three(reference, *arguments), strict=True):
            assert difference(actual, expected) < 1e-10


def test_numbers_that_lie_where_no_vector_may_begin(kernels, kind):
    """Views from the second number on of coefficients and cotangents; rows of g that are farther apart."""
    basis = hof.bases.bspline(3, 5)
    for dtype in (torch.float32, torch.bfloat16):
        x, w, g, s, operand = operands(basis, (1, 9, 5, 8), dtype)
        shifted = [torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape) for t in (w, g)]
        apart = torch.cat([g, g[..., :1]], -1)[..., :-1]
        expected = three(cuda, x, w, g, s, operand)
        for actual in (three(cuda, x, *shifted, s, operand), three(cuda, x, w, apart, s, operand)):
            assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_sums_in_parts_are_the_same_every_time(kernels, kind):
    basis = hof.bases.bspline(3, 5)
    x, w, g, s, operand = operands(basis, (1, 5000, 3, 5), torch.float32)
    how = cuda.chosen(2, x, 5, operand)
    v = cuda.sum_batch(x, g, s, operand)
    assert difference(v, reference.sum_batch(x, g, s, operand)) < 1e-5
    assert torch.equal(v, cuda.sum_batch(x, g, s, operand))
    few = operands(basis, (1, 1, 700, 3), torch.float32)[0]
    w = cases.normal(1, 700, basis.size, 3, dtype=torch.float32)
    assert how.parts > 1 and cuda.chosen(0, few, 3, operand).parts > 1
    y = cuda.sum_inputs(few, w, None, operand)
    assert difference(y, reference.sum_inputs(few, w, None, operand)) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(get_cxx_compiler()) is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "basis",
    [
        hof.bases.chebyshev(6),  # two quartets
        hof.bases.piecewise_lagrange(2, 80),  # two strips of an input
        hof.bases.bspline(2, knots=cases.SPLINE_KNOTS),
    ],
    ids=str,
)
def test_the_order_of_threads_changes_no_bit(monkeypatch, kind, basis):
    """Between two barriers no thread reads what another one writes."""
    operator = shim()
    monkeypatch.setattr(cuda, "_operator", lambda: operator)
    for shape, dtype in (((2, 66, 5, 67), torch.float32), ((1, 300, 3, 9), torch.float64)):
        arguments, found = operands(basis, shape, dtype), []
        for stream in (0, 1):
            monkeypatch.setattr(cuda, "_stream", lambda device, stream=stream: stream)
            found.append(three(cuda, *arguments))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_layers_train_and_explain(kernels):
    layer = hof.HighOrderLinear(3, 4, hof.bases.piecewise_lagrange(3, 4)).to(support.DEVICE)
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(9, 3, device=support.DEVICE, requires_grad=True)
    found = {}
    for backend in ("cuda", "reference"):
        with hof.use_backend(backend):
            found[backend] = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
            if backend == "cuda":
                (call,) = hof.explain(layer, x)
    assert call.backend.startswith("cuda") and "gather" in call.steps["output"]
    for actual, expected in zip(found["cuda"], found["reference"], strict=True):
        assert difference(actual, expected) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not hof.backends()["cuda"].available, reason=f"cuda: {hof.backends()['cuda'].detail}")
def test_launches_go_to_the_current_stream():
    """A captured graph holds them, and replays."""
    layer = hof.HighOrderLinear(24, 40, hof.bases.piecewise_lagrange(4, 5)).to("cuda")
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(100, 24, device="cuda")
    with hof.use_backend("cuda"), torch.no_grad():
        expected = layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = functional.link(x, layer.weight, layer.basis)
        graph.replay()
        assert torch.equal(y, expected)
