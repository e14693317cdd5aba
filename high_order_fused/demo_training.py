"""What the demo measures: three networks on handwritten digits, and one layer against the peer's.

The settings were chosen on a fifth of the training part (`digits(validation=True)`), not on the test part.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json import loads
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .backends import get, resolve
from .bases import piecewise_lagrange
from .benchmarks.stamp import cpu_name
from .kan import KAN
from .layers import high_order_fc_layers
from .linear import HighOrderLinear
from .norm import MaxAbsNormalization

EPOCHS, BATCH, THREADS, WEIGHT_DECAY = 40, 64, 1, 0.1
NOISE = 0.3  # added to the pixels: an edge has to make sense between the 17 grey levels too
SMOOTHING = 0.1  # of the labels
NODES, SEGMENTS = 3, 2  # of the piecewise network: two parabolas an edge


class Digits(NamedTuple):
    """Images [N, 64] in [-1, 1] and labels [N] to train on, and others to judge by."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Network:
    """A network to train: make() draws it from torch's generator; rate is the highest learning rate."""

    name: str
    shape: str
    make: Callable[[], nn.Sequential | KAN]
    rate: float


@dataclass
class Result:
    """accuracy: of the judging part, a seed and an epoch; seconds: of every epoch, without the judging."""

    model: nn.Module
    memory: int
    accuracy: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The figures that the demo prints and stores; bytes and seconds."""
        last = [curve[-1] for curve in self.accuracy]
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "accuracy": sum(last) / len(last),
            "accuracy_lowest": min(last),
            "accuracy_highest": max(last),
            "epoch_seconds": median(self.seconds),
            "step_peak_bytes": self.memory,
            "accuracy_by_seed_and_epoch": self.accuracy,
        }


def _piecewise() -> nn.Sequential:
    basis = piecewise_lagrange(NODES, SEGMENTS)
    first, last = HighOrderLinear(64, 64, basis), HighOrderLinear(64, 10, basis)
    return nn.Sequential(first, MaxAbsNormalization(), last)


def _relu() -> nn.Sequential:
    hidden = [nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 120), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(120, 10))


NETWORKS = (
    Network("KAN", "64-32-10, cubic", lambda: KAN([64, 32, 10], grid_size=5), 0.01),
    Network("piecewise polynomial", "64-64-10, quadratic", _piecewise, 0.02),
    Network("ReLU", "64-120-120-10", _relu, 0.01),
)


def digits(validation: bool = False) -> Digits:
    """The 8 x 8 digits of scikit-learn, a quarter to test on; or a fifth of the rest, for validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x, test_x, y, test_y = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    if validation:
        x, test_x, y, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    scaled = (torch.tensor(part, dtype=torch.float32) / 8 - 1 for part in (x, test_x))
    return Digits(next(scaled), torch.tensor(y), next(scaled), torch.tensor(test_y))


def train(network: Network, data: Digits, epochs: int, seeds: int, report: Callable[[float], None]) -> Result:
    """Train from each seed, with AdamW under a one-cycle schedule; report gets each epoch's accuracy.

    Batches of 64 rows are too small to be shared out: one thread is as fast.
    """
    with threads(THREADS):
        result = Result(network.make(), _step_memory(network, data))
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = result.model = network.make()
            optimizer, steps = _optimizer(model, network), epochs * -(-len(data.x) // BATCH)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, network.rate, steps, pct_start=0.1)
            result.accuracy.append([])
            for _ in range(epochs):
                start = time.perf_counter()
                for rows in torch.randperm(len(data.x)).split(BATCH):
                    _step(model, optimizer, data.x[rows], data.y[rows])
                    schedule.step()
                result.seconds.append(time.perf_counter() - start)
                with torch.no_grad():
                    right = model(data.test_x).argmax(1) == data.test_y
                result.accuracy[-1].append(right.double().mean().item())
                report(result.accuracy[-1][-1])
    return result


def _optimizer(model: nn.Module, network: Network) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), network.rate, weight_decay=WEIGHT_DECAY)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    loss = cross_entropy(model(x + NOISE * torch.randn_like(x)), y, label_smoothing=SMOOTHING)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _step_memory(network: Network, data: Digits) -> int:
    model = network.make()
    optimizer = _optimizer(model, network)
    step = partial(_step, model, optimizer, data.x[:BATCH], data.y[:BATCH])
    step()  # creates the optimizer's state
    optimizer.zero_grad()
    return peak_memory(step)


def compare_layer(x: Tensor, repeats: int) -> dict[str, Any]:
    """Forward + backward of the piecewise network's first layer: ours and high-order-layers-torch's.

    The same weights; medians of seconds over alternating runs, peak bytes of a run, the largest difference of
    the results. "peer" is a sentence where it is not installed.
    """
    arguments = {"n": NODES, "segments": SEGMENTS, "in_features": 64, "out_features": 64}
    layers = {"ours": high_order_fc_layers("continuous", **arguments)}
    try:
        from high_order_layers_torch.layers import high_order_fc_layers as peer_layers
    except ImportError:
        pass
    else:
        layers["peer"] = peer_layers("continuous", **arguments)
        layers["peer"].load_state_dict(layers["ours"].state_dict())
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(repeats + 1):  # the first one warms up
        for name, layer in layers.items():
            start = time.perf_counter()
            gradients = _forward_backward(layer, x)
            seconds[name].append(time.perf_counter() - start)
            del gradients
    figures: dict[str, Any] = {"batch": len(x), **arguments, "peer": "not measured: not installed"}
    for name, layer in layers.items():
        memory = peak_memory(partial(_forward_backward, layer, x))
        figures[name] = {"seconds": median(seconds[name][1:]), "peak_bytes": memory}
    if "peer" in layers:
        ours, peer = figures["ours"], figures["peer"]
        figures["ratio"] = {key: peer[key] / ours[key] for key in ours}
        figures["difference"] = (layers["ours"](x) - layers["peer"](x)).abs().max().item()
    return figures


def _forward_backward(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The gradients of x and of the parameters."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))


def peak_memory(run: Callable[[], Any]) -> int:
    """The most bytes of CPU tensors that run() holds at once, on top of what was there before."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        activities = [torch.profiler.ProfilerActivity.CPU]
        with _silent(), torch.profiler.profile(profile_memory=True, activities=activities) as profile:
            run()
        with _silent():
            profile.export_chrome_trace(str(trace))
        events = [e["args"] for e in loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return int(max(event["Total Allocated"] for event in events) - before)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, versions, backend."""
    backend = resolve(torch.empty(0))
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "backend": backend,
        "backend_detail": get(backend).detail,
    }


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for torch in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _silent() -> Iterator[None]:
    """Without what the profiler's native part writes to the standard error."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
