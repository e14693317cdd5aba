"""Learned activations."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checks import count


class PRePU(nn.Module):
    """relu(x)^q with a learned power q = 1 + softsign(scale) in (0, 2) a feature; scale = 0 is ReLU.

    x [..., num_features]; parameter `scale` [num_features]. For x <= 0 the value and both gradients are 0,
    also where q < 1 (there the slope is unbounded as x falls to 0). NaN stays NaN.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(count("num_features", num_features)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make it ReLU."""
        nn.init.zeros_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        power = self.power()
        positive = x > 0
        safe = torch.where(positive, x, 1.0)  # no 0 * infinity in any derivative
        y = torch.where(positive, safe**power, torch.where(power == 0, 1.0, 0.0).to(x.dtype))
        return torch.where(x.isnan(), x, y)

    def power(self) -> Tensor:
        """The learned powers q [num_features]."""
        return 1 + functional.softsign(self.scale)


CustomActivationLayer = PRePU
