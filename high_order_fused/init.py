"""Initial coefficients. Every edge begins as a random constant unless a peer does something else."""

import math

import torch
from torch import Tensor

from .basis import Basis
from .features import HOST


def random_constants_(weight: Tensor, *bases: Basis, inputs: int | None = None) -> Tensor:
    """Fill weight [I, K, ...] in place: each edge a constant function, drawn from U(-b, b).

    Its variance is 1 / inputs; an output has I of them if nothing else is said. Of several bases, one for
    each variable, K is the product of their sizes.

    ValueError for a basis whose coefficients of the function 1 are not known (a derivative).
    """
    one = torch.ones(1, **HOST)
    for basis in bases:
        if basis.one is None:
            raise ValueError(f"basis: got {basis!r}, needs one that knows the coefficients of the function 1")
        one = torch.kron(one, basis.one.cpu().double())
    bound = math.sqrt(3 / (inputs or weight.shape[0]))
    with torch.no_grad():
        edges = torch.empty_like(weight[:, :1]).uniform_(-bound, bound)
        return weight.copy_(one.to(weight).view(-1, *(1,) * (weight.dim() - 2)) * edges)


def peer_constants_(w: Tensor, weight_magnitude: float = 1.0) -> Tensor:
    """Fill w [O, I, K] in place: each edge all one value from U[0, weight_magnitude / I), in a single draw.

    Source: high-order-layers-torch, constant_random_initialization; bit-equal from the same seed.
    """
    with torch.no_grad():
        edges = torch.rand(w.shape[0], w.shape[1], device=w.device, dtype=w.dtype)
        return w.copy_((edges * weight_magnitude / w.shape[1]).unsqueeze(-1).expand_as(w))
