"""Coefficients in the form kernels read: [groups, inputs, K, outputs], contiguous."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from .basis import Basis
from .ops import forward_levels, plain

Transposition = Callable[[Tensor], Tensor]  # [..., r, c] to [..., c, r], contiguous


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
    return contiguous(w, _kernel), basis


def contiguous(w: Tensor, transpose: Transposition) -> Tensor:
    """w [E, I, K, O], contiguous; where outputs come first in memory, as in the peers' layers, transposed."""
    if w.is_contiguous():
        return w
    outputs_first = w.permute(0, 3, 1, 2)
    if not outputs_first.is_contiguous():
        return w.contiguous()
    if not plain((w,)):
        return cast(Tensor, _transposed(outputs_first.flatten(2))).view(w.shape)
    if not (w.requires_grad and torch.is_grad_enabled()):
        return transpose(outputs_first.flatten(2)).view(w.shape)
    return cast(Tensor, _EagerPack.apply(w, transpose))  # type: ignore[no-untyped-call]


class _EagerPack(torch.autograd.Function):
    """The transposition with its views in one node, for eager reverse mode."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, transpose: Transposition) -> Tensor:
        ctx.transpose = transpose
        return transpose(w.permute(0, 3, 1, 2).flatten(2)).view(w.shape)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        groups, inputs, size, outputs = cotangent.shape
        rows = cotangent.reshape(
            groups, inputs * size, outputs
        )  # batched gradients know reshape, not flatten
        direct = plain((rows,)) and not torch.is_grad_enabled()
        columns = ctx.transpose(rows) if direct else _transposed(rows)
        return columns.reshape(groups, outputs, inputs, size).permute(0, 2, 3, 1), None


class _Transpose(torch.autograd.Function):
    """[..., r, c] to [..., c, r], contiguous: linear, and its own adjoint."""

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        return _kernel(matrix)

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
        return _composite(matrix)
    result: Tensor = _Transpose.apply(matrix)  # type: ignore[no-untyped-call]
    return result


def _kernel(matrix: Tensor) -> Tensor:
    result: Tensor = torch.ops.high_order_fused.transpose.default(matrix)
    return result


def _composite(matrix: Tensor) -> Tensor:
    return matrix.mT.contiguous()


def _backward(ctx: Any, cotangent: Tensor) -> Tensor:
    return cast(Tensor, _transposed(cotangent))


_library = torch.library.Library("high_order_fused", "FRAGMENT")
_library.define("transpose(Tensor matrix) -> Tensor")
_library.impl("transpose", _composite, "CompositeExplicitAutograd")
torch.library.register_fake("high_order_fused::transpose", lambda m: m.new_empty(m.mT.shape), lib=_library)
torch.library.register_autograd("high_order_fused::transpose", _backward, lib=_library)
