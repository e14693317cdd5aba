"""The optimizers of the peers' examples, by their names and with their settings."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, ParamsT

from .checks import choice
from .sophia import SophiaG as SophiaG
from .sparse_lion import SparseLion as SparseLion


def make_optimizer(name: str, parameters_or_model: nn.Module | ParamsT, **options: Any) -> Optimizer:
    """An optimizer by name: "adam", "lion", "sparse_lion", "sophia", "adahessian" or "lbfgs".

    Its options are those of the class, over the defaults of high-order-layers-torch's examples. "lion" and
    "adahessian" come from the package pytorch-optimizer (extra `optim`), "adam" and "lbfgs" from torch. A
    step needs more of some: "adahessian" a `backward(create_graph=True)`, "lbfgs" a closure.
    ValueError for an unknown name, TypeError for an unknown option, ImportError without the package.
    """
    get_class, defaults = _OPTIMIZERS[choice("name", name, _OPTIMIZERS)]
    kind = get_class()
    known = [key for key, p in inspect.signature(kind).parameters.items() if p.kind != p.VAR_KEYWORD][1:]
    for key in options:  # pytorch-optimizer's classes swallow what they do not know
        if key not in known:
            raise TypeError(f"options: got {key!r}, {name!r} needs some of {', '.join(map(repr, known))}")
    model = parameters_or_model
    return kind(model.parameters() if isinstance(model, nn.Module) else model, **defaults | options)


def _library(name: str) -> Callable[[], type[Optimizer]]:
    def load() -> type[Optimizer]:
        try:
            found: type[Optimizer] = getattr(import_module("pytorch_optimizer"), name)
        except ImportError as error:
            needed = "pip install 'high_order_fused[optim]'"
            raise ImportError(f"{name} is that of the package pytorch-optimizer: {needed}") from error
        return found

    return load


# Source of the settings: high-order-layers-torch, config/optimizer and examples/function_example.py
_OPTIMIZERS: dict[str, tuple[Callable[[], Callable[..., Optimizer]], dict[str, Any]]] = {
    "adam": (lambda: torch.optim.Adam, {"lr": 1e-3}),
    "lion": (_library("Lion"), {"lr": 1e-4}),
    "sparse_lion": (lambda: SparseLion, {"lr": 1e-3}),
    "sophia": (lambda: SophiaG, {"lr": 1e-3, "rho": 0.035}),
    "adahessian": (
        _library("AdaHessian"),
        {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-4, "weight_decay": 0.0, "hessian_power": 1.0},
    ),
    "lbfgs": (lambda: torch.optim.LBFGS, {"lr": 1, "max_iter": 20, "history_size": 100}),
}
