"""Convolutions of images of three axes as operators: the backend's kernels, and a composite of links."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from . import products
from .backends import Backend
from .eager import Link, evaluate
from .first_order import Basis, Gradients, Rule, register
from .first_order import Geometry as Integers
from .geometry import Geometry, Phase, place
from .operands import Operands
from .ops import Plan

_TAP_OUTPUTS = 2**20  # numbers of a few images that exist at a time, one for each pixel, tap and output


def composite(plan: Plan, x: Tensor, w: Tensor, basis: Basis, integers: Integers) -> Tensor:
    """By a link of the pixels of some images with the outputs of all taps."""
    geometry = Geometry.of(integers)
    whole = math.prod(x.shape[2:]) * geometry.taps * w.shape[0] * w.shape[-1]
    parts = [(part, _coefficients(w, part)) for part in geometry.phases]
    nothing = _nothing(x, w)
    made = []
    for some in x.split(max(1, _TAP_OUTPUTS // max(1, whole))):
        y = nothing.expand(w.shape[0], len(some), *geometry.size, w.shape[-1])
        for part, own in parts:
            y = _met(plan, some, part, basis, own, y)
        made.append(y.movedim(0, 1).movedim(-1, 2).flatten(1, 2))  # [images, G O/G, *size]
    return (torch.cat(made) if len(made) > 1 else made[0]).contiguous()


def _nothing(x: Tensor, w: Tensor) -> Tensor:
    """0, in w's dtype, that depends on both."""
    return (x.reshape(-1)[:0].sum() + w.reshape(-1)[:0].sum()).to(w.dtype)


def _met(plan: Plan, images: Tensor, part: Phase, basis: Basis, w: Tensor, y: Tensor) -> Tensor:
    """y [G, images, *size, O/G] and what the pixels of a phase bring to it."""
    rows = _rows(images, part, len(w))
    if rows.numel() == 0:
        return y
    taps = evaluate(plan, Link(rows, w), basis)
    taps = taps.unflatten(-1, (len(part.taps), -1))
    placed: Tensor = y + place(taps.flatten(0, 1), part.placement).view_as(y)
    return placed


def _coefficients(w: Tensor, part: Phase) -> Tensor:
    """Those of a phase's taps, as outputs: [G, C/G, K, T O/G], contiguous."""
    own = w if len(part.taps) == w.shape[3] else w[:, :, :, list(part.taps)]
    return own.flatten(3).contiguous()


def _rows(images: Tensor, part: Phase, groups: int) -> Tensor:
    """The pixels of a phase: [G, images, *pixels, C/G]."""
    for axis, (first, every) in enumerate(zip(part.first, part.every, strict=True), 2):
        images = images[(slice(None),) * axis + (slice(first, None, every),)]
    rows: Tensor = images.unflatten(1, (groups, -1)).movedim(1, 0).movedim(2, -1).contiguous()
    return rows


def product(plan: Plan, x: Tensor, w: Tensor, basis: Basis, integers: Integers) -> Tensor:
    """prod (1 + f) - 1 over the channels and taps that are there, shapes as of `conv`.

    A product of the channels for all taps at once, then the product of the taps where they belong.
    """
    geometry, groups = Geometry.of(integers), w.shape[0]
    y = (1 + _nothing(x, w)).expand(groups * len(x), *geometry.size, w.shape[-1])
    for part in geometry.phases:
        rows = _rows(x, part, groups)
        if rows.numel() == 0:
            continue
        taps = products.product(plan, rows.flatten(1, -2), _coefficients(w, part), basis) - 1
        taps = taps.view(*rows.shape[:-1], len(part.taps), -1).flatten(0, 1)
        for tap, offset in enumerate(part.placement.offsets):
            placement = replace(part.placement, offsets=(offset,))
            y = y * (1 + place(taps[..., tap : tap + 1, :], placement))
    made: Tensor = (y - 1).view(groups, -1, *y.shape[1:]).movedim(0, 1).movedim(-1, 2).flatten(1, 2)
    return made


def _forward(backend: Backend, x: Tensor, w: Tensor, basis: Operands, geometry: Integers) -> Tensor:
    assert backend.conv is not None
    return backend.conv(x, w, basis, geometry)


def _gradients(
    backend: Backend,
    g: Tensor,
    x: Tensor,
    w: Tensor,
    basis: Operands,
    geometry: Integers,
    of_x: bool,
    of_w: bool,
) -> Gradients:
    assert backend.conv_gradients is not None
    return backend.conv_gradients(g, x, w, basis, geometry, of_x, of_w)


def _shape(x: Tensor, w: Tensor, geometry: Integers) -> tuple[int, ...]:
    return x.shape[0], w.shape[0] * w.shape[-1], *Geometry.of(geometry).size


# y [N, G O/G, a, b, c] of x [N, G C/G, a, b, c] and w [G, C/G, K, taps, O/G]; the integers are a Geometry's
conv = Rule("conv", _forward, _gradients, composite, _shape)
register(conv)
