"""The specification: lookup, features, the three contractions of the form, and products, in plain torch.

    T(g, s, x, w) = sum over e,b,i,k,o of  g[e,b,o] s[e,b,i] w[e,i,k,o] phi_k(x[e,b,i])
    P(x, w)[e,b,o] = product over i of  1 + sum_k w[e,i,k,o] phi_k(x[e,b,i])

Every kernel of every backend does what the functions here do, under the same names.
"""

import torch
from torch import Tensor

from .features import FROZEN, NONE, features
from .operands import Operands


def locate(x: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """Segment (int64) and local coordinate of x [E, B, I], in the dtype of the knots; NaN is in segment 0.

    Source for the uniform grid: high-order-layers-torch, which_segment, in its order of operations.
    """
    knots, layout = basis.knots, basis.layout
    x = x.to(knots.dtype)
    low, high = basis.domain.unbind(1)
    inner = knots if layout.outer == NONE else knots[:, 1:-1]
    segments = inner.shape[1] - 1
    if layout.uniform:
        position = (x - low) / (high - low) * segments
        position = torch.where(x.isnan(), 0.0, position).clamp(0, segments - 1)
        segment = position.to(torch.int64)
    else:
        segment = _search(x.detach(), inner[:, 1:-1])
    if layout.outer != NONE:
        segment = torch.where(x < low, 0, torch.where(x > high, segments + 1, segment + 1))
    left, right = _pick(knots, segment), _pick(knots, segment + 1)
    u = 2 * ((x - left) / (right - left)) - 1
    if layout.outer == FROZEN:
        u = torch.where((segment == 0) | (segment == segments + 1), 0.0, u)
    return segment, u


def window(x: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """First coefficient [E, B, I] and the values [E, B, I, n] of the n functions that x [E, B, I] meets."""
    segment, u = locate(x, basis)
    table = basis.tables[basis.layout.order]
    phi = features(u, table.shape[-1], basis.layout.kind, basis.layout.outer)
    if table.shape[1] > 1:
        feature = torch.arange(table.shape[0], device=x.device)
        values = (table[feature, segment] @ phi.unsqueeze(-1)).squeeze(-1)
    else:
        values = (table[:, 0] @ phi.unsqueeze(-1)).squeeze(-1)
    return basis.start[segment], values


def expand(x: Tensor, basis: Operands) -> Tensor:
    """All K basis functions at x [E, B, I]: [E, B, I, K], zero outside each window."""
    first, values = window(x, basis)
    columns = first.unsqueeze(-1) + torch.arange(values.shape[-1], device=x.device)
    return values.new_zeros(*x.shape, basis.layout.size).scatter(-1, columns, values)


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """y[e,b,o] = sum_i s[e,b,i] f_oi(x[e,b,i]), in the dtype of w. No s means ones."""
    phi = _scaled(expand(x, basis), s)
    return (phi.flatten(2) @ w.to(phi.dtype).flatten(1, 2)).to(w.dtype)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """r[e,b,i] = sum_o g[e,b,o] f_oi(x[e,b,i]), in the dtype of x."""
    phi = expand(x, basis)
    reach = g.to(phi.dtype) @ w.to(phi.dtype).flatten(1, 2).mT
    return (phi * reach.view_as(phi)).sum(-1).to(x.dtype)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """v[e,i,k,o] = sum_b g[e,b,o] s[e,b,i] phi_k(x[e,b,i]), in the dtype of g. No s means ones."""
    phi = _scaled(expand(x, basis), s)
    v: Tensor = phi.flatten(2).mT @ g.to(phi.dtype)
    return v.view(v.shape[0], *phi.shape[2:], v.shape[2]).to(g.dtype)


def product(x: Tensor, w: Tensor, basis: Operands) -> Tensor:
    """P[e,b,o] = prod_i (1 + f_oi(x[e,b,i])), in the dtype of w."""
    return _edges(expand(x, basis), w).add(1).prod(2).to(w.dtype)


def product_gradients(g: Tensor, x: Tensor, w: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """The gradients of x and w from that of P, g; no division, so that factors may be 0."""
    phi, slopes = expand(x, basis), expand(x, basis.derivative())
    factors = 1 + _edges(phi, w)
    one = torch.ones_like(factors[:, :, :1])
    before = torch.cat([one, factors[:, :, :-1]], 2).cumprod(2)
    behind = torch.cat([factors[:, :, 1:], one], 2).flip(2).cumprod(2).flip(2)
    pulled = g.to(phi.dtype).unsqueeze(2) * before * behind
    of_x = (pulled * _edges(slopes, w)).sum(-1)
    of_w = torch.einsum("ebik,ebio->eiko", phi, pulled)
    return of_x.to(x.dtype), of_w.to(w.dtype)


def _edges(phi: Tensor, w: Tensor) -> Tensor:
    """f_oi of every edge: [E, B, I, O]."""
    return torch.einsum("ebik,eiko->ebio", phi, w.to(phi.dtype))


def _scaled(phi: Tensor, s: Tensor | None) -> Tensor:
    return phi if s is None else phi * s.to(phi.dtype).unsqueeze(-1)


def _search(x: Tensor, interior: Tensor) -> Tensor:
    """How many of the interior knots [I|1, M-1] are at or left of x [E, B, I]; NaN counts none."""
    if interior.shape[1] == 0:
        return torch.zeros_like(x, dtype=torch.int64)
    if interior.shape[0] == 1:
        found = torch.searchsorted(interior[0], x.contiguous(), right=True)
    else:
        rows = x.flatten(0, 1).mT.contiguous()
        found = torch.searchsorted(interior.contiguous(), rows, right=True).mT.view(x.shape)
    return torch.where(x.isnan(), 0, found)


def _pick(knots: Tensor, index: Tensor) -> Tensor:
    """knots[i, index[e, b, i]], with knots [I|1, M+1]."""
    return knots[torch.arange(knots.shape[0], device=knots.device), index]
