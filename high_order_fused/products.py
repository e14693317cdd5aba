"""Products of functions over inputs: the second reduction.

Beyond the first derivative what is recorded holds numbers for every edge and row.
"""

import torch
from torch import Tensor

from . import reference
from .first_order import Basis, Geometry, Rule, register
from .operands import Operands
from .ops import Plan

_EDGES = 2**24  # of a part of the outputs, in the composite


def composite(plan: Plan, x: Tensor, w: Tensor, basis: Basis, _: Geometry = ()) -> Tensor:
    """P by plain operations, over parts of the outputs."""
    operands = Operands.of(basis, plan.layout)
    part = max(1, _EDGES // max(1, x.numel()))
    parts = [reference.product(x, some, operands) for some in w.split(part, -1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


# P [E, B, O] of x [E, B, I] and w [E, I, K, O]
product = Rule(
    "product",
    lambda backend, x, w, basis, _: backend.product(x, w, basis),
    lambda backend, g, x, w, basis, *_: backend.product_gradients(g, x, w, basis),
    composite,
    lambda x, w, _: (*x.shape[:2], w.shape[3]),
)
register(product)
