"""Layers that multiply functions: ours, and those of high-order-layers-torch."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from . import bases
from .basis import Basis
from .checks import count
from .functional import product
from .linear import HighOrderLinear
from .sums import PiecewiseDiscontinuousPolynomial, PiecewiseLayer, Polynomial, make_periodic


class HighOrderProduct(HighOrderLinear):
    """y[..., o] = prod_i (1 + f_oi(x[..., i])) - 1 + (1 - alpha) sum_i f_oi(x[..., i]), every f_oi learned.

    x [..., in_features], y [..., out_features]. Parameter `weight` and its beginning as in `HighOrderLinear`;
    alpha 1 is the product alone. Source: high-order-layers-torch, BasisFlatProd.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: Basis,
        alpha: float = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, basis, device=device, dtype=dtype)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.basis, self.alpha)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}"


class PiecewisePolynomialProd(PiecewiseLayer):
    """Layer "continuous_prod": prod_i (1 + f_oi) - 1, functions and `w` as in `PiecewisePolynomial`.

    alpha is ignored, as by the peer. Source: high-order-layers-torch, PiecewisePolynomialProd.
    """

    continuous = True
    combine = staticmethod(product)


class PiecewiseDiscontinuousPolynomialProd(PiecewiseDiscontinuousPolynomial):
    """Layer "discontinuous_prod": prod_i (1 + f_oi) - 1 over `PiecewiseDiscontinuousPolynomial`.

    alpha is ignored, as by the peer. Source: high-order-layers-torch, PiecewiseDiscontinuousPolynomialProd.
    """

    combine = staticmethod(product)


class PolynomialProd(Polynomial):
    """Layer "polynomial_prod": prod_i (1 + f_oi) - 1, functions, `w` and `result` as in `Polynomial`.

    The peer's constructor raises. Source: high-order-layers-torch, BasisFlatProd.
    """

    combine = staticmethod(product)


class Product(nn.Module):
    """Layer "product": prod_i (1 + t_oi) - 1 - (1 - alpha) sum_i t_oi + bias, of t_oi = weight[o, i] x_i.

    `weight` [out, in], drawn as by nn.Linear; `bias` [out], from U(-1, 1) / sqrt(in), or None. The sign of
    the sum is the peer's own. Source: high-order-layers-torch, Product; without a bias the peer raises.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        alpha: float = 1.0,
        periodicity: float | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            count("in_features", in_features),
            count("out_features", out_features),
        )
        self.alpha, self.periodicity = alpha, periodicity
        self.basis = bases.monomial(1, outside="extrapolate")
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        weight = self.weight.mT
        y = product(x, torch.stack([torch.zeros_like(weight), weight], 1), self.basis)
        if self.alpha != 1:
            y = y - (1 - self.alpha) * nn.functional.linear(x, self.weight)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, alpha={self.alpha}"
