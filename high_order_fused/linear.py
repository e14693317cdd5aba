"""HighOrderLinear: our own fully connected layer."""

from typing import Any

import torch
from torch import Tensor, nn

from . import init
from .basis import Basis
from .checks import count
from .functional import link


class HighOrderLinear(nn.Module):
    """y[..., o] = sum_i f_oi(x[..., i]), every f_oi a learned function in a basis; in place of nn.Linear.

    x [..., in_features], y [..., out_features]. Parameter `weight` [in_features, K, out_features];
    every edge begins as a random constant (`init.random_constants_`). There is no bias: constants are in the
    span. What happens outside the interval is the basis's policy. The state dict carries the basis's spec;
    loading coefficients of another one raises ValueError.
    """

    weight: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: Basis,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            count("in_features", in_features),
            count("out_features", out_features),
        )
        if not isinstance(basis, Basis):
            raise TypeError(
                f"basis: got {type(basis).__name__}, needs a Basis, for example hof.bases.lagrange(4)"
            )
        if basis.inputs not in (None, in_features):
            raise ValueError(f"basis: got knots for {basis.inputs} features, needs one row or {in_features}")
        self.basis = basis
        self.weight = nn.Parameter(
            torch.empty(in_features, basis.size, out_features, device=device, dtype=dtype)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients anew."""
        init.random_constants_(self.weight, self.basis)

    def forward(self, x: Tensor) -> Tensor:
        return link(x, self.weight, self.basis)

    def get_extra_state(self) -> Tensor:
        """The basis's spec as bytes, a tensor, so that every checkpoint format takes it."""
        return torch.tensor(list(self.basis.spec.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the spec of a checkpoint with this layer's; ValueError if it differs."""
        spec = bytes(state.tolist()).decode()
        if spec != self.basis.spec:
            raise ValueError(f"state dict: got coefficients of {spec}, needs those of {self.basis.spec}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        spec = state_dict.get(f"{prefix}_extra_state")
        if spec is not None:
            self.set_extra_state(spec)  # before any coefficient is overwritten
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, basis={self.basis!r}"
