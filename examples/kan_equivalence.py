"""A Kolmogorov-Arnold network is one of piecewise polynomials: a trained KAN, converted, gives the same.

A KAN [2, 1, 1] learns exp(sin(pi x) + y^2), the first example of Liu et al., KAN (2024). Each of its edges, a
sum of B-splines over a grid and a base branch, here the identity, is a cubic between two knots. It becomes a
layer whose coefficients are the values at nodes, without another training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from high_order_fused import HighOrderLinear, bases
from high_order_fused.kan import KAN, KANLinear
from high_order_fused.optim import make_optimizer
from high_order_fused.plot import edge_functions

from . import command, pictures, training
from .command import Figures, seeds, show


@dataclass
class Options(command.Options):
    steps: int = 300  # of Adam, then 20 of LBFGS
    update_every: int = 50  # steps until the grid moves again
    points: int = 1000
    grid_size: int = 8
    spline_order: int = 3


def target(points: Tensor) -> Tensor:
    x, y = points[:, :1], points[:, 1:]
    return torch.exp(torch.sin(torch.pi * x) + y**2)


def nodes(layer: KANLinear) -> Tensor:
    """Where the converted layer has its values: the Lobatto points of each piece of each input, [in, K]."""
    n = layer.spline_order + 1
    within = (1 - torch.cos(torch.pi * torch.arange(n - 1, dtype=torch.float64) / (n - 1))) / 2
    ends = layer.grid.double()
    inner = ends[:, :-1, None] + ends.diff(dim=1)[:, :, None] * within
    return torch.cat([inner.flatten(1), ends[:, -1:]], 1)


def piecewise(layer: KANLinear) -> HighOrderLinear:
    """The layer of piecewise polynomials with the functions of a KAN layer whose base branch is linear.

    Its pieces are those of the whole grid, at whose ends the splines are smoothly 0; lines go on from there.
    ValueError for an order below 2, whose splines end with a kink.
    """
    if layer.spline_order < 2:
        raise ValueError(f"spline_order: got {layer.spline_order}, needs at least 2")
    knots = layer.grid
    basis = bases.piecewise_lagrange(layer.spline_order + 1, knots.shape[1] - 1, knots=knots)
    converted = HighOrderLinear(layer.in_features, layer.out_features, basis)
    edges = edge_functions(layer)
    for feature, at in enumerate(nodes(layer)):
        values = edges.values(at[:, None], [feature], range(layer.out_features))[:, :, 0]  # [K, out]
        converted.weight.data[feature] = values.to(converted.weight)
    return converted


def run(options: Options) -> Figures:
    figures: dict[str, list[float]] = {}
    for seed in seeds(options):
        training.seeded(seed)
        sizes = {"grid_size": options.grid_size, "spline_order": options.spline_order}
        kan = KAN([2, 1, 1], base_activation=nn.Identity, **sizes)
        points = 2 * torch.rand(options.points, 2) - 1
        batch = points, target(points)
        _train(kan, batch, options, seed)
        pieces = nn.Sequential(*map(piecewise, kan.layers))
        with training.evaluating(kan, pieces):
            wide = 3 * torch.rand(10_000, 2) - 1.5  # also beyond what was seen
            y, same = kan(wide), pieces(wide)
            found = {
                "mse": training.mse(kan, *batch).item(),
                "mse, converted": training.mse(pieces, *batch).item(),
                "largest difference": ((y - same).abs().max() / y.abs().max()).item(),
            }
        for name, value in found.items():
            figures.setdefault(name, []).append(value)
        if seed == options.seed:
            draw(options, kan, pieces)
    rows = [{"seed": seed} | {k: v[i] for k, v in figures.items()} for i, seed in enumerate(seeds(options))]
    show("A KAN and its conversion", rows, "the largest difference is relative to the largest output")
    return dict(figures)


def _train(kan: KAN, batch: tuple[Tensor, Tensor], options: Options, seed: int) -> None:
    """By Adam while the grids move to where the data is, then by LBFGS."""
    steps = 100 if options.tiny else options.steps
    for start in range(0, steps, options.update_every):
        kan(batch[0], update_grid=True, corrected=True)
        adam = make_optimizer("adam", kan, lr=0.02)
        title = f"seed {seed}, Adam from step {start}"
        training.fit(kan, training.mse, [batch], adam, options.update_every, title=title)
    lbfgs = make_optimizer("lbfgs", kan, line_search_fn="strong_wolfe")
    training.fit(kan, training.mse, [batch], lbfgs, 2 if options.tiny else 20, title=f"seed {seed}, LBFGS")


@pictures.styled
def draw(options: Options, kan: KAN, pieces: nn.Sequential) -> None:
    """The three edges: above as a sum of B-splines, below as cubics between their ends."""
    figure, panels = pictures.panels(2, 3, (3.4, 2.6), sharex="col", sharey="col")
    names = [(0, 0, "$x$"), (0, 1, "$y$"), (1, 0, "the sum of both")]
    for column, (number, feature, name) in enumerate(names):
        layer = kan.layers[number]
        edges, converted = edge_functions(layer), edge_functions(pieces[number])
        ends = layer.grid[feature].double()
        x = torch.linspace(ends[0], ends[-1], 401, dtype=torch.float64)
        whole = torch.zeros(len(x), edges.inputs, dtype=x.dtype)
        whole[:, feature] = x
        splines = edges.phi(whole)[:, feature] * edges.weight[0, feature]
        above, below = panels[:, column]
        for spline in splines.T[:-1]:
            above.plot(x, spline, color=pictures.ORANGE, lw=0.8, alpha=0.6)
        above.plot(x, splines[:, -1], color=pictures.GREEN, ls="--", lw=1.2)
        above.plot(x, splines.sum(1), color=pictures.BLUE, lw=2)
        below.plot(x, converted.values(x[:, None], [feature], [0])[:, 0, 0], color=pictures.BLUE, lw=2)
        for knot in layer.grid[feature].tolist():
            below.axvline(knot, color=pictures.FAINT, lw=0.8, ls=":")
        values = pieces[number].weight[feature, :, 0].detach()
        ring = {"mec": pictures.BLUE, "mfc": "white", "mew": 1.2}
        below.plot(nodes(layer)[feature], values, "o", ms=4, **ring)
        above.set_title(f"Edge from {name}")
        below.set_xlabel(name)
    panels[0][0].set_ylabel("edges of the KAN")
    panels[1][0].set_ylabel("piecewise polynomials")
    lines = panels[0][2].get_lines()
    panels[0][2].legend(lines[-3:], ["a B-spline", "base", "their sum"], frameon=False, fontsize=8)
    lines = panels[1][2].get_lines()
    panels[1][2].legend(lines[-2:], ["knots", "values at nodes"], frameon=False, fontsize=8)
    pictures.save(figure, options, "kan_equivalence")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
