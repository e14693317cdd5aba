"""Coefficients in the form kernels read: [groups, inputs, K, outputs], contiguous."""

from typing import Any, cast

import torch
from torch import Tensor

from .backends import Packing, get, resolve
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
    packing = get(resolve(w)).packing
    return (w.contiguous() if packing is None else contiguous(w, packing)), basis


def contiguous(w: Tensor, packing: Packing) -> Tensor:
    """w [E, I, K, O], contiguous; where outputs come first in memory, as in the peers' layers, transposed."""
    if w.is_contiguous():
        return w
    outputs_first = w.permute(0, 3, 1, 2)
    if not outputs_first.is_contiguous():
        return w.contiguous()
    if not plain((w,)):
        return cast(Tensor, _transposed(outputs_first.flatten(2))).view(w.shape)
    if not (w.requires_grad and torch.is_grad_enabled()):
        return packing.transpose(outputs_first.flatten(2), None).view(w.shape)
    return cast(Tensor, _EagerPack.apply(w, packing))  # type: ignore[no-untyped-call]


def scaled(weight: Tensor, factor: Tensor, packing: Packing | None) -> Tensor:
    """weight [O, I, K] times factor [O, I], as [I, K, O]: in one pass where the backend can."""
    outputs, inputs, size = weight.shape
    if packing is None or weight.dtype != factor.dtype or not plain((weight, factor)):
        return (weight * factor.unsqueeze(-1)).permute(1, 2, 0)
    if torch.is_grad_enabled() and (weight.requires_grad or factor.requires_grad):
        return cast(Tensor, _EagerScaledPack.apply(weight, factor, packing))  # type: ignore[no-untyped-call]
    return packing.transpose(weight.flatten(1), factor).view(inputs, size, outputs)


class _EagerPack(torch.autograd.Function):
    """The transposition with its views in one node, for eager reverse mode."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.transpose(w.permute(0, 3, 1, 2).flatten(2), None).view(w.shape)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        groups, inputs, size, outputs = cotangent.shape
        rows = cotangent.reshape(
            groups, inputs * size, outputs
        )  # batched gradients know reshape, not flatten
        direct = plain((rows,)) and not torch.is_grad_enabled()
        columns = ctx.packing.transpose(rows, None) if direct else _transposed(rows)
        return columns.reshape(groups, outputs, inputs, size).permute(0, 2, 3, 1), None


class _EagerScaledPack(torch.autograd.Function):
    """`scaled` for eager reverse mode."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        ctx.save_for_backward(weight, factor)
        outputs, inputs, size = weight.shape
        return packing.transpose(weight.flatten(1), factor).view(inputs, size, outputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, factor = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain((cotangent,)):
            by_edge = cotangent.permute(2, 0, 1)
            return by_edge * factor.unsqueeze(-1), (by_edge * weight).sum(-1), None
        outputs, inputs, size = weight.shape
        g = cotangent.reshape(inputs * size, outputs)
        of_weight, of_factor = ctx.packing.gradients(g, weight.reshape(outputs, -1), factor)
        return of_weight.view(weight.shape), of_factor, None


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
