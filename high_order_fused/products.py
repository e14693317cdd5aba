"""Products of functions as differentiable operators: the second reduction, and its backward rule.

The first derivative is a kernel of the backend. Higher ones, forward mode and `vmap` go through the
reference, which is made of plain operations; what is recorded then holds numbers for every edge.
"""

from typing import Any

import torch
from torch import Tensor

from . import reference
from .backends import get
from .operands import Layout, Operands
from .ops import BASIS, Plan, library, plain

_EDGES = 2**24  # of a part of the outputs, in the composite


def product(plan: Plan, x: Tensor, w: Tensor, basis: tuple[Tensor, ...]) -> Tensor:
    """P [E, B, O] of x [E, B, I] and w [E, I, K, O]; basis: the tensors of `Operands`."""
    result: Tensor
    if not plain((x, w, *basis)):
        result = _general(plan, x, w, *basis)
    elif torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        result = _Product.apply(plan, x, w, *basis)  # type: ignore[no-untyped-call]
    else:
        result = get(plan.backend).product(x, w, Operands.of(basis, plan.layout))
    return result


def composite(plan: Plan, x: Tensor, w: Tensor, basis: tuple[Tensor, ...]) -> Tensor:
    """The same by plain operations, over parts of the outputs."""
    operands = Operands.of(basis, plan.layout)
    part = max(1, _EDGES // max(1, x.numel()))
    parts = [reference.product(x, some, operands) for some in w.split(part, -1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _pulled(
    plan: Plan, g: Tensor, x: Tensor, w: Tensor, basis: tuple[Tensor, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and w: the backend's, or, where they are differentiated again, the composite's."""
    if not torch.is_grad_enabled():
        return get(plan.backend).product_gradients(g, x, w, Operands.of(basis, plan.layout))
    leaves = [t for t in (x, w) if t.requires_grad]
    found = iter(
        torch.autograd.grad(
            composite(plan, x, w, basis), leaves, g, create_graph=True, materialize_grads=True
        )
    )
    of_x, of_w = (next(found) if t.requires_grad else None for t in (x, w))
    return of_x, of_w


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, w: Tensor, *basis: Tensor) -> Tensor:
        ctx.plan, ctx.basis = plan, basis
        ctx.save_for_backward(x, w)
        return get(plan.backend).product(x, w, Operands.of(basis, plan.layout))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return None, *_pulled(ctx.plan, g, x, w, ctx.basis), None, None, None, None


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _general(plan: Plan, x: Tensor, w: Tensor, *basis: Tensor) -> Tensor:
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return composite(plan, x, w, basis)
    operator = torch.ops.high_order_fused.product.default
    result: Tensor = operator(x, w, *basis, list(plan.layout), plan.backend)
    return result


# ---- raw operators: what a compiled or exported graph holds


def _product_kernel(x: Tensor, w: Tensor, *basis: Any) -> Tensor:
    *tensors, layout, backend = basis
    return get(backend).product(x, w, Operands.of(tensors, Layout(*layout)))


def _gradients_kernel(g: Tensor, x: Tensor, w: Tensor, *basis: Any) -> tuple[Tensor, Tensor]:
    *tensors, layout, backend = basis
    return get(backend).product_gradients(g, x, w, Operands.of(tensors, Layout(*layout)))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, layout, backend = inputs
    ctx.plan = Plan("g", backend, Layout(*layout))
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, w, *basis = ctx.saved_tensors
    if torch.is_grad_enabled():
        of_x, of_w = _pulled(ctx.plan, g, x, w, tuple(basis))
    else:
        operator = torch.ops.high_order_fused.product_gradients.default
        of_x, of_w = operator(g, x, w, *basis, list(ctx.plan.layout), ctx.plan.backend)
    return of_x, of_w, *(None,) * 6


def _fake_gradients(g: Tensor, x: Tensor, w: Tensor, *basis: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), w.new_empty(w.shape)


library.define(f"product(Tensor x, Tensor w, {BASIS}) -> Tensor")
library.define(f"product_gradients(Tensor g, Tensor x, Tensor w, {BASIS}) -> (Tensor, Tensor)")
library.impl("product", _product_kernel, "CompositeExplicitAutograd")
library.impl("product_gradients", _gradients_kernel, "CompositeExplicitAutograd")
torch.library.register_fake(
    "high_order_fused::product",
    lambda x, w, *basis: w.new_empty(*x.shape[:2], w.shape[3]),
    lib=library,
)
torch.library.register_fake("high_order_fused::product_gradients", _fake_gradients, lib=library)
torch.library.register_autograd("high_order_fused::product", _backward, setup_context=_setup, lib=library)
