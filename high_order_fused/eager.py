"""`link` where nothing but reverse mode watches: views, packing and kernels in one node of the graph.

Small layers spend their time between kernels; here that is one Function instead of one for each view. It
knows no rule of its own: gradients are those of ops.py, and what is differentiated again is done there.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import get
from .ops import Plan, Slots, form, gradients, kernel, plain
from .packing import contiguous, packed, unpacked


class Link(NamedTuple):
    """The tensors of a `link`: x [(E,) ..., I], weight [(E,) I, K, O], scale like x, gain [(E,) I, O]."""

    x: Tensor
    weight: Tensor
    scale: Tensor | None
    gain: Tensor | None

    def grouped(self) -> "Link":
        """The same as views with E and one axis of rows: [E, B, I], [E, I, K, O], [E, B, I], [E, I, O]."""
        x, weight, scale, gain = self
        if weight.dim() == 3:
            weight, gain = weight.unsqueeze(0), None if gain is None else gain.unsqueeze(0)
            if x.dim() == 2:
                return Link(x.unsqueeze(0), weight, None if scale is None else scale.unsqueeze(0), gain)
            shape = (1, math.prod(x.shape[:-1]), x.shape[-1])
        else:
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        return Link(x.reshape(shape), weight, None if scale is None else scale.reshape(shape), gain)


def evaluate(plan: Plan, link: Link, basis: tuple[Tensor, ...]) -> Tensor:
    """The output [(E,) ..., O] of a link whose tensors were checked."""
    if not plain(link):
        return general(plan, link, basis)
    if torch.is_grad_enabled():
        for t in link:
            if t is not None and t.requires_grad:
                result: Tensor = _EagerLink.apply(plan, basis, *link)  # type: ignore[no-untyped-call]
                return result
    return _forward(plan, link, basis)[0]


def general(plan: Plan, link: Link, basis: tuple[Tensor, ...]) -> Tensor:
    """The same by differentiable operations alone, for transforms, compilers and higher derivatives."""
    x, w, s, gain = link.grouped()
    y = form(plan, {"g": None, "s": s, "w": _packed(plan, w, gain)}, x, basis)
    return y.reshape(*link.x.shape[:-1], w.shape[-1])


def _packed(plan: Plan, w: Tensor, gain: Tensor | None) -> Tensor:
    packing = get(plan.backend).packing
    w = w if gain is None else w * gain.unsqueeze(-2)
    return w if packing is None else contiguous(w, packing)


def _forward(plan: Plan, link: Link, basis: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    x, w, s, gain = link.grouped()
    w = packed(w, gain, get(plan.backend).packing)
    y = kernel(plan, {"g": None, "s": s, "w": w}, x, basis)
    if link.x.dim() == 2:
        return y.squeeze(0), w
    return y.view(*link.x.shape[:-1], w.shape[-1]), w


class _EagerLink(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, basis: tuple[Tensor, ...], *tensors: Any) -> Tensor:
        link = Link(*tensors)
        y, w = _forward(plan, link, basis)
        ctx.plan, ctx.basis = plan, basis
        ctx.save_for_backward(*link, w)
        return y

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, w = ctx.saved_tensors
        plan, link, needs = ctx.plan, Link(*tensors), ctx.needs_input_grad[2:]
        direct = plain((cotangent,)) and not torch.is_grad_enabled()
        x, weight, s, gain = link.grouped()
        slots: Slots = {"g": None, "s": s, "w": w if direct else _packed(plan, weight, gain)}
        wanted = (False, needs[2], needs[0], needs[1] or needs[3])
        rows = cotangent.reshape(*x.shape[:2], w.shape[-1])
        found = gradients(plan, rows, slots, x, ctx.basis, wanted, kernel if direct else form)
        of_w, of_gain = found["w"], None
        if of_w is not None:
            of_w, of_gain = unpacked(of_w, weight, gain, get(plan.backend).packing if direct else None)
        grads = (found["x"], of_w, found["s"], of_gain)
        return (
            None,
            None,
            *(
                grad.reshape(t.shape) if need and grad is not None and t is not None else None
                for grad, need, t in zip(grads, needs, link, strict=True)
            ),
        )
