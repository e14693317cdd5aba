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
    if plain((w,)) and not (w.requires_grad and torch.is_grad_enabled()):
        return packed(w, None, packing)
    first = None if w.is_contiguous() else _outputs_first(w)
    return w.contiguous() if first is None else cast(Tensor, _transposed(first)).view(w.shape)


def packed(w: Tensor, gain: Tensor | None, packing: Packing | None) -> Tensor:
    """w [E, I, K, O] times gain [E, I, O] as the backend reads it, in one pass if it can."""
    if gain is None and (packing is None or w.is_contiguous()):
        return w
    first, factor = _both_first(w, gain)
    if packing is None or first is None:
        w = w if gain is None else w * gain.unsqueeze(-2)
        return w if packing is None else w.contiguous()
    return packing.transpose(first, factor).view(w.shape)


def unpacked(
    v: Tensor, w: Tensor, gain: Tensor | None, packing: Packing | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of w and gain from v, that of `packed`; differentiable without a packing."""
    if gain is None and (packing is None or w.is_contiguous()):
        return v, None
    first, factor = _both_first(w, gain)
    if packing is None or first is None:
        return (v, None) if gain is None else (v * gain.unsqueeze(-2), (v * w).sum(-2))
    groups, inputs, size, outputs = w.shape
    rows = v.reshape(groups, inputs * size, outputs)
    if factor is None:
        columns, of_factor = packing.transpose(rows, None), None
    else:
        columns, of_factor = packing.gradients(rows, first, factor)
        of_factor = of_factor.transpose(1, 2)
    return columns.view(groups, outputs, inputs, size).permute(0, 2, 3, 1), of_factor


def _both_first(w: Tensor, gain: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """w as [E, O, I K] and gain as [E, O, I], if that is how they lie in memory and their dtypes agree."""
    first, factor = _outputs_first(w), None if gain is None else gain.transpose(1, 2)
    if factor is not None and (factor.dtype != w.dtype or not factor.is_contiguous()):
        return None, None
    return first, factor


def _outputs_first(w: Tensor) -> Tensor | None:
    first = w.permute(0, 3, 1, 2)
    return first.flatten(2) if first.is_contiguous() else None


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
