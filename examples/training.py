"""One training loop for all experiments, batches of tensors, seeds."""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

Loss = Callable[..., Tensor]  # loss(model, *batch), a number


def seeded(seed: int) -> None:
    """The same random numbers of torch and of Python's random for the same seed."""
    torch.manual_seed(seed)
    random.seed(seed)


def mse(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of model(x)."""
    return nn.functional.mse_loss(model(x), y)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross entropy of the logits model(x), y the classes."""
    return nn.functional.cross_entropy(model(x), y)


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class Batches:
    """Batches of size rows of equally long tensors, in a new order each time, by torch's random numbers."""

    def __init__(self, *tensors: Tensor, size: int, shuffle: bool = True) -> None:
        if size < 1:
            raise ValueError(f"batch_size: got {size}, needs an integer of at least 1")
        self.tensors, self.size, self.shuffle = tensors, size, shuffle

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if not self.shuffle:
            yield from zip(*(t.split(self.size) for t in self.tensors), strict=True)
            return
        order = torch.randperm(len(self.tensors[0])).to(self.tensors[0].device)
        for rows in order.split(self.size):
            yield tuple(t[rows] for t in self.tensors)


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Tensor, ...]],
    optimizer: Optimizer,
    epochs: int,
    clip: float | None = None,
    title: str = "training",
) -> list[float]:
    """Train, with a progress bar; the mean loss of each epoch's batches. Arguments as of `epochs_of`."""
    return list(epochs_of(model, loss, batches, optimizer, epochs, clip, title))


def epochs_of(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Tensor, ...]],
    optimizer: Optimizer,
    epochs: int,
    clip: float | None = None,
    title: str = "training",
) -> Iterator[float]:
    """Train an epoch for each turn of the caller's loop, which gets the mean loss of its batches.

    The loop's body evaluates, moves a schedule on, or breaks off. loss is called as loss(model, *batch);
    batches are gone through once an epoch. Every optimizer gets a closure, as LBFGS needs it, and AdaHessian
    gradients that can be differentiated. clip bounds the norm of the gradient, title stands beside the bar.
    The model is in training mode during an epoch.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    second = type(optimizer).__name__ == "AdaHessian"
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    columns = TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("loss {task.fields[loss]}")) as progress, _no_cycle_warning():
        bar = progress.add_task(title, total=epochs, loss="")
        for _ in range(epochs):
            model.train()
            total, number = torch.zeros(()), 0
            for batch in batches:

                def closure(batch: tuple[Tensor, ...] = batch) -> Any:
                    optimizer.zero_grad()
                    found = loss(model, *batch)
                    found.backward(create_graph=second)
                    if clip is not None:
                        nn.utils.clip_grad_norm_(trained, clip)
                    return found

                found = optimizer.step(closure)
                total, number = total + torch.as_tensor(found).detach().cpu(), number + 1
            if number == 0:
                raise ValueError("batches: got none in an epoch, needs at least one")
            optimizer.zero_grad()  # with AdaHessian, gradients hold the whole graph
            mean = (total / number).item()
            progress.update(bar, advance=1, loss=f"{mean:.4g}")
            yield mean


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Models in evaluation mode and no gradients within the block; the modes are what they were after it."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _no_cycle_warning() -> Iterator[None]:
    """Without torch's warning of create_graph=True: zero_grad breaks the cycle it speaks of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        yield
