"""HighOrderLinear: our own fully connected layer."""

import torch
from torch import Tensor, nn

from . import init
from .basis import Basis
from .basis_layer import BasisLayer
from .checks import count
from .functional import link


class HighOrderLinear(BasisLayer):
    """y[..., o] = sum_i f_oi(x[..., i]), every f_oi a learned function in a basis; in place of nn.Linear.

    x [..., in_features], y [..., out_features]. Parameter `weight` [in_features, K, out_features];
    every edge begins as a random constant (`init.random_constants_`). There is no bias: constants are in the
    span. What happens outside the interval is the basis's policy. The state dict carries the basis's spec;
    loading coefficients of another one raises ValueError.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: Basis,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(basis, count("in_features", in_features))
        self.in_features, self.out_features = in_features, count("out_features", out_features)
        self.weight = nn.Parameter(
            torch.empty(in_features, basis.size, out_features, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients anew."""
        init.random_constants_(self.weight, self.basis)

    def forward(self, x: Tensor) -> Tensor:
        return link(x, self.weight, self.basis)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, basis={self.basis!r}"
