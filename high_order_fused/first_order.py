"""Operators whose first derivative is a kernel: what products and convolutions share.

The backend computes them and their gradients. Higher derivatives, forward mode and `vmap` go through a
composite of plain operations and of the form, which is differentiable to any order.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import Backend, get
from .operands import Layout, Operands
from .ops import BASIS, Plan, library, owned, plain

Basis = tuple[Tensor, ...]  # the tensors of `Operands`
Geometry = tuple[int, ...]  # constants of a call besides those of the basis
Gradients = tuple[Tensor | None, Tensor | None]


class Rule(NamedTuple):
    """An operator of x, w and a basis, and its derivatives.

    forward(backend, x, w, basis, geometry); gradients(backend, g, x, w, basis, geometry, of_x, of_w): those
    of x and w, None where not wanted; composite(plan, x, w, basis, geometry): the same as forward by what
    is differentiable; shape(x, w, geometry): that of the result, which has the dtype of w.
    """

    name: str
    forward: Callable[[Backend, Tensor, Tensor, Operands, Geometry], Tensor]
    gradients: Callable[[Backend, Tensor, Tensor, Tensor, Operands, Geometry, bool, bool], Gradients]
    composite: Callable[[Plan, Tensor, Tensor, Basis, Geometry], Tensor]
    shape: Callable[[Tensor, Tensor, Geometry], tuple[int, ...]]

    def __call__(self, plan: Plan, x: Tensor, w: Tensor, basis: Basis, geometry: Geometry = ()) -> Tensor:
        """The operator on the backend of the plan."""
        result: Tensor
        if not plain((x, w, *basis)):
            result = _general(self.name, plan, geometry, x, w, *basis)
        elif torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
            result = _FirstOrder.apply(self, plan, geometry, x, w, *basis)  # type: ignore[no-untyped-call]
        else:
            result = self.forward(get(plan.backend), x, w, Operands.of(basis, plan.layout), geometry)
        return result

    def pulled(
        self, plan: Plan, g: Tensor, x: Tensor, w: Tensor, basis: Basis, geometry: Geometry
    ) -> Gradients:
        """The gradients from that of the result, as they are differentiated again: the composite's."""
        leaves = [t for t in (x, w) if t.requires_grad]
        y = self.composite(plan, x, w, basis, geometry)
        found = iter(torch.autograd.grad(y, leaves, g, create_graph=True, materialize_grads=True))
        of_x, of_w = (next(found) if t.requires_grad else None for t in (x, w))
        return of_x, of_w


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rule: Rule, plan: Plan, geometry: Geometry, x: Tensor, w: Tensor, *basis: Tensor
    ) -> Tensor:
        ctx.rule, ctx.plan, ctx.geometry, ctx.basis = rule, plan, geometry, basis
        ctx.save_for_backward(x, w)
        return owned(rule.forward(get(plan.backend), x, w, Operands.of(basis, plan.layout), geometry))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        rule, plan, geometry = ctx.rule, ctx.plan, ctx.geometry
        if torch.is_grad_enabled():
            grads = rule.pulled(plan, g, x, w, ctx.basis, geometry)
        else:
            operands = Operands.of(ctx.basis, plan.layout)
            grads = rule.gradients(get(plan.backend), g, x, w, operands, geometry, *ctx.needs_input_grad[3:5])
        return None, None, None, *grads, None, None, None, None


_rules: dict[str, Rule] = {}


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _general(name: str, plan: Plan, geometry: Geometry, x: Tensor, w: Tensor, *basis: Tensor) -> Tensor:
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return _rules[name].composite(plan, x, w, basis, geometry)
    operator = getattr(torch.ops.high_order_fused, name).default
    result: Tensor = operator(x, w, *basis, list(plan.layout), plan.backend, list(geometry))
    return result


def register(rule: Rule) -> None:
    """Define the raw operators of a rule: what a compiled or exported graph holds."""
    name = rule.name
    _rules[name] = rule

    def kernel(x: Tensor, w: Tensor, *others: Any) -> Tensor:
        *basis, layout, backend, geometry = others
        return rule.forward(get(backend), x, w, Operands.of(basis, Layout(*layout)), tuple(geometry))

    def gradients(g: Tensor, x: Tensor, w: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        *basis, layout, backend, geometry, of_x, of_w = others
        operands = Operands.of(basis, Layout(*layout))
        found = rule.gradients(get(backend), g, x, w, operands, tuple(geometry), of_x, of_w)
        a, b = (
            t.contiguous() if wanted and t is not None else like.new_empty(0)
            for like, t, wanted in zip((x, w), found, (of_x, of_w), strict=True)
        )
        return a, b

    def fake_gradients(g: Tensor, x: Tensor, w: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        a, b = (t.new_empty(t.shape if wanted else 0) for t, wanted in zip((x, w), others[-2:], strict=True))
        return a, b

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, layout, ctx.backend, geometry = inputs
        ctx.layout, ctx.geometry = Layout(*layout), tuple(geometry)
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w, *basis = ctx.saved_tensors
        plan, wanted = Plan("g", ctx.backend, ctx.layout), ctx.needs_input_grad[:2]
        found: tuple[Tensor | None, ...]
        if torch.is_grad_enabled():
            found = rule.pulled(plan, g, x, w, tuple(basis), ctx.geometry)
        else:
            operator = getattr(torch.ops.high_order_fused, f"{name}_gradients").default
            constants = (list(ctx.layout), ctx.backend, list(ctx.geometry))
            given = operator(g, x, w, *basis, *constants, *wanted)
            found = tuple(t if want else None for t, want in zip(given, wanted, strict=True))
        return *found, *(None,) * 7

    constants = f"{BASIS}, int[] geometry"
    library.define(f"{name}(Tensor x, Tensor w, {constants}) -> Tensor")
    wanted = "bool of_x, bool of_w"
    library.define(
        f"{name}_gradients(Tensor g, Tensor x, Tensor w, {constants}, {wanted}) -> (Tensor, Tensor)"
    )
    library.impl(name, kernel, "CompositeExplicitAutograd")
    library.impl(f"{name}_gradients", gradients, "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"high_order_fused::{name}",
        lambda x, w, *others: w.new_empty(rule.shape(x, w, others[-1])),
        lib=library,
    )
    torch.library.register_fake(f"high_order_fused::{name}_gradients", fake_gradients, lib=library)
    torch.library.register_autograd(f"high_order_fused::{name}", backward, setup_context=setup, lib=library)
