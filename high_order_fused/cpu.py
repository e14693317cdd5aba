"""The C++ backend: the three contractions on a CPU, in float32 and float64; narrower storage is widened."""

import torch
from torch import Tensor

from . import native
from .backends import Backend, register
from .operands import Operands

ISAS = ("baseline", "avx2", "avx512")
_SUM_INPUTS, _SUM_OUTPUTS, _SUM_BATCH = range(3)


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    return _contract(_SUM_INPUTS, x, w, None, s, basis).to(w.dtype)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    return _contract(_SUM_OUTPUTS, x, w, g, None, basis).to(x.dtype)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    return _contract(_SUM_BATCH, x, None, g, s, basis).to(g.dtype)


def _contract(
    missing: int, x: Tensor, w: Tensor | None, g: Tensor | None, s: Tensor | None, basis: Operands
) -> Tensor:
    dtype = basis.knots.dtype
    x = x.to(dtype)
    w = None if w is None else w.to(dtype).contiguous()
    s = None if s is None else s.to(dtype)
    if g is not None:
        g = g.to(dtype)
        g = g if g.stride(-1) == 1 else g.contiguous()
    result: Tensor = torch.ops.high_order_fused.cpu_contract(
        missing, x, w, g, s, *basis.tensors, list(basis.layout), _isa
    )
    return result


def transpose(matrix: Tensor) -> Tensor:
    """[..., r, c] to [..., c, r], contiguous."""
    if matrix.dtype not in (torch.float32, torch.float64):
        return matrix.mT.contiguous()
    result: Tensor = torch.ops.high_order_fused.cpu_transpose(matrix.contiguous(), _isa)
    return result


def _refuses(x: Tensor) -> str | None:
    return None if x.device.type == "cpu" else "the C++ kernels run on a CPU"


_isa = 0
if native.native_missing() is None:
    _isa = torch.ops.high_order_fused.cpu_isa()
    library = torch.library.Library("high_order_fused", "IMPL")
    library.impl("transpose", transpose, "CPU")
    register(Backend("cpu", sum_inputs, sum_outputs, sum_batch, _refuses, f"C++, {ISAS[_isa]}"))
