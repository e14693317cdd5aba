"""The Triton kernels in their interpreter: each kernel against the reference, odd sizes, split sums."""

import types

import pytest
import torch

import high_order_fused as hof
from high_order_fused import functional, gpu_cost, reference
from tests import cases, support
from tests.cases import operands, three
from tests.support import difference

_status = hof.backends()["triton"]
pytestmark = pytest.mark.skipif(not _status.available, reason=f"triton: {_status.detail}")
if _status.available:
    from high_order_fused.triton_kernels import call, choice, launch
    from high_order_fused.triton_kernels.tiles import Sizes

FAMILIES = [f"{family}-{policies[-1]}" for family, policies in cases.POLICIES.items()]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# sizes beside those of tiles
SHAPES = [(1, 1, 1, 1), (2, 3, 17, 2), (1, 66, 3, 67)]


@pytest.mark.parametrize("kind", ["dense", "gather"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", FAMILIES)
def test_every_kernel_and_size(kind, case, dtype):
    basis = cases.build(case)
    shapes = SHAPES[1:2] if dtype != torch.float32 else SHAPES[:2] if kind == "gather" else SHAPES
    for shape in shapes:
        arguments = operands(basis, shape, dtype)
        exact = three(
            reference,
            *(t.double() for t in arguments[:4]),
            basis.operands(torch.float64, arguments[0].device),
        )
        with gpu_cost.prefer(kind):
            for actual, expected in zip(three(launch, *arguments), exact, strict=True):
                assert actual.dtype == dtype and difference(actual, expected) < TOLERANCE[dtype], shape


@pytest.mark.parametrize(("n", "segments"), [(1, 3), (2, 1), (2, 40), (5, 2), (5, 7), (9, 2), (13, 1)])
def test_every_window_and_number_of_segments(n, segments):
    """Blocks of functions of every size; a search of every depth; beyond 64 functions gathers alone."""
    for knots in (None, torch.linspace(-1, 1, segments + 1) ** 3):
        basis = hof.bases.piecewise_lagrange(n, segments, knots=knots)
        arguments = operands(basis, (1, 5, 2, 3), torch.float64)
        for actual, expected in zip(three(launch, *arguments), three(reference, *arguments), strict=True):
            assert difference(actual, expected) < 1e-11


def test_sums_in_parts_are_the_same_every_time():
    basis = cases.build("lagrange-2-zero")
    x, w, g, s, operand = operands(basis, (1, 600, 3, 3), torch.float32)
    assert launch.choice("sum_batch", x, 3, g.dtype, operand).parts > 1
    v = launch.sum_batch(x, g, s, operand)
    assert difference(v, reference.sum_batch(x, g, s, operand)) < 1e-5
    assert torch.equal(v, launch.sum_batch(x, g, s, operand))
    few, w, _, _, _ = operands(basis, (1, 1, 70, 3), torch.float32)
    with gpu_cost.prefer("gather"):
        assert launch.choice("sum_inputs", few, 3, w.dtype, operand).parts > 1
        y = launch.sum_inputs(few, w, None, operand)
    assert difference(y, reference.sum_inputs(few, w, None, operand)) < 1e-5


def test_a_tile_whose_code_spills_gives_way_to_a_smaller_one(monkeypatch):
    basis = cases.build("lagrange-2-zero")
    x, w, _, _, operand = operands(basis, (1, 5, 3, 3), torch.float32)
    launched = call.Call._launch
    seen = []

    def spilling(call, how, **others):
        launched(call, how, **others)
        seen.append(how)
        return types.SimpleNamespace(n_spills=100 * (how.tile.rows > 16 or how.tile.functions > 1))

    monkeypatch.setattr(call.Call, "_launch", spilling)
    monkeypatch.setattr(call, "_spilled", {})
    with gpu_cost.prefer("dense"):
        for tried in (9, 1):  # fewer rows, functions, outputs, and rows again
            del seen[:]
            y = launch.sum_inputs(x, w, None, operand)
            assert difference(y, reference.sum_inputs(x, w, None, operand)) < 1e-5
            assert seen[-1].tile.rows == 16 and seen[-1].tile.functions == 1 and len(seen) <= tried
            assert launch.choice("sum_inputs", x, 3, w.dtype, operand) == seen[-1]
    monkeypatch.setattr(call, "_spilled", {})

    def always_spilling(call, how, **others):
        launched(call, how, **others)
        return types.SimpleNamespace(n_spills=100)

    monkeypatch.setattr(call.Call, "_launch", always_spilling)
    y = launch.sum_inputs(x, w, None, operand)  # none is small enough: the first it is
    assert difference(y, reference.sum_inputs(x, w, None, operand)) < 1e-5


def test_the_cost_model():
    """Few rows or many functions gather, full tiles multiply, where there is much to do the library does."""
    bases = {"spline": hof.bases.bspline(3, 5), "fine": hof.bases.piecewise_lagrange(4, 80)}
    bases["polynomial"] = hof.bases.lagrange(4, outside="extrapolate")

    def kernel(name, batch, inputs=256, outputs=256):
        shape = call.shape_of(bases[name].operands(torch.float32, torch.device("cpu")))
        sizes = Sizes(batch, inputs, outputs)
        return choice.chosen("sum_inputs", 1, sizes, shape, torch.bfloat16, 132).kernel

    assert kernel("spline", 1) == kernel("polynomial", 1) == "sum_inputs_gather"
    assert kernel("spline", 512) == kernel("polynomial", 512) == "sum_inputs_dense"
    assert kernel("spline", 4096) == kernel("polynomial", 4096) == "expand"
    assert kernel("fine", 4096) == "sum_inputs_gather"
    assert kernel("spline", 1, 8192, 8192) == "sum_inputs_gather"
    assert kernel("spline", 4096, 2**17) == "sum_inputs_dense"  # too few rows at a time would find room


def test_layers_train_and_explain():
    layer = hof.HighOrderLinear(3, 4, hof.bases.piecewise_lagrange(3, 4)).to(support.DEVICE)
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(9, 3, device=support.DEVICE, requires_grad=True)
    grads = {}
    for backend in ("triton", "reference"):
        with hof.use_backend(backend):
            layer.zero_grad()
            x.grad = None
            layer(x).square().sum().backward()
            grads[backend] = (x.grad, layer.weight.grad.clone())
            if backend == "triton":
                (call,) = hof.explain(layer, x)
    assert "triton" in call.backend and "tiles" in call.steps["gradient of weight"]
    for actual, expected in zip(grads["triton"], grads["reference"], strict=True):
        assert difference(actual, expected) < 1e-5


def test_packing_is_transposed():
    layer = hof.layers.high_order_fc_layers("continuous", n=3, in_features=3, out_features=5, segments=2)
    x = torch.rand(4, 3, device=support.DEVICE)
    layer.to(x)
    with hof.use_backend("triton"):
        y = layer(x)
    assert (
        difference(y, functional.link(x, layer.w.detach().permute(1, 2, 0).contiguous(), layer.basis)) < 1e-5
    )
