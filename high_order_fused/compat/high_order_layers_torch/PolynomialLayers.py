"""The module PolynomialLayers: fully connected layers, and what refines, smooths and initialises them."""

import random
from abc import ABCMeta
from typing import Any, Union

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd import Variable

from ...checks import count
from ...functional import link, product
from ...init import peer_constants_
from ...layers import (
    FourierSeries,
    PiecewiseDiscontinuousPolynomial,
    PiecewiseDiscontinuousPolynomialProd,
    PiecewisePolynomial,
    PiecewisePolynomialProd,
    Polynomial,
    Polynomial2D,
    Polynomial3D,
    Polynomial4D,
    Polynomial5D,
    PolynomialND,
    PolynomialProd,
)
from ...peer_refinement import (
    initialize_polynomial_layer,
    interpolate_polynomial_layer,
    refine_discontinuous_polynomial_layer,
    refine_polynomial_layer,
    smooth_discontinuous_layer,
)
from ...sums import FunctionLayer, PiecewiseLayer, make_periodic
from . import LagrangePolynomial as _lagrange
from . import utils as _utils
from .LagrangePolynomial import *  # noqa: F403
from .LagrangePolynomial import LagrangePoly, LagrangePolyProd
from .utils import *  # noqa: F403

__all__ = [
    "FourierSeries",
    "Function",
    "Piecewise",
    "PiecewiseDiscontinuous",
    "PiecewiseDiscontinuousPolynomial",
    "PiecewiseDiscontinuousPolynomialProd",
    "PiecewisePolynomial",
    "PiecewisePolynomialProd",
    "Polynomial",
    "Polynomial2D",
    "Polynomial3D",
    "Polynomial4D",
    "Polynomial5D",
    "PolynomialND",
    "PolynomialProd",
    "Union",
    "Variable",
    "constant_random_initialization",
    "initialize_polynomial_layer",
    "interpolate_polynomial_layer",
    "nn",
    "random",
    "refine_discontinuous_polynomial_layer",
    "refine_polynomial_layer",
    "smooth_discontinuous_layer",
]
__all__ += _lagrange.__all__
__all__ += _utils.__all__


def constant_random_initialization(
    w: nn.Parameter,
    out_features: int,
    in_features: int,
    weight_magnitude: float,
    device: torch.device | str = "cpu",
) -> None:
    """Fill w [out, in, K] in place: each edge a constant from U[0, weight_magnitude / in)."""
    if w.shape[:2] != (out_features, in_features):
        raise ValueError(f"w: got shape {tuple(w.shape)}, needs [{out_features}, {in_features}, K]")
    peer_constants_(w.data, weight_magnitude)


class Function(nn.Module, metaclass=ABCMeta):
    """A layer that interpolates with `w` [out, in, num_basis]; the base of `Polynomial` and its like.

    basis: anything with `interpolate(x, w)`, `num_basis` if that is not n. Coefficients begin as in
    `Polynomial`; `result` [out] is unused.
    """

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        basis: Any,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        initialize: str = "constant_random",
        device: torch.device | str = "cpu",
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.poly, self.n, self.periodicity = basis, n, periodicity
        shape = (
            count("out_features", out_features),
            count("in_features", in_features),
            getattr(basis, "num_basis", n),
        )
        self.w = nn.Parameter(torch.empty(shape, device=device))
        if initialize == "constant_random":
            peer_constants_(self.w.data, weight_magnitude)
        else:
            nn.init.uniform_(self.w, -weight_magnitude / in_features, weight_magnitude / in_features)
        self.result = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        y: Tensor = self.poly.interpolate(x, self.w)
        return y


class _Piecewise(PiecewiseLayer, metaclass=ABCMeta):
    """Layers whose `poly` says how edges are combined."""

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        segments: int,
        length: float = 2.0,
        weight_magnitude: float = 1.0,
        poly: Any = None,
        periodicity: float | None = None,
        device: torch.device | str = "cpu",
        initialize: str = "constant_random",
        **ignored: Any,
    ) -> None:
        if poly not in (LagrangePoly, LagrangePolyProd):
            raise TypeError(f"poly: got {poly!r}, needs LagrangePoly or LagrangePolyProd")
        sizes = n, in_features, out_features, segments, length, weight_magnitude
        super().__init__(*sizes, periodicity=periodicity, device=device)
        self.combine = link if poly is LagrangePoly else product
        if initialize != "constant_random":
            bound = (weight_magnitude if self.continuous else 1.0) / in_features
            nn.init.uniform_(self.w, -bound, bound)


class Piecewise(_Piecewise):
    """The base of `PiecewisePolynomial` and `PiecewisePolynomialProd`, which differ in `poly`.

    poly: `LagrangePoly` (edges are summed) or `LagrangePolyProd` (multiplied); TypeError for others.
    """

    continuous = True


class PiecewiseDiscontinuous(_Piecewise):
    """The base of `PiecewiseDiscontinuousPolynomial` and its product; `poly` as in `Piecewise`."""

    continuous = False


Function.register(FunctionLayer)
Piecewise.register(PiecewisePolynomial)
Piecewise.register(PiecewisePolynomialProd)
PiecewiseDiscontinuous.register(PiecewiseDiscontinuousPolynomial)
