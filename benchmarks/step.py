"""One pass through a module, forward or forward and backward, and whether two modules agree in both."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

MODES = ("forward", "forward_backward")
TOLERANCE = {
    "float64": 1e-5,
    "float32": 1e-5,
    "tf32": 4e-3,
    "bfloat16": 4e-2,
    "float16": 1e-2,
}  # some peers' nodes are float32


class Step(NamedTuple):
    """The output, and the gradients of the input "x" and of every parameter that has one, by name."""

    output: Tensor
    gradients: dict[str, Tensor]


def forward(module: nn.Module, x: Tensor) -> Tensor:
    """The output, with no graph kept."""
    with torch.no_grad():
        y: Tensor = module(x)
    return y


def repeatable(module: nn.Module, x: Tensor, cotangent: Tensor) -> Callable[[], Step]:
    """A call of forward and backward; what it differentiates by is gathered here, so that it is not timed."""
    leaves = {"x": x, **dict(module.named_parameters())}
    names, tensors = [name.rpartition(".")[2] for name in leaves], list(leaves.values())

    def step() -> Step:
        y: Tensor = module(x)
        gradients = torch.autograd.grad(y, tensors, cotangent, allow_unused=True)
        found = zip(names, gradients, strict=True)
        return Step(y.detach(), {name: gradient for name, gradient in found if gradient is not None})

    return step


def forward_backward(module: nn.Module, x: Tensor, cotangent: Tensor) -> Step:
    """The output and the gradients of (output * cotangent).sum()."""
    return repeatable(module, x, cotangent)()


def differences(step: Step, ours: Step) -> dict[str, float]:
    """Largest difference over largest magnitude, for the output and each gradient; inf where one has none."""
    theirs = dict(step.gradients)
    if "w" in theirs and "w" not in ours.gradients:  # [out, in, K]
        theirs["weight"] = theirs.pop("w").permute(1, 2, 0)
    pairs = {"output": (step.output, ours.output)}
    pairs |= {
        f"gradient of {name}": (theirs[name], mine) for name, mine in ours.gradients.items() if name in theirs
    }
    missing = {f"gradient of {name}": float("inf") for name in ours.gradients.keys() - theirs.keys()}
    return {name: _relative(*pair) for name, pair in pairs.items()} | missing


def _relative(tensor: Tensor, reference: Tensor) -> float:
    if tensor.shape != reference.shape:
        return float("inf")
    tensor, reference = tensor.double(), reference.double()
    return ((tensor - reference).abs().max() / reference.abs().max()).item()
