"""The module Basis: expansions in functions of a basis, and interpolators, which sum or multiply them.

A basis is called with x and a number j and gives phi_j(x). Those of `LagrangePolynomial` know their functions
as a basis of ours (`functions`), whose kernels then do the work; any other callable is met by plain
operations. None of this is an nn.Module.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...basis import Basis as Functions
from ...checks import count
from ...functional import link, link_nd, product
from ...sums import peer_piecewise

__all__ = [
    "Basis",
    "BasisExpand",
    "BasisFlat",
    "BasisFlatND",
    "BasisFlatProd",
    "BasisProd",
    "Callable",
    "PiecewiseDiscontinuousExpand",
    "PiecewiseDiscontinuousExpand1d",
    "PiecewiseExpand",
    "PiecewiseExpand1d",
    "Tensor",
    "math",
    "torch",
]

try:  # only so that star imports bring it along
    import numpy as np
except ModuleNotFoundError:
    pass
else:
    __all__ += ["np"]

Phi = Callable[..., Tensor]


class BasisExpand:
    """phi_0(x) ... phi_{n-1}(x), on a new first axis."""

    def __init__(self, basis: Phi, n: int) -> None:
        self.basis, self.n = basis, count("n", n)

    def __call__(self, x: Tensor) -> Tensor:
        return _values(self.basis, x, self.n).movedim(-1, 0)


class PiecewiseExpand:
    """A continuous piecewise function's values at its (n - 1) segments + 1 nodes, each as a function of x.

    x of any shape; the functions are on a new first axis, 0 but for the n of x's segment. phi_j is of the
    local coordinate in [-length / 2, length / 2]. For length other than 2 segments are looked up there but
    lie on [-1, 1], as in the peer's convolutions. `sparse` is ignored, as by the peer.
    """

    continuous = True

    def __init__(self, basis: Phi, n: int, segments: int, length: float = 2.0, sparse: bool = False) -> None:
        self._basis, self._n, self._half = basis, count("n", n), 0.5 * length
        self._grid = peer_piecewise(n, segments, length, self.continuous, scaled=True)

    def __call__(self, x: Tensor) -> Tensor:
        segment, u = self._grid.locate(x)
        values = _values(self._basis, self._half * u, self._n)
        first = segment * (self._n - 1 if self.continuous else self._n)
        columns = first.unsqueeze(-1) + torch.arange(self._n, device=x.device)
        return values.new_zeros(*x.shape, self._grid.size).scatter(-1, columns, values).movedim(-1, 0)


class PiecewiseExpand1d(PiecewiseExpand):
    """`PiecewiseExpand`, which takes x of any shape."""


class PiecewiseDiscontinuousExpand(PiecewiseExpand):
    """`PiecewiseExpand` of segments that share no values: n segments functions."""

    continuous = False


class PiecewiseDiscontinuousExpand1d(PiecewiseDiscontinuousExpand):
    """`PiecewiseDiscontinuousExpand`, which takes x of any shape."""


class BasisFlat:
    """y[..., o] = sum_ij w[o, i, j] phi_j(x[..., i]); an x of one feature serves all of w."""

    def __init__(self, n: int, basis: Phi) -> None:
        self.n, self.basis = count("n", n), basis
        self.num_basis: int = getattr(basis, "num_basis", None) or n

    def interpolate(self, x: Tensor, w: Tensor) -> Tensor:
        """y [batch, out] of x [batch, in] and w [out, in, n]."""
        if x.shape[-1] == 1:
            x = x.expand(*x.shape[:-1], w.shape[1])
        return _interpolate(self.basis, self.n, x, w.permute(1, 2, 0))


class BasisFlatND:
    """`BasisFlat` of functions of several variables; a basis gets x and an index, a number for each variable.

    `indexes` [n^dimensions, dimensions]: the indices in w's order, the last variable fastest.
    """

    def __init__(self, n: int, basis: Phi, dimensions: int) -> None:
        self.n, self.basis, self.dimensions = count("n", n), basis, count("dimensions", dimensions)
        self.indexes = torch.tensor(list(itertools.product(range(n), repeat=dimensions)))
        self.num_basis: int = getattr(basis, "num_basis", len(self.indexes))

    def interpolate(self, x: Tensor, w: Tensor) -> Tensor:
        """y [batch, out] of x [batch, in, dimensions] and w [out, in, n^dimensions]."""
        if x.shape[-2] == 1:
            x = x.expand(*x.shape[:-2], w.shape[1], x.shape[-1])
        functions = _functions(self.basis, self.n)
        if functions is not None:
            return link_nd(x, w.permute(1, 2, 0), [functions] * self.dimensions)
        values = torch.stack([self.basis(x, index=index) for index in self.indexes], -1)
        return _met(values, w.permute(1, 2, 0)).sum(1)


class BasisFlatProd:
    """prod_i (1 + f_oi) - 1 + (1 - alpha) sum_i f_oi, of f_oi = sum_j w[o, i, j] phi_j(x[..., i])."""

    def __init__(self, n: int, basis: Phi, alpha: float = 1.0) -> None:
        self.n, self.basis, self.alpha = count("n", n), basis, alpha

    def interpolate(self, x: Tensor, w: Tensor) -> Tensor:
        """y [batch, out] of x [batch, in] and w [out, in, n]."""
        return _interpolate(self.basis, self.n, x, w.permute(1, 2, 0), self.alpha)


class Basis:
    """`BasisFlat` with weights of its own for each sample, as piecewise layers gather them."""

    def __init__(self, n: int, basis: Phi) -> None:
        self.n, self.basis = count("n", n), basis

    def interpolate(self, x: Tensor, w: Tensor) -> Tensor:
        """y [batch, out] of x [batch, in] and w [batch, in, out, n]."""
        return _interpolate(self.basis, self.n, x, w.mT)


class BasisProd:
    """`BasisFlatProd` with weights of its own for each sample."""

    def __init__(self, n: int, basis: Phi, alpha: float = 1.0) -> None:
        self.n, self.basis, self.alpha = count("n", n), basis, alpha

    def interpolate(self, x: Tensor, w: Tensor) -> Tensor:
        """y [batch, out] of x [batch, in] and w [batch, in, out, n]."""
        return _interpolate(self.basis, self.n, x, w.mT, self.alpha)


def _functions(basis: Any, n: int) -> Functions | None:
    """phi_0 ... phi_{n-1} as a basis of ours, where the callable knows them."""
    known = getattr(basis, "functions", None)
    found: Functions | None = None if known is None else known(n)
    return found


def _values(basis: Phi, x: Tensor, n: int) -> Tensor:
    """phi_0(x) ... phi_{n-1}(x), on a new last axis."""
    functions = _functions(basis, n)
    if functions is not None:
        return functions.tabulate(x)
    return torch.stack([basis(x, j) for j in range(n)], -1)


def _interpolate(basis: Phi, n: int, x: Tensor, w: Tensor, alpha: float | None = None) -> Tensor:
    """The sum over the inputs, or with alpha the product; x [batch, in], w [in, n, out] or with a batch."""
    functions = _functions(basis, n)
    if functions is not None:
        return link(x, w, functions) if alpha is None else product(x, w, functions, alpha)
    edges = _met(_values(basis, x, n), w)
    total = edges.sum(1)
    return total if alpha is None else (1 + edges).prod(1) - 1 + (1 - alpha) * total


def _met(values: Tensor, w: Tensor) -> Tensor:
    """The edges' functions [batch, in, out] of values [batch, in, n] and w [(batch,) in, n, out]."""
    return (values.unsqueeze(-2) @ w).squeeze(-2)
