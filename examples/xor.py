"""XOR on the square, -0.5 where xy > 0 and 0.5 elsewhere: the jumps along the axes, by four kinds of layers.

Networks 2-2-1 of continuous, discontinuous or polynomial layers, and a single edge of two variables
(polynomial_2d), each for four n. high-order-layers-torch's README shows pictures without numbers and says
that discontinuous layers can match the function exactly. All is measured on a 100 x 100 grid, off the axes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from high_order_fused.layers import high_order_fc_layers
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show

NODES = {
    "continuous": (2, 3, 4, 5),
    "discontinuous": (2, 3, 4, 5),  # with the peer's 1, no gradient gets to the first layer
    "polynomial": (2, 4, 6, 8),
    "polynomial_2d": (2, 4, 6, 8),
}


@dataclass
class Options(command.Options):
    layer_type: str = "all"  # or one of NODES
    segments: int = 2
    epochs: int = 40
    batch_size: int = 32
    optimizer: str = "adam"  # or sophia, the peer's; lion, sparse_lion, adahessian, lbfgs
    learning_rate: float = 0.01


class Case(NamedTuple):
    layer_type: str
    n: int


def target(points: Tensor) -> Tensor:
    return torch.where(points.prod(1, keepdim=True) > 0, -0.5, 0.5)


def grid(number: int = 100) -> Tensor:
    line = torch.linspace(-1, 1, number)
    return torch.cartesian_prod(line, line)


def network(case: Case, segments: int) -> nn.Sequential:
    kind, n = case
    if kind == "polynomial_2d":
        one = high_order_fc_layers(kind, n=n, in_features=1, out_features=1)
        return nn.Sequential(nn.Unflatten(1, (1, 2)), one)
    sizes = {"n": n, "segments": segments, "in_features": 2}
    return nn.Sequential(*(high_order_fc_layers(kind, out_features=width, **sizes) for width in (2, 1)))


def run(options: Options) -> Figures:
    if options.layer_type not in ("all", *NODES):
        raise ValueError(f"layer_type: got {options.layer_type!r}, needs 'all' or one of {', '.join(NODES)}")
    kinds = NODES if options.layer_type == "all" else [options.layer_type]
    cases = [Case(kind, n) for kind in kinds for n in (NODES[kind][1:2] if options.tiny else NODES[kind])]
    figures: Figures = {}
    rows, surfaces = [], {}
    for case in cases:
        found = [_fitted(case, seed, options) for seed in seeds(options)]
        truth = target(grid())
        mse = [(z - truth).square().mean().item() for z in found]
        right = [(z.sign() == truth.sign()).double().mean().item() for z in found]
        surfaces[case] = min(zip(mse, found, strict=True), key=lambda pair: pair[0])
        figures |= {f"{case.layer_type} n={case.n} mse": mse, f"{case.layer_type} n={case.n} accuracy": right}
        row = {"layers": case.layer_type, "n": case.n, "mse": mean(mse), "best mse": min(mse)}
        rows.append(row | {"right sign": f"{mean(right):.2%}"})
    show(f"XOR on the grid, {options.optimizer}, mean of {options.seeds} seeds", rows)
    draw(options, surfaces)
    return figures


def _fitted(case: Case, seed: int, options: Options) -> Tensor:
    """What the trained network makes of the grid."""
    training.seeded(seed)
    points = 2 * torch.rand(1000, 2, device=options.device) - 1
    model = network(case, options.segments).to(options.device)
    training.fit(
        model,
        training.mse,
        training.Batches(points, target(points), size=options.batch_size),
        make_optimizer(options.optimizer, model, lr=options.learning_rate),
        options.epochs,
        title=f"{case.layer_type}, n = {case.n}, seed {seed}",
    )
    with training.evaluating(model):
        return model(grid().to(options.device)).cpu()


@pictures.styled
def draw(options: Options, surfaces: dict[Case, tuple[float, Tensor]]) -> None:
    """The best seed's function of each case: a row for each kind, or 2 x 2 of one kind."""
    colors = {"cmap": "RdBu_r", "vmin": -0.75, "vmax": 0.75}
    columns = min(len(surfaces), 2 if len(surfaces) <= 4 else 4)
    rows = -(-len(surfaces) // columns)
    size = 1.9 if columns > 2 else 2.5  # the bar of colours takes its share
    figure, panels = pictures.panels(rows, columns, (size, size), sharex=True, sharey=True)
    for axes, (case, (mse, z)) in zip(panels.flat, surfaces.items(), strict=True):
        side = round(len(z) ** 0.5)
        place = {"origin": "lower", "extent": (-1, 1, -1, 1), "interpolation": "nearest"}
        image = axes.imshow(z.view(side, side).T.numpy(), **place, **colors)
        axes.set_title(f"{case.layer_type}\nn = {case.n}, mse {mse:.1e}", fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel("x")
    for axes in panels[:, 0]:
        axes.set_ylabel("y")
    figure.colorbar(image, ax=panels, shrink=0.5 if rows > 2 else 0.8, label="output (target: -0.5 and 0.5)")
    pictures.save(figure, options, "xor" if options.layer_type == "all" else f"xor_{options.layer_type}")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
