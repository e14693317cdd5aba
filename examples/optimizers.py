"""The optimizers of the image experiments: `optimizer=lion optimizer.lr=1e-4`, as in the peer's commands."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from high_order_fused.checks import choice
from high_order_fused.optim import make_optimizer


@dataclass
class Settings:
    """An optimizer and what becomes of its learning rate after each epoch; None is the optimizer's default.

    "plateau": times factor when the training loss has not fallen for more than `patience` epochs;
    "exponential": times gamma; "cosine": down to 0 in the last epoch.
    """

    name: str = "adam"
    lr: float | None = None
    weight_decay: float | None = None
    rho: float | None = None  # of sophia
    scheduler: str = "none"
    patience: int = 5
    factor: float = 0.1
    gamma: float = 0.9


# Source: high-order-layers-torch, config/optimizer; "adamw" is ours
GROUP = {
    "adam": Settings("adam", scheduler="plateau"),
    "adamw": Settings("adamw", lr=2e-2, weight_decay=0.1, scheduler="cosine"),
    "lion": Settings("lion", scheduler="plateau"),
    "sparse_lion": Settings("sparse_lion"),
    "sophia": Settings("sophia"),
    "adahessian": Settings("adahessian"),
    "lbfgs": Settings("lbfgs"),
}


def build(settings: Settings, model: nn.Module, epochs: range) -> tuple[Optimizer, Callable[[float], None]]:
    """The optimizer of a model, and what to call after each epoch with its loss.

    epochs: those to train, of a schedule that ends with the last one, and began with epoch 0.
    """
    given = {"lr": settings.lr, "weight_decay": settings.weight_decay, "rho": settings.rho}
    options = {name: value for name, value in given.items() if value is not None}
    if settings.name == "adamw":
        optimizer: Optimizer = torch.optim.AdamW(model.parameters(), **options)
    else:
        optimizer = make_optimizer(settings.name, model, **options)
    schedules = torch.optim.lr_scheduler
    factors: dict[str, Callable[[int], float]] = {
        "none": lambda epoch: 1.0,
        "exponential": lambda epoch: settings.gamma**epoch,
        "cosine": lambda epoch: 0.5 + 0.5 * math.cos(math.pi * epoch / max(1, epochs.stop)),
    }
    if choice("optimizer.scheduler", settings.scheduler, (*factors, "plateau")) == "plateau":
        plateau = schedules.ReduceLROnPlateau(optimizer, factor=settings.factor, patience=settings.patience)
        return optimizer, plateau.step
    factor = factors[settings.scheduler]
    schedule = schedules.LambdaLR(optimizer, lambda epoch: factor(epochs.start + epoch))
    return optimizer, lambda loss: schedule.step()


def with_optimizers(main: Callable[[], None]) -> Callable[[], None]:
    """The main function of an experiment whose options have the group `optimizer`."""

    def known() -> None:
        try:
            from hydra.core.config_store import ConfigStore
        except ImportError:
            pass  # main says what is missing
        else:
            for name, settings in GROUP.items():
                ConfigStore.instance().store(name, settings, group="optimizer")
        main()

    return known
