"""What the cost model can choose, compiled ahead of time: no spills, little shared memory, tensor cores.

For usual bases the first choice spills nothing; for others, and with a scale, a smaller tile may take its
place, as in a launch.
"""

import itertools

import pytest
import torch

import high_order_fused as hof
from high_order_fused.geometry import Geometry

triton = pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="interpreted kernels are not compiled")
if not triton.knobs.runtime.interpret:
    from high_order_fused.triton_kernels import ahead, call, choice, launch
    from high_order_fused.triton_kernels.tiles import Sizes

BASES = {
    "polynomial": lambda: hof.bases.lagrange(4, outside="extrapolate"),
    "polynomial-9": lambda: hof.bases.lagrange(9, outside="extrapolate"),
    "polynomial-linear": lambda: hof.bases.lagrange(4),
    "fourier": lambda: hof.bases.fourier(5),
    "continuous": lambda: hof.bases.piecewise_lagrange(4, 5),
    "discontinuous": lambda: hof.bases.piecewise_lagrange(3, 4, continuous=False, outside="extrapolate"),
    "spline": lambda: hof.bases.bspline(3, 5),
    "knots": lambda: hof.bases.bspline(3, knots=torch.linspace(-2, 2, 12).expand(256, -1)),
}
OTHERS = {
    **{f"polynomial-{n}": lambda n=n: hof.bases.lagrange(n, outside="extrapolate") for n in (1, 2, 5, 7, 16)},
    "polynomial-12-linear": lambda: hof.bases.lagrange(12),
    "fourier-9": lambda: hof.bases.fourier(9),
    "fourier-33": lambda: hof.bases.fourier(33),
    **{
        f"continuous-{n}x{segments}": lambda n=n, segments=segments: hof.bases.piecewise_lagrange(n, segments)
        for n, segments in ((2, 10), (3, 30), (6, 8), (8, 4), (12, 2))
    },
    "spline-1": lambda: hof.bases.bspline(1, 4),
    "spline-3-fine": lambda: hof.bases.bspline(3, 20),
    "spline-5": lambda: hof.bases.bspline(5, 8),
    "knots-fine": lambda: hof.bases.bspline(3, knots=torch.linspace(-2, 2, 27).expand(256, -1)),
}
TYPES = {  # storage, and torch's precision of float32 products
    "bf16": (torch.bfloat16, "highest"),
    "f16": (torch.float16, "highest"),
    "f32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "f64": (torch.float64, "highest"),
}
KERNELS = [("sum_inputs", 1), ("sum_outputs", 1), ("sum_inputs", 64), ("sum_outputs", 64), ("sum_batch", 64)]
MATRIX = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "mfma"}
SCALED = [False, True]
TARGETS = [] if triton.knobs.runtime.interpret else [*ahead.TARGETS]
EVERY = [
    case
    for case in itertools.product(BASES, TYPES, KERNELS, TARGETS, SCALED)
    if not (case[4] and case[2][0] == "sum_outputs")  # its kernels know no s
]
FURTHER = [case for case in itertools.product(OTHERS, TYPES, KERNELS, TARGETS, [False]) if case[2][1] > 1]


PATCH = None
if not triton.knobs.runtime.interpret:
    PATCH = launch.patch_of(Geometry((3, 3, 1), (2, 1, 1), (1, 1, 0), (1, 2, 1), (28, 28, 1)))
CONVOLUTIONS = [case for case in itertools.product(BASES, TYPES, KERNELS[2:], TARGETS) if case[0] != "knots"]
PRODUCTS = [
    (base, name, (kernel, 65536), target)
    for base, name, kernel, target in itertools.product(
        {**BASES, **OTHERS}, TYPES, ("product", "product_of_x", "product_of_w"), TARGETS
    )
    if name != "tf32"  # no matrix products
]


