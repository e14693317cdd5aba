"""Layers whose edges are functions of several variables: sums of products of one-dimensional ones."""

from typing import Any

from torch import Tensor

from .functional import link_nd
from .sums import Polynomial, make_periodic


class PolynomialND(Polynomial):
    """Polynomials of `dimensions` variables an edge, through n^dimensions Chebyshev-Lobatto nodes.

    x [..., in, dimensions]; `w` [out, in, n^dimensions], the last variable fastest; it and `result` begin as
    in `Polynomial`. An x of one feature serves all in_features.
    Source: high-order-layers-torch, PolynomialND.
    """

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        length: float = 2.0,
        dimensions: int = 2,
        **others: Any,
    ) -> None:
        self.dimensions = dimensions
        super().__init__(n, in_features, out_features, length, **others)

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        if x.dim() >= 2 and x.shape[-2] == 1:
            x = x.expand(*x.shape[:-2], self.in_features, x.shape[-1])
        return link_nd(x, self.w.permute(1, 2, 0), [self.basis] * self.dimensions)


class _Fixed(PolynomialND):
    """The number of variables is in the name."""

    variables: int

    def __init__(
        self, n: int, in_features: int, out_features: int, length: float = 2.0, **others: Any
    ) -> None:
        if "dimensions" in others:
            raise TypeError(
                f"dimensions: got {others['dimensions']}, needs to be left out: "
                f"{type(self).__name__} has {self.variables}"
            )
        super().__init__(n, in_features, out_features, length, self.variables, **others)


class Polynomial2D(_Fixed):
    """Layer "polynomial_2d": `PolynomialND` of 2 variables."""

    variables = 2


class Polynomial3D(_Fixed):
    """Layer "polynomial_3d": `PolynomialND` of 3 variables."""

    variables = 3


class Polynomial4D(_Fixed):
    """Layer "polynomial_4d": `PolynomialND` of 4 variables."""

    variables = 4


class Polynomial5D(_Fixed):
    """Layer "polynomial_5d": `PolynomialND` of 5 variables."""

    variables = 5


__all__ = ["Polynomial2D", "Polynomial3D", "Polynomial4D", "Polynomial5D", "PolynomialND"]
