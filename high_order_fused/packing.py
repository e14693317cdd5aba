"""Coefficients in the form kernels read: [groups, inputs, K, outputs], contiguous."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from .backends import get, resolve
from .basis import Basis
from .ops import forward_levels, plain


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
    return contiguous(w, get(resolve(w)).transpose).contiguous(), basis


def contiguous(w: Tensor, transpose: Callable[[Tensor], Tensor] | None) -> Tensor:
    """w [E, I, K, O] as the backend with this transposition reads it, differentiable; with none, as it is."""
    if transpose is None or w.is_contiguous():
        return w
    first = w.permute(0, 3, 1, 2)  # as in the peers' layers
    if not first.is_contiguous():
        return w.contiguous()
    return _by(transpose, first.flatten(2)).view(w.shape)


def _by(transpose: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    """[..., r, c] to [..., c, r] by the function of a backend, differentiable."""
    if not plain((matrix,)):
        return cast(Tensor, _transposed(matrix))
    if torch.is_grad_enabled() and matrix.requires_grad:
        return cast(Tensor, _EagerTranspose.apply(matrix, transpose))  # type: ignore[no-untyped-call]
    return transpose(matrix)


class _EagerTranspose(torch.autograd.Function):
    """`_Transpose` for eager reverse mode, as ops._EagerForm."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.transpose = transpose
        return transpose(matrix)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return _by(ctx.transpose, cotangent), None


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
