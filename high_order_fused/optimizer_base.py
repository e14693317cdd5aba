"""What our optimizers share: checked settings, the closure, and a walk over what has a gradient."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

Closure = Callable[[], Any]


class Moving(NamedTuple):
    """A parameter with its gradient, the settings of its group and what is kept for it."""

    p: Tensor
    g: Tensor
    group: dict[str, Any]
    state: dict[str, Any]


class OptimizerBase(Optimizer):
    """An optimizer of dense real tensors with lr, betas and weight_decay; ValueError names a wrong one."""

    def __init__(
        self, params: ParamsT, lr: float, betas: tuple[float, float], weight_decay: float, **others: Any
    ) -> None:
        positive("lr", lr)
        if len(betas) != 2 or not all(0 <= beta <= 1 for beta in betas):
            raise ValueError(f"betas: got {betas}, needs two numbers in [0, 1]")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay: got {weight_decay}, needs a number of at least 0")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, **others})

    def begin(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """What is kept for p at its first step."""
        return {"exp_avg": torch.zeros_like(p)}

    def moving(self) -> Iterator[Moving]:
        """The parameters that have a gradient, in their order."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state.update(self.begin(p, group))
                    yield Moving(p, p.grad, group, state)


def evaluated(closure: Closure | None) -> Any:
    """What the closure returns, evaluated with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def positive(name: str, value: float) -> None:
    """ValueError unless value is a finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: got {value}, needs a number above 0")
