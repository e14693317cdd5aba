"""The sum of velocities, (u + v) / (1 + uv), found by LBFGS: a KAN [2, 2, 1], and two piecewise layers.

The setting is a test of efficient-kan, which asserts a shape alone: u and v uniform on [0, 1], 100 steps, the
KAN's grid moved to where the data is every 20. The piecewise network has as many layers and hidden nodes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from high_order_fused.kan import KAN
from high_order_fused.networks import HighOrderMLP
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show


@dataclass
class Options(command.Options):
    steps: int = 100
    update_every: int = 20  # steps until the KAN's grid moves again
    points: int = 1024
    grid_size: int = 5
    spline_order: int = 3
    n: int = 4
    segments: int = 5


@dataclass
class Run:
    """A trained model with the loss of each step and its error on points of its own."""

    model: nn.Module
    losses: list[float]
    mse: float


def target(x: Tensor) -> Tensor:
    u, v = x[:, :1], x[:, 1:]
    return (u + v) / (1 + u * v)


def networks(options: Options) -> dict[str, nn.Module]:
    sizes = {"grid_size": options.grid_size, "spline_order": options.spline_order}
    pieces = dict.fromkeys(("in_segments", "out_segments", "hidden_segments"), options.segments)
    return {
        "KAN": KAN([2, 2, 1], base_activation=nn.Identity, **sizes),
        "continuous": HighOrderMLP("continuous", options.n, 2, 1, 0, 2, **pieces),
    }


def run(options: Options) -> Figures:
    runs: dict[str, list[Run]] = {}
    for seed in seeds(options):
        training.seeded(seed)
        for name, model in networks(options).items():
            runs.setdefault(name, []).append(_trained(name, model.to(options.device), options))
    errors = {name: [r.mse for r in done] for name, done in runs.items()}
    rows = [
        {"network": k, "parameters": training.parameters(runs[k][0].model), "mse": mean(e), "worst": max(e)}
        for k, e in errors.items()
    ]
    show("(u + v) / (1 + uv)", rows)
    draw(options, {name: done[0] for name, done in runs.items()})
    return dict(errors)


def _trained(name: str, model: nn.Module, options: Options) -> Run:
    x = torch.rand(options.points, 2, device=options.device)
    losses: list[float] = []
    steps = 8 if options.tiny else options.update_every
    for start in range(0, 1 if options.tiny else options.steps, options.update_every):
        if isinstance(model, KAN):
            model(x, update_grid=True, corrected=True)
        search = {"line_search_fn": "strong_wolfe", "tolerance_change": 1e-12}
        optimizer = make_optimizer("lbfgs", model, **search)  # a moved grid makes the old curvature void
        title = f"{name}, from step {start}"
        losses += training.fit(model, training.mse, [(x, target(x))], optimizer, steps, title=title)
    with training.evaluating(model):
        points = torch.rand(10_000, 2, device=options.device)
        return Run(model, losses, training.mse(model, points, target(points)).item())


@pictures.styled
def draw(options: Options, runs: dict[str, Run]) -> None:
    """The losses, and where each network is wrong."""
    figure, (panels,) = pictures.panels(1, 3, (4.0, 3.3))
    line = torch.linspace(0, 1, 100, device=options.device)
    for (name, found), color, axes in zip(runs.items(), pictures.COLORS, panels[1:], strict=False):
        panels[0].semilogy(range(1, len(found.losses) + 1), found.losses, color=color, label=name)
        points = torch.cartesian_prod(line, line)
        with training.evaluating(found.model):
            wrong = 1e3 * (found.model(points) - target(points)).view(100, 100).T.cpu()
        most = wrong.abs().max().item()
        image = axes.imshow(
            wrong.numpy(),
            origin="lower",
            extent=(0, 1, 0, 1),
            cmap="RdBu_r",
            vmin=-most,
            vmax=most,
            aspect="auto",
        )
        axes.set(title=f"{name}: mse {found.mse:.1e}", xlabel="u", ylabel="v")
        figure.colorbar(image, ax=axes, label="error, thousandths")
    title = r"Sum of velocities, $(u+v)/(1+uv)$"
    panels[0].set(title=title, xlabel="step of LBFGS", ylabel="mean squared error")
    panels[0].legend(frameon=False)
    pictures.save(figure, options, "symbolic")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
