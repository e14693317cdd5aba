"""Training on several processes or machines, by DDP and by FSDP2, with the gradients of a single process.

    torchrun --standalone --nproc-per-node 2 -m examples.distributed

Each process takes its share of every batch. After training, the weights are gathered into an ordinary
network, whose gradients are compared with the engine's at the same weights, and whose accuracy on digits of
scikit-learn is reported. docs/distributed.md says what layers need. No published figure belongs to this.
"""

import contextlib
import copy
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from high_order_fused.checks import choice
from high_order_fused.layers import high_order_fc_layers
from high_order_fused.norm import MaxAbsNormalizationLast
from high_order_fused.optim import make_optimizer

from . import command, data, pictures, training
from .command import Figures, show

ALONE = "alone"
ENGINES = "ddp", "fsdp2"


@dataclass
class Options(command.Options):
    engines: list[str] = field(default_factory=lambda: list(ENGINES))
    layer_type: str = "continuous"
    n: int = 2
    segments: int = 2
    width: int = 32
    max_epochs: int = 20
    batch_size: int = 64  # of all processes together
    learning_rate: float = 3e-3


@dataclass
class Result:
    """The mean loss of each epoch, each parameter's difference of gradients, the accuracy."""

    history: list[float]
    differences: dict[str, float]
    accuracy: float


def run(options: Options) -> Figures:
    for engine in options.engines:
        choice("engines", engine, ENGINES)
    if options.tiny:
        options.max_epochs, options.width = 2, 8
    with processes(options.device) as (mesh, device):
        first = mesh.get_rank() == 0
        if options.batch_size % mesh.size():
            needed = f"a multiple of the {mesh.size()} processes"
            raise ValueError(f"batch_size: got {options.batch_size}, needs {needed}")
        with contextlib.nullcontext() if first else contextlib.redirect_stdout(io.StringIO()):
            images = data.load().to(device)
            results = {engine: train(engine, images, options, mesh) for engine in (ALONE, *options.engines)}
    if not first:
        sys.exit()  # the first process reports
    figures: Figures = {"processes": mesh.size()}
    rows = []
    for engine, result in results.items():
        worst = max(result.differences.values())
        rows.append(
            {"engine": engine, "loss": result.history[-1], "accuracy": result.accuracy, "gradients": worst}
        )
        figures |= {f"{engine} loss": result.history[-1], f"{engine} accuracy": result.accuracy}
        figures[f"{engine} gradient difference"] = worst
    title = f"Digits, {mesh.size()} processes; gradients: the largest difference from one process"
    show(title, rows)
    draw(options, results, mesh.size())
    return figures


@contextlib.contextmanager
def processes(device: str) -> Iterator[tuple[DeviceMesh, torch.device]]:
    """The processes that torchrun started, or this one alone, and this one's device."""
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    backend = "gloo" if place.type == "cpu" else "nccl"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh(place.type, (dist.get_world_size(),)), place
    finally:
        dist.destroy_process_group()


def network(options: Options) -> nn.Sequential:
    def edges(inputs: int, outputs: int) -> nn.Module:
        sizes = {"in_features": inputs, "out_features": outputs, "n": options.n, "segments": options.segments}
        return high_order_fc_layers(options.layer_type, **sizes)

    model = nn.Sequential(edges(64, options.width), MaxAbsNormalizationLast(), edges(options.width, 10))
    for name, parameter in model.named_parameters():
        if name.endswith("result"):  # of polynomial and fourier: it is in checkpoints and has no gradient
            parameter.requires_grad_(False)
    return model


def parallel(model: nn.Sequential, engine: str, mesh: DeviceMesh) -> nn.Module:
    """The network as an engine trains it."""
    if engine == ALONE:
        return model
    if engine == "ddp":
        return DistributedDataParallel(model, device_mesh=mesh)
    for layer in model:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


class Shares:
    """A process's rows of each batch; all processes shuffle alike."""

    def __init__(self, batches: training.Batches, rank: int, number: int) -> None:
        self.batches, self.rank, self.number = batches, rank, number

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self.batches:
            yield tuple(t[self.rank :: self.number] for t in batch)


def train(engine: str, images: data.Images, options: Options, mesh: DeviceMesh) -> Result:
    training.seeded(options.seed)
    single = network(options).to(images.train.x.device)
    model = parallel(copy.deepcopy(single), engine, mesh)
    rank, number = (0, 1) if engine == ALONE else (mesh.get_rank(), mesh.size())
    rows = len(images.train) // options.batch_size * options.batch_size  # whole batches, equal shares
    x, y = 2 * images.train.x[:rows].flatten(1) - 1, images.train.y[:rows]
    batches = Shares(training.Batches(x, y, size=options.batch_size), rank, number)
    optimizer = make_optimizer("adam", model, lr=options.learning_rate)
    history = training.fit(
        model, training.cross_entropy, batches, optimizer, options.max_epochs, title=engine
    )
    losses = torch.tensor(history, device=x.device)  # of this process's shares
    dist.all_reduce(losses)
    single.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    expected, found = gradients(single, x, y), gradients(model, x[rank::number], y[rank::number])
    differences = {
        name: ((found[name] - g).abs().max() / g.abs().max()).item() for name, g in expected.items()
    }
    with training.evaluating(single):
        chosen = single(2 * images.test.x.flatten(1) - 1).argmax(1)
    accuracy = (chosen == images.test.y).double().mean().item()
    return Result((losses / mesh.size()).tolist(), differences, accuracy)


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of the cross entropy, whole, by the names of an ordinary network's parameters."""
    training.cross_entropy(model, x, y).backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient: Any = parameter.grad
        if gradient is not None:
            found[name.removeprefix("module.")] = getattr(
                gradient, "full_tensor", lambda g=gradient: g
            )().clone()
    model.zero_grad()
    return found


@pictures.styled
def draw(options: Options, results: dict[str, Result], number: int) -> None:
    """Loss by epoch, one line on the other, and the differences of gradients of each parameter."""
    figure, ((losses, bars),) = pictures.panels(1, 2, (4.4, 3.2))
    for (engine, result), color, width in zip(
        results.items(), pictures.COLORS, (7.0, 3.5, 1.2), strict=False
    ):
        losses.plot(range(1, len(result.history) + 1), result.history, color=color, lw=width, label=engine)
    losses.set(title=f"Loss on {number} processes and alone", xlabel="epoch", ylabel="cross entropy")
    losses.xaxis.get_major_locator().set_params(integer=True)
    losses.legend(frameon=False)
    names = list(results[ALONE].differences)
    for place, (engine, color) in enumerate(zip(options.engines, pictures.COLORS[1:], strict=False)):
        heights = [max(results[engine].differences[name], 1e-9) for name in names]
        bars.bar(
            [i + 0.4 * (place - 0.5) for i in range(len(names))], heights, 0.36, color=color, label=engine
        )
    bars.axhline(1e-5, color=pictures.MUTED, ls=":", lw=1)
    bars.set(title="Difference from one process's gradient", yscale="log", ylim=(1e-9, 1e-4))
    bars.set(xticks=range(len(names)), xticklabels=names, xlabel="parameter", ylabel="largest, relative")
    bars.legend(frameon=False, loc="upper left")
    pictures.save(figure, options, "distributed")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
