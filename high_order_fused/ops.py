"""The form as differentiable operators: fake kernels, backward, forward mode and vmap, once for all backends.

One rule serves the three contractions. With the cotangent in the missing slot, the gradient of g, s or w is
the form with that slot missing; the gradient of x is s times the form with s missing, over the derivative
basis. A tangent of x enters as s. So derivatives of any order are these same three kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch._guards import detect_fake_mode
from torch.autograd import forward_ad

from .backends import get
from .operands import Layout, Operands, watched


class Plan(NamedTuple):
    """The constants of a call: the missing slot ("g", "s" or "w"), the backend, the integers of the basis."""

    missing: str
    backend: str
    layout: Layout


Slots = dict[str, Tensor | None]  # g, s and w; None: the missing one, or s for ones

# ---- raw operators: what a compiled or exported graph holds

_SLOTS = ("g", "s", "x", "w")
_RAW = {  # missing slot: operator, its tensors in order
    "g": ("sum_inputs", ("x", "w", "s")),
    "s": ("sum_outputs", ("x", "w", "g")),
    "w": ("sum_batch", ("x", "g", "s")),
}
_SCHEMA = {
    "sum_inputs": "Tensor x, Tensor w, Tensor? s",
    "sum_outputs": "Tensor x, Tensor w, Tensor g",
    "sum_batch": "Tensor x, Tensor g, Tensor? s",
}
library = torch.library.Library("high_order_fused", "FRAGMENT")
BASIS = "Tensor domain, Tensor knots, Tensor tables, Tensor start, int[] layout, str backend"


def _fake_sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, *basis: Any) -> Tensor:
    return w.new_empty(x.shape[0], x.shape[1], w.shape[3])


def _fake_sum_outputs(x: Tensor, w: Tensor, g: Tensor, *basis: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_sum_batch(x: Tensor, g: Tensor, s: Tensor | None, *basis: Any) -> Tensor:
    return g.new_empty(x.shape[0], x.shape[2], Layout(*basis[4]).size, g.shape[2])


def _raw(plan: Plan, slots: Slots, x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    name, order = _RAW[plan.missing]
    operator = getattr(torch.ops.high_order_fused, name).default
    tensors = {**slots, "x": x}
    result: Tensor = operator(*(tensors[slot] for slot in order), *basis, list(plan.layout), plan.backend)
    return result


# ---- the rules


class _Form(torch.autograd.Function):
    @staticmethod
    def forward(plan: Plan, g: Tensor, s: Tensor, x: Tensor, w: Tensor, *basis: Tensor) -> Tensor:
        return _raw(plan, {"g": g, "s": s, "w": w}, x, basis)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        g, s, x, w, *basis = ctx.saved_tensors
        grads = gradients(ctx.plan, cotangent, {"g": g, "s": s, "w": w}, x, basis, ctx.needs_input_grad[1:5])
        return None, *(grads[slot] for slot in _SLOTS), None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any,
        _: None,
        gt: Tensor | None,
        st: Tensor | None,
        xt: Tensor | None,
        wt: Tensor | None,
        *rest: Any,
    ) -> Tensor:
        g, s, x, w, *basis = ctx.saved_tensors
        plan, slots = ctx.plan, {"g": g, "s": s, "w": w}
        parts = [
            form(plan, {**slots, name: tangent}, x, basis)
            for name, tangent in (("g", gt), ("s", st), ("w", wt))
            if tangent is not None
        ]
        if xt is not None:
            steep, tables = _derivative(plan, basis)
            if plan.missing == "s":
                parts.append(xt * form(steep, slots, x, tables))
            else:
                parts.append(form(steep, {**slots, "s": xt if s is None else s * xt}, x, tables))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], plan: Plan, *tensors: Tensor | None) -> tuple[Tensor, int]:
        copies, dims = info.batch_size, in_dims[1:]
        pairs = list(zip(tensors, dims, strict=True))
        if any(d is not None for d in dims[4:]):  # a basis for each copy: one call for each
            rows = (
                [t if t is None or d is None else t.select(d, v) for t, d in pairs] for v in range(copies)
            )
            return torch.stack([_apply(plan, *row) for row in rows]), 0
        g, s, x, w = (
            t if t is None else t.expand(copies, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in pairs[:4]
        )
        if dims[3] is None and plan.missing != "w":  # shared coefficients: the copies are more rows
            g, s, x = (t if t is None else t.transpose(0, 1).flatten(1, 2) for t in (g, s, x))
            return _apply(plan, g, s, x, *tensors[3:]).unflatten(1, (copies, -1)), 1
        g, s, x, w = (t if t is None else t.flatten(0, 1) for t in (g, s, x, w))
        return _apply(plan, g, s, x, w, *tensors[4:]).unflatten(0, (copies, -1)), 0


class _EagerForm(torch.autograd.Function):
    """`_Form` for eager reverse mode: what transforms need costs more than a small layer takes."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Any) -> Tensor:
        ctx.plan, ctx.basis = plan, tensors[4:]
        ctx.save_for_backward(*tensors[:4])
        return owned(_kernel(plan, *tensors))

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        g, s, x, w = ctx.saved_tensors
        slots = {"g": g, "s": s, "w": w}
        grads = gradients(ctx.plan, cotangent, slots, x, ctx.basis, ctx.needs_input_grad[1:5])
        return None, *(grads[slot] for slot in _SLOTS), None, None, None, None


