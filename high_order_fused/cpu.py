"""The C++ backend: the three contractions on a CPU, computing in float32 or float64 over any storage."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from . import native
from .backends import Backend, Packing, register
from .checks import choice as one_of
from .operands import Operands

ISAS = ("baseline", "avx2", "avx512")
_SUM_INPUTS, _SUM_OUTPUTS, _SUM_BATCH = range(3)
_NATIVE = (torch.float32, torch.float64)
_STRATEGIES = (
    "product (every window is all coefficients): a matrix product whose factor is made on the fly",
    "grouped (several rows a segment): sorted rows pass by a window of coefficients in registers",
    "rows (about a row a segment or less): coefficients in the order they lie in",
)


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    return _contract(_SUM_INPUTS, x, w, None, s, basis)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    return _contract(_SUM_OUTPUTS, x, w, g, None, basis)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    return _contract(_SUM_BATCH, x, None, g, s, basis)


def gradients(x: Tensor, w: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> tuple[Tensor, Tensor]:
    """As sum_outputs over the derivative of basis, and sum_batch, to the bit."""
    tensors = basis.derivative().tensors  # with a table of one order more
    if g.stride(-1) != 1:
        g = g.contiguous()
    slope, v = torch.ops.high_order_fused.cpu_gradients.default(
        x, w.contiguous(), g, s, *tensors, [*basis.layout], _isa
    )
    return slope, v


def _contract(
    missing: int, x: Tensor, w: Tensor | None, g: Tensor | None, s: Tensor | None, basis: Operands
) -> Tensor:
    if w is not None:
        w = w.contiguous()
    if g is not None and g.stride(-1) != 1:
        g = g.contiguous()
    result: Tensor = torch.ops.high_order_fused.cpu_contract.default(
        missing, x, w, g, s, *basis.tensors, [*basis.layout], _isa
    )
    return result


def choice(contraction: str, x: Tensor, w: Tensor, basis: Operands) -> str:
    """Strategy and tiles of a contraction of x and w, in words; the cost model is csrc/cpu/choice.h."""
    together = contraction == "gradients"  # cut as sum_batch is
    number = ("sum_inputs", "sum_outputs", "sum_batch").index("sum_batch" if together else contraction)
    narrow = w.dtype not in _NATIVE
    chosen = torch.ops.high_order_fused.cpu_choice.default(
        number, x, w.shape[-1], narrow, *basis.tensors, [*basis.layout], _isa
    )
    strategy, rows, units, scratch = chosen.tolist()
    if together:
        enough = units >= torch.get_num_threads()
        return (
            "in one pass, cut as sum_batch"
            if enough
            else "one after the other: too few inputs for all threads"
        )
    threads = min(units, torch.get_num_threads())
    return (
        f"{_STRATEGIES[strategy]}; tiles of {rows} rows, {units} {'unit' if units == 1 else 'units'} on "
        f"{threads} {'thread' if threads == 1 else 'threads'}, {scratch // 1024} KiB of scratch each"
    )


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Within the block kernels use these instructions ("baseline", "avx2", "avx512"), for tests and timing.

    ValueError for one that the processor does not have.
    """
    global _isa
    available = ISAS[: torch.ops.high_order_fused.cpu_isa() + 1]
    before, _isa = _isa, ISAS.index(one_of("isa", name, available))
    try:
        yield
    finally:
        _isa = before


def transpose(matrix: Tensor, factor: Tensor | None = None) -> Tensor:
    """[..., r, c] to [..., c, r], contiguous; factor [..., r, i] multiplies each c / i columns of a row."""
    if matrix.dtype not in _NATIVE:
        return _scaled(matrix, factor).mT.contiguous()
    factor = None if factor is None else factor.contiguous()
    result: Tensor = torch.ops.high_order_fused.cpu_transpose.default(matrix.contiguous(), factor, _isa)
    return result


def transpose_gradients(cotangent: Tensor, matrix: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of matrix [..., r, c] and factor [..., r, i] of `transpose`, cotangent [..., c, r]."""
    if matrix.dtype not in _NATIVE:
        g = cotangent.mT
        by_input = (g * matrix).unflatten(-1, (factor.shape[-1], -1))
        return _scaled(g, factor), by_input.sum(-1)
    tensors = (cotangent.contiguous(), matrix.contiguous(), factor.contiguous())
    of_matrix, of_factor = torch.ops.high_order_fused.cpu_transpose_gradients.default(*tensors, _isa)
    return of_matrix, of_factor


def _scaled(matrix: Tensor, factor: Tensor | None) -> Tensor:
    if factor is None:
        return matrix
    return matrix * factor.repeat_interleave(matrix.shape[-1] // factor.shape[-1], -1)


def _refuses(x: Tensor) -> str | None:
    return None if x.device.type == "cpu" else "the C++ kernels run on a CPU"


_isa = 0
if native.native_missing() is None:
    _isa = torch.ops.high_order_fused.cpu_isa()
    library = torch.library.Library("high_order_fused", "IMPL")
    library.impl("transpose", transpose, "CPU")
    for name in ("cpu_contract", "cpu_gradients", "cpu_transpose", "cpu_transpose_gradients"):
        # they run below our own autograd; torch's default for operators without a rule costs 15 us a call
        library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    packing = Packing(transpose, transpose_gradients)
    detail = f"C++, {ISAS[_isa]}"
    register(Backend("cpu", sum_inputs, sum_outputs, sum_batch, _refuses, detail, packing, gradients, choice))
