"""Coefficients in the form kernels read: [groups, inputs, K, outputs], contiguous."""

from typing import Any, cast

import torch
from torch import Tensor

from .basis import Basis
from .ops import forward_levels


def pack(weight: Tensor, basis: Basis, fold: bool = False) -> tuple[Tensor, Basis]:
    """Coefficients as the kernels read them, and the basis they then belong to.

    weight [I, K, O] or [E, I, K, O], any strides, becomes [E, I, K, O], contiguous. Folding multiplies the
    table in: each of the M segments then has m coefficients of its own and its window values are the features
    themselves, K = M m. Differentiable; the functions do not change.
    """
    w = weight if weight.dim() == 4 else weight.unsqueeze(0)
    if fold:
        windows = basis.start[:, None] + torch.arange(basis.table.shape[-2], device="cpu")
        table = basis.table.to(w).expand(w.shape[1], len(windows), -1, -1)
        w = torch.einsum("eitno,itnm->eitmo", w[:, :, windows.to(w.device)], table).flatten(2, 3)
        basis = basis.folded()
    return contiguous(w), basis


def contiguous(w: Tensor) -> Tensor:
    """w [E, I, K, O], contiguous; where outputs come first in memory, as in the peers' layers, transposed."""
    if w.is_contiguous():
        return w
    outputs_first = w.permute(0, 3, 1, 2)
    if not outputs_first.is_contiguous():
        return w.contiguous()
    result: Tensor = _transposed(outputs_first.flatten(2))
    return result.view(w.shape)


class _Transpose(torch.autograd.Function):
    """[..., r, c] to [..., c, r], contiguous: linear, and its own adjoint."""

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        result: Tensor = torch.ops.high_order_fused.transpose.default(matrix)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return cast(Tensor, _transposed(cotangent))

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return cast(Tensor, _transposed(tangent))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], matrix: Tensor) -> tuple[Tensor, int]:
        return _transposed(matrix.movedim(in_dims[0], 0)), 0


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _transposed(matrix: Tensor) -> Tensor:
    if forward_levels() > 1:  # as in ops._apply
        return matrix.mT.contiguous()
    result: Tensor = _Transpose.apply(matrix)  # type: ignore[no-untyped-call]
    return result


def _kernel(matrix: Tensor) -> Tensor:
    return matrix.mT.contiguous()


def _backward(ctx: Any, cotangent: Tensor) -> Tensor:
    return cast(Tensor, _transposed(cotangent))


_library = torch.library.Library("high_order_fused", "FRAGMENT")
_library.define("transpose(Tensor matrix) -> Tensor")
_library.impl("transpose", _kernel, "CompositeExplicitAutograd")
torch.library.register_fake("high_order_fused::transpose", lambda m: m.new_empty(m.mT.shape), lib=_library)
torch.library.register_autograd("high_order_fused::transpose", _backward, lib=_library)
