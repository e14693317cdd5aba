"""The module LagrangePolynomial: Lagrange and Fourier functions, with their expansions and interpolators."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ... import bases
from ...basis import Basis as Functions
from ...checks import count
from . import Basis as _module
from .Basis import *  # noqa: F403
from .Basis import (
    Basis,
    BasisExpand,
    BasisFlat,
    BasisFlatND,
    BasisFlatProd,
    BasisProd,
    PiecewiseDiscontinuousExpand,
    PiecewiseDiscontinuousExpand1d,
    PiecewiseExpand,
    PiecewiseExpand1d,
)

__all__ = [
    "FourierBasis",
    "FourierExpand",
    "FourierSeriesFlat",
    "LagrangeBasis",
    "LagrangeBasis1",
    "LagrangeBasisND",
    "LagrangeExpand",
    "LagrangePoly",
    "LagrangePolyFlat",
    "LagrangePolyFlatND",
    "LagrangePolyFlatProd",
    "LagrangePolyProd",
    "PiecewiseDiscontinuousPolynomialExpand",
    "PiecewiseDiscontinuousPolynomialExpand1d",
    "PiecewisePolynomialExpand",
    "PiecewisePolynomialExpand1d",
    "chebyshevLobatto",
    "get_lagrange_basis",
]
__all__ += _module.__all__

_lagrange, _fourier = lru_cache(bases.lagrange), lru_cache(bases.fourier)


def chebyshevLobatto(n: int) -> Tensor:
    """n Chebyshev-Lobatto points, ascending from -1 to 1, in the default dtype; n = 1 gives 0."""
    return torch.tensor(bases.lobatto(count("n", n)).tolist())


class FourierBasis:
    """phi_j: 1/2, sin(v), cos(v), sin(2v), cos(2v), ..., with v = 2 pi x / length."""

    num_basis = None

    def __init__(self, length: float) -> None:
        self.length = length

    def __call__(self, x: Tensor, j: int) -> Tensor:
        return self.functions(j + 1).tabulate(x)[..., j]

    def functions(self, n: int) -> Functions:
        """The first n as a basis of ours."""
        return _fourier(n, (-0.5 * self.length, 0.5 * self.length))


class LagrangeBasis:
    """phi_j: the polynomial that is 1 at node j of n on [-length / 2, length / 2], and 0 at the others.

    `X` [n]: the nodes; `denominators` [n, n]: their differences, with 1 on the diagonal.
    """

    def __init__(self, n: int, length: float = 2.0) -> None:
        self.n = self.num_basis = count("n", n)
        self.length, self.X = length, 0.5 * length * chebyshevLobatto(n)
        self.denominators = self.X[:, None] - self.X + torch.eye(n)

    def __call__(self, x: Tensor, j: int) -> Tensor:
        return self._own().tabulate(x)[..., j]

    def functions(self, n: int) -> Functions | None:
        """All of them as a basis of ours, None if n is not how many there are."""
        return self._own() if n == self.n else None

    def _own(self) -> Functions:
        return _lagrange(self.n, (-0.5 * self.length, 0.5 * self.length), "extrapolate")


class LagrangeBasis1(LagrangeBasis):
    """`LagrangeBasis` of one node, 0: the constant 1."""

    def __init__(self, length: float = 2.0) -> None:
        super().__init__(1, length)


class LagrangeBasisND(LagrangeBasis):
    """Products of Lagrange polynomials of variables x [..., dimensions], by an index for each variable."""

    def __init__(self, n: int, length: float = 2.0, dimensions: int = 2) -> None:
        super().__init__(n, length)
        self.dimensions = count("dimensions", dimensions)
        self.num_basis = n**dimensions

    def __call__(self, x: Tensor, index: Sequence[int]) -> Tensor:  # type: ignore[override]
        values = self._own().tabulate(x)
        return torch.stack([values[..., k, j] for k, j in enumerate(index)]).prod(0)


def get_lagrange_basis(n: int, length: float = 2.0) -> LagrangeBasis:
    """`LagrangeBasis`, of one node `LagrangeBasis1`."""
    return LagrangeBasis1(length) if n == 1 else LagrangeBasis(n, length)


class LagrangeExpand(BasisExpand):
    """`BasisExpand` in Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0) -> None:
        super().__init__(get_lagrange_basis(n, length), n)


class FourierExpand(BasisExpand):
    """`BasisExpand` in `FourierBasis`."""

    def __init__(self, n: int, length: float) -> None:
        super().__init__(FourierBasis(length), n)


class PiecewisePolynomialExpand(PiecewiseExpand):
    """`PiecewiseExpand` in Lagrange polynomials."""

    def __init__(self, n: int, segments: int, length: float = 2.0) -> None:
        super().__init__(get_lagrange_basis(n, length), n, segments, length)


class PiecewisePolynomialExpand1d(PiecewiseExpand1d):
    """`PiecewiseExpand1d` in Lagrange polynomials."""

    def __init__(self, n: int, segments: int, length: float = 2.0) -> None:
        super().__init__(get_lagrange_basis(n, length), n, segments, length)


class PiecewiseDiscontinuousPolynomialExpand(PiecewiseDiscontinuousExpand):
    """`PiecewiseDiscontinuousExpand` in Lagrange polynomials."""

    def __init__(self, n: int, segments: int, length: float = 2.0) -> None:
        super().__init__(get_lagrange_basis(n, length), n, segments, length)


class PiecewiseDiscontinuousPolynomialExpand1d(PiecewiseDiscontinuousExpand1d):
    """`PiecewiseDiscontinuousExpand1d` in Lagrange polynomials."""

    def __init__(self, n: int, segments: int, length: float = 2.0) -> None:
        super().__init__(get_lagrange_basis(n, length), n, segments, length)


class LagrangePolyFlat(BasisFlat):
    """`BasisFlat` of Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0) -> None:
        super().__init__(n, get_lagrange_basis(n, length))


class LagrangePolyFlatND(BasisFlatND):
    """`BasisFlatND` of Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0, dimensions: int = 2) -> None:
        super().__init__(n, LagrangeBasisND(n, length, dimensions), dimensions)


class LagrangePolyFlatProd(BasisFlatProd):
    """`BasisFlatProd` of Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0, alpha: float = 1.0) -> None:
        super().__init__(n, get_lagrange_basis(n, length), alpha)


class LagrangePoly(Basis):
    """`Basis` of Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0) -> None:
        super().__init__(n, get_lagrange_basis(n, length))


class LagrangePolyProd(BasisProd):
    """`BasisProd` of Lagrange polynomials."""

    def __init__(self, n: int, length: float = 2.0, alpha: float = 1.0) -> None:
        super().__init__(n, get_lagrange_basis(n, length), alpha)


class FourierSeriesFlat(BasisFlat):
    """`BasisFlat` of `FourierBasis`."""

    def __init__(self, n: int, length: float = 1.0) -> None:
        super().__init__(n, FourierBasis(length))
