"""The module sparse_optimizers.sparse_lion."""

from collections.abc import Callable
from typing import Any, Optional, Tuple  # noqa: UP035

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from ....sparse_lion import SparseLion

__all__ = ["Callable", "Optimizer", "Optional", "SparseLion", "Tuple", "exists", "torch", "update_fn"]


def exists(val: Any) -> bool:
    """Whether val is not None."""
    return val is not None


@torch.no_grad()
def update_fn(
    p: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    lr: float,
    wd: float,
    beta1: float,
    beta2: float,
    update_indexes: Tensor,
) -> None:
    """A step of Lion in place, at the entries of a mask; wd decays them, which it does not by the peer."""
    g, m = grad[update_indexes], exp_avg[update_indexes]
    p[update_indexes] = p[update_indexes] * (1 - lr * wd) - lr * (beta1 * m + (1 - beta1) * g).sign()
    exp_avg[update_indexes] = beta2 * m + (1 - beta2) * g
