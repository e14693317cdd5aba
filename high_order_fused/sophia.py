"""SophiaG: momentum over a clipped estimate of the Hessian's diagonal."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .optimizer_base import Closure, OptimizerBase, evaluated, positive


class SophiaG(OptimizerBase):
    """Momentum, each entry over rho bs h, an estimate of the Hessian's diagonal, and clipped at 1.

    m <- beta_1 m + (1 - beta_1) g, then
    p <- (1 - lr weight_decay) p - lr sign(m) min(|m| / (rho bs h + 1e-15), 1), bs the samples of a batch.
    h changes in `update_hessian` alone, to be called every ten steps or so with gradients of the loss against
    labels drawn from the model's own output. Never called, h stays 0 and a step is lr times the sign of the
    momentum: that is how the examples of high-order-layers-torch train. State: `step`, `exp_avg` (m),
    `hessian` (h); capturable puts `step` on the parameter's device. ValueError names a wrong setting.
    Source: Liu et al., Sophia (2023), algorithm 3 with the Gauss-Newton-Bartlett estimate, by the names of
    its authors' code.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float = 1e-1,
        *,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        positive("rho", rho)
        others = {"rho": rho, "maximize": maximize, "capturable": capturable}
        super().__init__(params, lr, betas, weight_decay, **others)

    def begin(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The counter and both averages, all 0."""
        step = torch.zeros((), dtype=torch.float32, device=p.device if group["capturable"] else "cpu")
        return {"step": step, **super().begin(p, group), "hessian": torch.zeros_like(p)}

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Take the squares of the gradients that the parameters have now into h."""
        for _, g, group, state in self.moving():
            beta = group["betas"][1]
            state["hessian"].mul_(beta).addcmul_(g, g, value=1 - beta)

    @torch.no_grad()
    def step(self, closure: Closure | None = None, bs: int = 5120) -> Any:
        """Move the parameters; returns what the closure returns. bs: the samples of a batch."""
        loss = evaluated(closure)
        for p, g, group, state in self.moving():
            beta, m = group["betas"][0], state["exp_avg"]
            state["step"] += 1
            m.mul_(beta).add_(g, alpha=beta - 1 if group["maximize"] else 1 - beta)
            wide = torch.promote_types(p.dtype, torch.float32)  # in float16 1e-15 would be 0
            h = group["rho"] * bs * state["hessian"].to(wide) + 1e-15
            ratio = (m.abs() / h).clamp_(max=1).to(p.dtype)
            p.mul_(1 - group["lr"] * group["weight_decay"]).addcmul_(m.sign(), ratio, value=-group["lr"])
        return loss
