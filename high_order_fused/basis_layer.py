"""What our own layers share: coefficients in a basis, whose spec their state dicts carry."""

from typing import Any

import torch
from torch import Tensor, nn

from .basis import Basis
from .checks import needs_basis


class BasisLayer(nn.Module):
    """A layer with coefficients `weight` in `basis`; loading those of another basis raises ValueError.

    inputs: the features that meet the basis, which may have knots of its own for each of them.
    """

    weight: nn.Parameter

    def __init__(self, basis: Basis, inputs: int) -> None:
        super().__init__()
        if needs_basis(basis).inputs not in (None, inputs):
            raise ValueError(f"basis: got knots for {basis.inputs} features, needs one row or {inputs}")
        self.basis = basis

    @property
    def spec(self) -> str:
        """What the coefficients are of."""
        return self.basis.spec

    def get_extra_state(self) -> Tensor:
        """The spec as bytes, a tensor, so that every checkpoint format takes it."""
        return torch.tensor(list(self.spec.encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the spec of a checkpoint with this layer's; ValueError if it differs."""
        spec = bytes(state.tolist()).decode()
        if spec != self.spec:
            raise ValueError(f"state dict: got coefficients of {spec}, needs those of {self.spec}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        spec = state_dict.get(f"{prefix}_extra_state")
        if spec is not None:
            self.set_extra_state(spec)  # before any coefficient is overwritten
        super()._load_from_state_dict(state_dict, prefix, *arguments)