def form(plan: Plan, slots: Slots, x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """T with one slot missing: None in `slots`; no s means ones. basis: the tensors of `Operands`."""
    tensors = (slots["g"], slots["s"], x, slots["w"], *basis)
    result: Tensor
    if not plain(tensors):
        result = _apply(plan, *tensors)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        result = _EagerForm.apply(plan, *tensors)  # type: ignore[no-untyped-call]
    else:
        result = _kernel(plan, *tensors)
    return result


def owned(fresh: Tensor) -> Tensor:
    """What nobody else holds, as no view: a view that a Function returns could not be changed in place."""
    return torch.ops.aten._unsafe_view.default(fresh, fresh.shape) if fresh._is_view() else fresh


def plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether at most reverse mode watches: no compiler, transform, mode, dual or foreign tensor."""
    return not torch.compiler.is_compiling() and forward_ad._current_level < 0 and not watched(tensors)


def _kernel(plan: Plan, g: Any, s: Any, x: Any, w: Any, *basis: Any) -> Tensor:
    """The backend's function itself."""
    backend, operands = get(plan.backend), Operands.of(basis, plan.layout)
    if plan.missing == "g":
        return backend.sum_inputs(x, w, s, operands)
    if plan.missing == "s":
        return backend.sum_outputs(x, w, g, operands)
    return backend.sum_batch(x, g, s, operands)


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _apply(plan: Plan, *tensors: Any) -> Tensor:
    result: Tensor
    if forward_levels() > 1:
        # forward mode inside forward mode drops tangents of an autograd.Function (pytorch#197867);
        # the reference is made of plain operations and keeps them
        if detect_fake_mode() is not None:
            raise NotImplementedError(
                "forward mode inside forward mode is not supported under torch.compile: "
                "call it without compiling, or put reverse mode outside (torch.func.hessian)"
            )
        result = _kernel(plan._replace(backend="reference"), *tensors)
    else:
        result = _Form.apply(plan, *tensors)  # type: ignore[no-untyped-call]
    return result


def gradients(
    plan: Plan,
    cotangent: Tensor,
    slots: Slots,
    x: Tensor,
    basis: Sequence[Tensor],
    needs: Sequence[bool],
) -> dict[str, Tensor | None]:
    """The gradients of g, s, x, w where needed: the only backward rule."""
    full = {**slots, plan.missing: cotangent}
    _, backend, layout = plan
    grads: dict[str, Tensor | None] = dict.fromkeys(_SLOTS)
    need = dict(zip(_SLOTS, needs, strict=True))
    for slot in "gsw":
        if need[slot]:
            grads[slot] = form(Plan(slot, backend, layout), {**full, slot: None}, x, basis)
    if need["x"]:
        steep, tables = _derivative(Plan("s", backend, layout), basis)
        slope = form(steep, {**full, "s": None}, x, tables)
        grads["x"] = slope if full["s"] is None else full["s"] * slope
    return grads


def _derivative(plan: Plan, basis: Sequence[Tensor]) -> tuple[Plan, Sequence[Tensor]]:
    operands = Operands.of(basis, plan.layout).derivative()
    return Plan(plan.missing, plan.backend, operands.layout), operands.tensors


def forward_levels() -> int:
    """How many forward modes surround the call."""
    stack = get_interpreter_stack() or ()
    return sum(interpreter.key() == TransformType.Jvp for interpreter in stack)


# ---- registration


def _register(missing: str, fake: Callable[..., Tensor]) -> None:
    name, order = _RAW[missing]
    qualified = f"high_order_fused::{name}"

    def kernel(*arguments: Any) -> Tensor:
        *tensors, layout, backend = arguments
        slots = {**dict.fromkeys(_SLOTS), **dict(zip(order, tensors, strict=False))}
        plan = Plan(missing, backend, Layout(*layout))
        return _kernel(plan, *(slots[slot] for slot in _SLOTS), *tensors[3:])

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, layout, backend = inputs
        ctx.plan = Plan(missing, backend, Layout(*layout))
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        saved = dict(zip(order, ctx.saved_tensors[:3], strict=True))
        need = dict(zip(order, ctx.needs_input_grad[:3], strict=True))
        slots = {slot: saved.get(slot) for slot in "gsw"}
        needs = [need.get(slot, False) for slot in _SLOTS]
        grads = gradients(ctx.plan, cotangent, slots, saved["x"], ctx.saved_tensors[3:], needs)
        return *(grads[slot] for slot in order), *(None,) * 6

    library.define(f"{name}({_SCHEMA[name]}, {BASIS}) -> Tensor")
    library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=library)
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=library)


_register("g", _fake_sum_inputs)
_register("s", _fake_sum_outputs)
_register("w", _fake_sum_batch)
