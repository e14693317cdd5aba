"""A function of two variables by a perceptron of learned functions, and by a ReLU perceptron of like size.

Rings that narrow towards the middle: 0.5 cos(1.5 pi / (r + 0.25)), r the distance from 0, for x and y in
[-1, 1]. A high-order perceptron with one hidden layer stands beside ReLU perceptrons with one and two hidden
layers of at least as many parameters. high-order-layers-torch has a notebook for this, without numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from high_order_fused.networks import HighOrderMLP, LowOrderMLP
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show


@dataclass
class Options(command.Options):
    layer_type: str = "continuous"  # or discontinuous, polynomial, fourier, kan ...
    n: int = 4
    in_segments: int = 4
    out_segments: int = 10
    hidden_width: int = 6
    points: int = 4000
    batch_size: int = 64
    epochs: int = 60
    optimizer: str = "adam"
    learning_rate: float = 0.01


def target(points: Tensor) -> Tensor:
    return 0.5 * torch.cos(1.5 * torch.pi / (points.norm(dim=1, keepdim=True) + 0.25))


def grid(number: int = 100) -> Tensor:
    line = torch.linspace(-1, 1, number)
    return torch.cartesian_prod(line, line)


def high_order(options: Options) -> nn.Module:
    pieces = {"in_segments": options.in_segments, "out_segments": options.out_segments}
    return HighOrderMLP(options.layer_type, options.n, 2, 1, 0, options.hidden_width, **pieces)


def relu(hidden_layers: int, least: int) -> nn.Module:
    """The narrowest ReLU perceptron with so many hidden layers and at least so many parameters."""
    width = 1
    while True:
        model = LowOrderMLP(2, 1, hidden_layers - 1, width, nn.ReLU())
        if training.parameters(model) >= least:
            return model
        width += 1


def run(options: Options) -> Figures:
    truth = target(grid())
    found: dict[str, list[tuple[float, Tensor]]] = {}
    sizes = {}
    for seed in seeds(options):
        training.seeded(seed)
        models = {options.layer_type: high_order(options)}
        least = training.parameters(models[options.layer_type])
        models |= {"ReLU, 1 hidden layer": relu(1, least), "ReLU, 2 hidden layers": relu(2, least)}
        points = 2 * torch.rand(options.points, 2) - 1
        for name, model in models.items():
            z = _fitted(model, points, options, f"{name}, seed {seed}")
            found.setdefault(name, []).append(((z - truth).square().mean().item(), z))
            sizes[name] = training.parameters(model)
    figures: Figures = {name: [mse for mse, _ in each] for name, each in found.items()}
    rows = [{"network": k, "parameters": sizes[k], "mse": mean(v)} for k, v in figures.items()]
    show(f"Rings on the grid, mean of {options.seeds} seeds", rows)
    titles = {k: f"{k}\n{sizes[k]} parameters, mse {found[k][0][0]:.1e}" for k in found}
    draw(options, {"Target\n": truth} | {titles[k]: found[k][0][1] for k in found})
    return figures


def _fitted(model: nn.Module, points: Tensor, options: Options, title: str) -> Tensor:
    """What the trained model makes of the grid."""
    model, points = model.to(options.device), points.to(options.device)
    optimizer = make_optimizer(options.optimizer, model, lr=options.learning_rate)
    epochs = 3 if options.tiny else options.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    batches = training.Batches(points, target(points), size=options.batch_size)
    for _ in training.epochs_of(model, training.mse, batches, optimizer, epochs, title=title):
        schedule.step()
    with training.evaluating(model):
        return model(grid().to(options.device)).cpu()


@pictures.styled
def draw(options: Options, surfaces: dict[str, Tensor]) -> None:
    """The target and the functions of the networks."""
    figure, (panels,) = pictures.panels(1, len(surfaces), (2.75, 2.9), sharex=True, sharey=True)
    for axes, (title, z) in zip(panels, surfaces.items(), strict=True):
        side = round(len(z) ** 0.5)
        image = axes.imshow(
            z.view(side, side).T.numpy(),
            origin="lower",
            extent=(-1, 1, -1, 1),
            cmap="RdBu_r",
            vmin=-0.6,
            vmax=0.6,
        )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("x")
    panels[0].set_ylabel("y")
    figure.colorbar(image, ax=panels, shrink=0.7, label="value")
    pictures.save(figure, options, "mlp2d")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
