"""Layers whose edges are functions of several variables: sums of products of one-dimensional ones."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import bases, init
from .basis import Basis
from .basis_layer import BasisLayer
from .checks import count
from .functional import link_nd
from .sums import FunctionLayer, make_periodic, peer_piecewise


class HighOrderLinearND(BasisLayer):
    """y[..., o] = sum_i f_oi(x[..., i, 0], x[..., i, 1], ...), of several variables, a basis for each.

    x [..., in_features, d], y [..., out_features], d the number of bases. Parameter `weight`
    [in_features, K_0 K_1 ..., out_features], the last variable fastest; every edge begins as a random
    constant. The state dict carries the bases' specs, as in `HighOrderLinear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bases: Sequence[Basis],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(bases, Sequence):
            raise TypeError(f"bases: got {type(bases).__name__}, needs a sequence of Basis")
        if not bases or any(not isinstance(basis, Basis) or basis.inputs for basis in bases):
            raise ValueError(f"bases: got {bases!r}, needs bases that all features share")
        super().__init__(bases[-1], count("in_features", in_features))
        self.bases = tuple(bases)
        self.in_features, self.out_features = in_features, count("out_features", out_features)
        size = math.prod(basis.size for basis in self.bases)
        self.weight = nn.Parameter(torch.empty(in_features, size, out_features, device=device, dtype=dtype))
        self.reset_parameters()

    @property
    def spec(self) -> str:
        return " x ".join(basis.spec for basis in self.bases)

    def reset_parameters(self) -> None:
        """Draw the coefficients anew."""
        init.random_constants_(self.weight, *self.bases)

    def forward(self, x: Tensor) -> Tensor:
        return link_nd(x, self.weight, self.bases)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bases={self.bases!r}"


class VariablesLayer(FunctionLayer):
    """`w` [out, in, K_0 K_1 ...] of a basis for each variable, as high-order-layers-torch keeps them."""

    def __init__(self, bases: Sequence[Basis], in_features: int, out_features: int, **others: Any) -> None:
        size = math.prod(basis.size for basis in bases)
        super().__init__(bases[-1], in_features, out_features, size=size, **others)
        self.bases, self.dimensions = tuple(bases), len(bases)

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        if x.dim() >= 2 and x.shape[-2] == 1:
            x = x.expand(*x.shape[:-2], self.in_features, x.shape[-1])
        return link_nd(x, self.w.permute(1, 2, 0), self.bases)


class PolynomialND(VariablesLayer):
    """Polynomials of `dimensions` variables an edge, through n^dimensions Chebyshev-Lobatto nodes.

    x [..., in, dimensions]; `w` [out, in, n^dimensions], the last variable fastest; it and `result` begin as
    in `Polynomial`. An x of one feature serves all in_features. n may be a list, one for each variable.
    Source: high-order-layers-torch, PolynomialND.
    """

    def __init__(
        self,
        n: int | Sequence[int],
        in_features: int,
        out_features: int,
        length: float = 2.0,
        dimensions: int | None = None,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        initialize: str = "constant_random",
        device: torch.device | str | None = None,
        **ignored: Any,
    ) -> None:
        interval = (-0.5 * length, 0.5 * length)
        several = [bases.lagrange(each, interval, "extrapolate") for each in _each("n", n, dimensions)]
        others = {"periodicity": periodicity, "initialize": initialize, "device": device}
        super().__init__(several, in_features, out_features, weight_magnitude=weight_magnitude, **others)
        self.n, self.length = n, length


class _Fixed(PolynomialND):
    """The number of variables is in the name."""

    variables: int

    def __init__(
        self, n: int | Sequence[int], in_features: int, out_features: int, length: float = 2.0, **others: Any
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


class PiecewiseND(VariablesLayer):
    """Layer "continuous_nd": products of piecewise polynomials, n nodes and segments for each variable.

    x [..., in, dimensions]; `w` [out, in, K_0 K_1 ...], the last variable fastest, K as in
    `PiecewisePolynomial`. n and segments are numbers or lists, one for each variable. Edges begin as
    constants from U[0, weight_magnitude / in). Source: the call is that of high-order-layers-torch's
    PiecewiseND, whose coefficients serve all edges at once and cannot be loaded.
    """

    continuous = True

    def __init__(
        self,
        n: int | Sequence[int],
        in_features: int,
        out_features: int,
        segments: int | Sequence[int],
        dimensions: int | None = None,
        length: float = 2.0,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        device: torch.device | str | None = None,
        **ignored: Any,
    ) -> None:
        nodes = _each("n", n, dimensions if isinstance(segments, int) else len(segments))
        cells = _each("segments", segments, len(nodes))
        several = [
            peer_piecewise(each, cell, length, self.continuous)
            for each, cell in zip(nodes, cells, strict=True)
        ]
        others = {"weight_magnitude": weight_magnitude, "periodicity": periodicity, "device": device}
        super().__init__(several, in_features, out_features, **others)
        self.n, self.segments, self.length = n, segments, length


class PiecewiseDiscontinuousND(PiecewiseND):
    """Layer "discontinuous_nd": as `PiecewiseND`, neighbouring segments sharing no coefficients."""

    continuous = False


def _each(name: str, value: int | Sequence[int], dimensions: int | None) -> tuple[int, ...]:
    """One number for each variable, of which there are two if nothing says otherwise."""
    if isinstance(value, int):
        return (value,) * count("dimensions", 2 if dimensions is None else dimensions)
    if dimensions not in (None, len(value)):
        raise ValueError(f"{name}: got {value!r}, needs one number or {dimensions}, one for each variable")
    return tuple(value)


__all__ = [
    "HighOrderLinearND",
    "PiecewiseDiscontinuousND",
    "PiecewiseND",
    "Polynomial2D",
    "Polynomial3D",
    "Polynomial4D",
    "Polynomial5D",
    "PolynomialND",
]
