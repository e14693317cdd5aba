"""PRePU, a ReLU with a learned power, against ReLU on a cubic: rows of losses, and the powers it learned.

The target is 1 + x/4 + 2 x^2 - 3 x^3 for normal x of deviation 2, 10,000 points, a fifth for validation; both
networks are 1-8-8-8-8-1. The notebook that proposed PRePU reports a validation mse of 0.2764 for PRePU and of
2845 for ReLU after these 100 epochs, one run each. ReLU's is not typical: so much has a network whose units
have died for x > 0, where it is then constant (`constant_half`); few runs end so.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from high_order_fused.layers import PRePU
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show

PUBLISHED = {"PRePU": 0.2764, "ReLU": 2845.0}
COLOR = {"PRePU": pictures.BLUE, "ReLU": pictures.ORANGE}


@dataclass
class Options(command.Options):
    seeds: int = 5
    epochs: int = 100
    points: int = 10_000
    batch_size: int = 36
    learning_rate: float = 1e-3
    gradient_clip_val: float | None = 100.0  # null: none


@dataclass
class Run:
    """What came out of one training: the model, the mean loss and the validation loss of each epoch."""

    model: nn.Sequential
    train: list[float]
    validation: list[float]

    def powers(self) -> list[list[float]]:
        """The learned powers of each layer."""
        return [layer.power().tolist() for layer in self.model if isinstance(layer, PRePU)]


def target(x: Tensor) -> Tensor:
    return 1 + 0.25 * x + 2 * x**2 - 3 * x**3


def constant_half(number: int = 4001) -> float:
    """The expected mse of a network that is right for x < 0 and the best constant for x > 0."""
    x = torch.linspace(0, 16, number, dtype=torch.float64)
    weight = torch.exp(-(x**2) / 8)
    weight /= weight.sum()
    y = target(x)
    return 0.5 * (weight * (y - weight @ y) ** 2).sum().item()


def network(activation: str, width: int = 8, hidden_layers: int = 4) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (1, *[width] * (hidden_layers - 1)):
        layers += [nn.Linear(inputs, width), PRePU(width) if activation == "PRePU" else nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def run(options: Options) -> Figures:
    epochs = 3 if options.tiny else options.epochs
    runs: dict[str, list[Run]] = {name: [] for name in PUBLISHED}
    for seed in seeds(options):
        for name, done in runs.items():
            training.seeded(seed)
            x = 2 * torch.randn(1000 if options.tiny else options.points, 1)
            done.append(_trained(network(name), x, epochs, options, f"{name}, seed {seed}"))
    figures: Figures = {}
    rows = []
    for name, done in runs.items():
        found = {"train": [r.train[-1] for r in done], "validation": [r.validation[-1] for r in done]}
        figures |= {f"{name} {part}": losses for part, losses in found.items()}
        figures[f"{name} validation, median"] = middle = median(found["validation"])
        losses = ", ".join(f"{loss:.3g}" for loss in found["validation"])
        sizes = {"network": name, "parameters": training.parameters(done[0].model)}
        rows.append(sizes | {"each": losses, "median": middle, "published": PUBLISHED[name]})
    note = (
        f"ReLU's published mse: constant for x > 0 and right elsewhere, it is at least {constant_half():.0f}"
    )
    show(f"Validation mse after {epochs} epochs, for each seed", rows, note)
    best = min(runs["PRePU"], key=lambda r: r.validation[-1])
    learned = [
        {"layer": i, "powers": ", ".join(f"{q:.2f}" for q in sorted(layer)), "mean": mean(layer)}
        for i, layer in enumerate(best.powers(), 1)
    ]
    show("The powers of the best PRePU network", learned)
    figures |= {f"powers of layer {i}": layer for i, layer in enumerate(best.powers(), 1)}
    draw(options, runs)
    return figures


def _trained(model: nn.Sequential, x: Tensor, epochs: int, options: Options, title: str) -> Run:
    model, x = model.to(options.device), x.to(options.device)
    kept = len(x) // 5
    validation, data = (x[:kept], target(x[:kept])), (x[kept:], target(x[kept:]))
    result = Run(model, [], [])
    loop = training.epochs_of(
        model,
        training.mse,
        training.Batches(*data, size=options.batch_size),
        make_optimizer("adam", model, lr=options.learning_rate),
        epochs,
        options.gradient_clip_val,
        title,
    )
    for loss in loop:
        result.train.append(loss)
        with training.evaluating(model):
            result.validation.append(training.mse(model, *validation).item())
    return result


@pictures.styled
def draw(options: Options, runs: dict[str, list[Run]]) -> None:
    """The fits, the losses of all seeds, the powers of all seeds."""
    figure, ((fits, losses, powers),) = pictures.panels(1, 3, (4.0, 3.4))
    x = torch.linspace(-8, 8, 401)[:, None]
    fits.plot(x, target(x), color=pictures.FAINT, lw=6, label="target")
    for name, done in runs.items():
        middle = sorted(done, key=lambda r: r.validation[-1])[len(done) // 2]
        with training.evaluating(middle.model):
            fits.plot(x, middle.model(x.to(options.device)).cpu(), color=COLOR[name], label=name)
        for r in done:
            losses.semilogy(range(1, len(r.validation) + 1), r.validation, color=COLOR[name], lw=1, alpha=0.8)
        losses.axhline(PUBLISHED[name], color=COLOR[name], lw=1, ls=":")
    fits.set(title="The median fit of each network", xlabel="x, of deviation 2 in the data", ylabel="y")
    fits.legend(frameon=False)
    losses.set(title="Dotted: as published", xlabel="epoch", ylabel="validation mse")
    _draw_powers(powers, runs["PRePU"])
    pictures.save(figure, options, "prepu")


def _draw_powers(axes: Any, runs: list[Run]) -> None:
    for number, r in enumerate(runs):
        for layer, powers in enumerate(r.powers(), 1):
            place = [layer + 0.6 * ((number + 0.5) / len(runs) - 0.5)] * len(powers)
            axes.plot(place, powers, "o", ms=4, mec="white", mew=0.5, color=COLOR["PRePU"])
    axes.axhline(1, color=COLOR["ReLU"], lw=1, zorder=0)
    axes.annotate("ReLU", (4.45, 1), xytext=(0, 2), textcoords="offset points", color=COLOR["ReLU"])
    axes.set(
        title="Powers that PRePU learned", xlabel="layer (a column a seed)", ylabel="power q of relu(x)^q"
    )
    axes.set(xticks=range(1, 5), xlim=(0.5, 4.95), ylim=(0, 2))


main = command.command(Options, run)

if __name__ == "__main__":
    main()
