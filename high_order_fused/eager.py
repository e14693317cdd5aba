"""`link` where nothing but reverse mode watches: one node of the graph, one call of a backend that has it.

Small layers spend their time between kernels; here that is one Function instead of one for each view and
packing. It knows no rule of its own: what a backend does not do, or is differentiated again, is ops.py's.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .backends import get
from .checks import autocast
from .operands import Operands
from .ops import Plan, Slots, form, gradients, owned, plain
from .packing import contiguous


class Link(NamedTuple):
    """The tensors of a `link`: x [(E,) ..., I], weight [(E,) I, K, O], scale like x, gain [(E,) I, O].

    And of its base branch, if it has base_weight [(E,) O, I]: base like x, or silu(x) where there is none.
    """

    x: Tensor
    weight: Tensor
    scale: Tensor | None = None
    gain: Tensor | None = None
    base: Tensor | None = None
    base_weight: Tensor | None = None

    def rows(self, t: Tensor) -> Tensor:
        """t [(E,) ..., n] with one axis of rows: [(E,) B, n]."""
        lead = self.weight.dim() - 3
        if t.dim() == lead + 2:
            return t
        return t.reshape(*t.shape[:lead], math.prod(t.shape[lead:-1]), t.shape[-1])

    def grouped(self) -> "Link":
        """The same as views with E and one axis of rows: x, scale and base [E, B, I], weight [E, I, K, O]."""
        by_rows = [None if t is None else self.rows(t) for t in (self.x, self.scale, self.base)]
        tensors = by_rows[0], self.weight, by_rows[1], self.gain, by_rows[2], self.base_weight
        if self.weight.dim() == 4:
            return Link(*tensors)  # type: ignore[arg-type]
        return Link(*(None if t is None else t.unsqueeze(0) for t in tensors))  # type: ignore[arg-type]


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
    """The same by the operations of ops.py alone, for transforms, compilers and higher derivatives."""
    x, weight, scale, gain, base, base_weight = link.grouped()
    y = form(plan, {"g": None, "s": scale, "w": _packed(plan, weight, gain)}, x, basis)
    if base_weight is not None:
        y = y + _multiplied(_values(x, base, base_weight), base_weight.mT)
    return y.reshape(*link.x.shape[:-1], weight.shape[-1])


def _packed(plan: Plan, weight: Tensor, gain: Tensor | None) -> Tensor:
    weight = weight if gain is None else weight * gain.unsqueeze(-2)
    return contiguous(weight, get(plan.backend).transpose)


def _forward(plan: Plan, link: Link, basis: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """The output, and the coefficients as the backend packed them, if it made the link in one call."""
    x, weight, scale, gain, base, base_weight = link
    whole = get(plan.backend).link
    if whole is None or scale is not None:
        return general(plan, link, basis), None
    base = None if base is None else link.rows(base)
    y, w = whole(link.rows(x), weight, gain, base, base_weight, Operands.of(basis, plan.layout))
    return y if y.dim() == x.dim() else y.view(*x.shape[:-1], y.shape[-1]), w


class _EagerLink(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, basis: tuple[Tensor, ...], *tensors: Any) -> Tensor:
        y, w = _forward(plan, Link(*tensors), basis)
        ctx.plan, ctx.basis = plan, basis
        ctx.save_for_backward(*tensors, w)
        return owned(y)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, w = ctx.saved_tensors
        plan, link, needs = ctx.plan, Link(*tensors), ctx.needs_input_grad[2:]
        grads: Sequence[Tensor | None]
        if w is not None and plain((cotangent,)) and not torch.is_grad_enabled():
            of_x, of_weight, _, of_gain, of_base, of_base_weight = needs
            whole = get(plan.backend).link_gradients
            assert whole is not None
            operands = Operands.of(ctx.basis, plan.layout)
            g, x, weight, gain = link.rows(cotangent), link.rows(link.x), link.weight, link.gain
            of_weight = of_weight or of_gain
            together = of_weight and of_base_weight  # else products beside the pass
            base, base_weight = (link.base, link.base_weight) if together else (None, None)
            base = None if base is None else link.rows(base)
            wanted = of_x, of_weight, together and of_base
            slope, of_w, scales, *branch = whole(g, x, w, weight, gain, base, base_weight, operands, *wanted)
            if not together:
                slope, *branch = _branch(link, g, needs, slope)
            grads = slope, of_w, None, scales, *branch
        else:
            grads = _gradients(plan, link, ctx.basis, cotangent, needs)
        shaped = (
            _shaped(grad, t) if need and grad is not None and t is not None else None
            for grad, need, t in zip(grads, needs, link, strict=True)
        )
        return None, None, *shaped


def _shaped(grad: Tensor, like: Tensor) -> Tensor:
    # a reshape that changes nothing costs 6 us
    return grad if grad.shape == like.shape else grad.reshape(like.shape)


def _gradients(
    plan: Plan, link: Link, basis: tuple[Tensor, ...], cotangent: Tensor, needs: Sequence[bool]
) -> Sequence[Tensor | None]:
    """The gradients of the tensors of a link, differentiable: those of `general`."""
    grouped = link.grouped()
    x, weight, scale, gain, *_ = grouped
    slots: Slots = {"g": None, "s": scale, "w": _packed(plan, weight, gain)}
    of_x, of_weight, of_scale, of_gain, *_ = needs
    g = cotangent.reshape(*x.shape[:2], weight.shape[-1])
    found = gradients(plan, g, slots, x, basis, (False, of_scale, of_x, of_weight or of_gain))
    v, scales = found["w"], None
    if v is not None and gain is not None:
        v, scales = v * gain.unsqueeze(-2), (v * weight).sum(-2)
    slope, *branch = _branch(grouped, g, needs, found["x"])
    return slope, v, found["s"], scales, *branch


def _branch(
    link: Link, g: Tensor, needs: Sequence[bool], slope: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, base and base_weight where needed; slope: that of x without it, g by rows."""
    base, base_weight = link.base, link.base_weight
    if base_weight is None:
        return slope, None, None
    of_x, *_, of_base, of_base_weight = needs
    x, base = link.rows(link.x), None if base is None else link.rows(base)
    of_values = _multiplied(g, base_weight) if of_base or (base is None and of_x) else None
    sums = _multiplied(g.mT, _values(x, base, base_weight)) if of_base_weight else None
    if base is not None or of_values is None or slope is None:
        return slope, of_values, sums
    if torch.is_grad_enabled():  # torch's own has no derivatives
        sigmoid = x.sigmoid()
        return slope + of_values * (sigmoid * (1 + x * (1 - sigmoid))), None, sums
    return slope + torch.ops.aten.silu_backward.default(of_values.to(x.dtype), x), None, sums


def _values(x: Tensor, base: Tensor | None, base_weight: Tensor) -> Tensor:
    """What base_weight multiplies; autocast has cast base and base_weight, and left x."""
    return functional.silu(x).to(base_weight.dtype) if base is None else base


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, in their dtype: autocast has had its say when a link begins."""
    if not autocast(a):
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
