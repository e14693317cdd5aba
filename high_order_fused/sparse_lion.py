"""SparseLion: Lion that moves only the coefficients that the batch has touched."""

from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from .optimizer_base import Closure, OptimizerBase, evaluated


class SparseLion(OptimizerBase):
    """Lion at the entries whose gradient is not 0; all others, and their averages, keep every bit.

    There p <- (1 - lr weight_decay) p - lr sign(beta_1 m + (1 - beta_1) g), and then
    m <- beta_2 m + (1 - beta_2) g.
    Weight decay reaches touched entries alone: a piecewise layer's segments without data stay as they are.
    A NaN counts as touched. use_triton belongs to the peer's signature and changes nothing: the same tensor
    operations serve every device. State: `exp_avg`, m. ValueError names a wrong setting.
    Source: high-order-layers-torch, SparseLion, whose weight decay has no effect; Chen et al., Symbolic
    Discovery of Optimization Algorithms (2023).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        use_triton: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, weight_decay)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Move the touched entries; returns what the closure returns."""
        loss = evaluated(closure)
        for p, g, group, state in self.moving():
            m, (beta1, beta2), touched = state["exp_avg"], group["betas"], g != 0
            direction = m.mul(beta1).add_(g, alpha=1 - beta1)
            # torch's sign of NaN is 0, so that one would stop an entry for ever in silence
            direction = torch.where(direction.isnan(), direction, direction.sign())
            moved = p.mul(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
            p.copy_(torch.where(touched, moved, p))  # not by a factor of 0, which would lose the sign of -0
            m.copy_(torch.where(touched, m.mul(beta2).add_(g, alpha=1 - beta2), m))
        return loss
