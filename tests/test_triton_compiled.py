"""What the cost model can choose, compiled ahead of time: no spills, little shared memory, tensor cores."""

import itertools

import pytest
import torch

import high_order_fused as hof

triton = pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="interpreted kernels are not compiled")
if not triton.knobs.runtime.interpret:
    from high_order_fused.triton_kernels import ahead, choice, launch
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
TYPES = {  # storage, and torch's precision of float32 products
    "bf16": (torch.bfloat16, "highest"),
    "f16": (torch.float16, "highest"),
    "f32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "f64": (torch.float64, "highest"),
}
KERNELS = [
    ("sum_inputs", 1),
    ("sum_outputs", 1),
    ("sum_inputs", 65536),
    ("sum_outputs", 65536),
    ("sum_batch", 65536),
]
MATRIX = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "mfma"}
EVERY = [] if triton.knobs.runtime.interpret else [*itertools.product(BASES, TYPES, KERNELS, ahead.TARGETS)]


def check(base, name, kernel, target):
    dtype, precision = TYPES[name]
    contraction, batch = kernel
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    shape = launch._shape(BASES[base]().operands(compute, torch.device("cpu")))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        how = choice.chosen(contraction, 1, Sizes(batch, 256, 256), shape, dtype, 132)
    finally:
        torch.set_float32_matmul_precision(before)
    found = ahead.read(how, shape, dtype, target)
    assert found.spilled == 0
    assert found.shared <= ahead.SHARED[target] * 1024
    if how.kernel.endswith("dense") and name in ("bf16", "f16", "tf32"):
        assert found.matrix.get(MATRIX[target], 0) > 0
    if name == "f32" and target.startswith("sm"):
        assert found.matrix == {}  # those that take float32 round it


# each base, type, kernel and target at least twice, in other company
SAMPLE = EVERY[::19]


@pytest.mark.parametrize(("base", "name", "kernel", "target"), SAMPLE)
def test_sample(base, name, kernel, target):
    check(base, name, kernel, target)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name", "kernel", "target"), EVERY)
def test_every_choice(base, name, kernel, target):
    check(base, name, kernel, target)


def test_the_sample_meets_everything():
    for axis, names in enumerate((BASES, TYPES, KERNELS, ahead.TARGETS)):
        assert {case[axis] for case in SAMPLE} == set(names)