def check(base, name, kernel, target, scaled=False, patch=None):
    dtype, precision = TYPES[name]
    contraction, batch = kernel
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    make = BASES.get(base) or OTHERS[base]
    shape = call.shape_of(make().operands(compute, torch.device("cpu")))
    before, spilled, found = torch.get_float32_matmul_precision(), set(), None
    torch.set_float32_matmul_precision(precision)
    try:
        usual = target == "sm_90" and not (scaled or patch or base in OTHERS or name == "f64")
        while found is None or (found.spilled > call.FEW_SPILLS and not usual):
            sizes, images = Sizes(batch, 256, 256), patch is not None
            cores = target.startswith("sm")
            how = choice.chosen(contraction, 1, sizes, shape, dtype, 132, spilled, images, cores)
            if how._replace(parts=1) in spilled:
                break  # there is no smaller one
            spilled.add(how._replace(parts=1))
            found = ahead.read(how, shape, dtype, target, scaled, patch)
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.spilled <= call.FEW_SPILLS, f"{how} and {len(spilled) - 1} larger ones"
    assert found.shared <= ahead.SHARED[target] * 1024
    if how.kernel.endswith("dense") and name in ("bf16", "f16", "tf32"):
        # a smaller tile may be too small for the widest instructions
        wanted = (MATRIX[target],) if len(spilled) == 1 else (MATRIX[target], "HMMA")
        assert any(instruction in found.matrix for instruction in wanted)
    if name == "f32" and target.startswith("sm"):  # what takes float32 rounds it: three products lose nothing
        assert how.tile.precision == "tf32x3" or found.matrix == {}


NAMES = ("base", "name", "kernel", "target", "scaled")
# every base, type, kernel and target, most of them several times and in other company
SAMPLE = EVERY[::31] + FURTHER[::61]


@pytest.mark.parametrize(NAMES, SAMPLE)
def test_sample(base, name, kernel, target, scaled):
    check(base, name, kernel, target, scaled)


@pytest.mark.slow
@pytest.mark.parametrize(NAMES, EVERY + FURTHER)
def test_every_choice(base, name, kernel, target, scaled):
    check(base, name, kernel, target, scaled)


def check_convolution(base, name, kernel, target):
    check(base, name, kernel, target, patch=PATCH.inverse() if kernel[0] == "sum_outputs" else PATCH)


@pytest.mark.parametrize(NAMES[:4], CONVOLUTIONS[::37])
def test_sample_of_convolutions(base, name, kernel, target):
    check_convolution(base, name, kernel, target)


@pytest.mark.slow
@pytest.mark.parametrize(NAMES[:4], CONVOLUTIONS)
def test_every_choice_of_convolutions(base, name, kernel, target):
    check_convolution(base, name, kernel, target)


@pytest.mark.parametrize("target", [target for target in TARGETS if target in ("sm_90", "gfx942")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("base", ["polynomial-linear", "fourier", "continuous", "knots", "spline-3-fine"])
def test_what_is_written_out_for_the_library(base, dtype, target):
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    make = BASES.get(base) or OTHERS[base]
    shape = call.shape_of(make().operands(compute, torch.device("cpu")))
    for kernel in ("expand", "contract"):
        how = choice.written_out(Sizes(4096, 256, 256), shape, dtype)._replace(kernel=kernel)
        found = ahead.read(how, shape, dtype, target)
        assert found.spilled <= call.FEW_SPILLS and found.shared <= 32 * 1024


@pytest.mark.parametrize(NAMES[:4], PRODUCTS[::53])
def test_sample_of_products(base, name, kernel, target):
    check(base, name, kernel, target)


@pytest.mark.slow
@pytest.mark.parametrize(NAMES[:4], PRODUCTS)
def test_every_choice_of_products(base, name, kernel, target):
    check(base, name, kernel, target)


def test_the_sample_meets_everything():
    for axis, names in enumerate(({**BASES, **OTHERS}, TYPES, KERNELS, TARGETS, SCALED)):
        assert {case[axis] for case in SAMPLE} == set(names)
