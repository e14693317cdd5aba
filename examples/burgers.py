"""Burgers' equation u_t + u u_x = v u_xx, solved by a network that is never shown a solution.

A physics-informed network: the network is u(x, t), and the equation's residual at random points is made
small, so that each step differentiates it three times, through the layers' kernels. From u(x, 0) = -sin(pi x)
and u(-1, t) = u(1, t) = 0 a shock rises at x = 0, about as wide as the viscosity v = 0.01 / pi. A KAN of
smooth splines, the knots of its first layer close together where the shock will be, stands beside a tanh
network of as many parameters; the same points, steps and optimizers serve both. The reference is the formula
of Cole and Hopf. The problem is that of M. Raissi, P. Perdikaris, G. Karniadakis, Physics-informed neural
networks, J. Comput. Phys. 378 (2019), who report 0.067 % relative L2 error with 3021 parameters and 10,000
points.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from high_order_fused.kan import KAN
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show

KINDS = "splines", "tanh"
TIMES = 0.25, 0.5, 0.75


@dataclass
class Options(command.Options):
    viscosity: float = 0.01 / math.pi
    width: int = 8  # of the two hidden layers of splines
    degree: int = 4  # of the splines: three derivatives are continuous
    segments: int = 12
    tanh_width: int = 27  # of three hidden layers
    points: int = 4096  # drawn anew in each epoch and round, half of them near x = 0
    max_epochs: int = 300  # of Adam
    rounds: int = 16  # of LBFGS
    steps: int = 200  # of LBFGS in a round
    learning_rate: float = 5e-3


def run(options: Options) -> Figures:
    if options.tiny:
        options.viscosity, options.points, options.segments = 0.1, 128, 6
        options.max_epochs, options.rounds, options.steps = 60, 1, 20
    x, t = np.linspace(-1, 1, 257), np.linspace(0, 1, 101)
    exact = reference(x, t, options.viscosity)
    figures: Figures = {}
    rows, drawn = [], {}
    for kind in KINDS:
        errors = []
        for seed in seeds(options):
            training.seeded(seed)
            model = Solution(network(kind, options)).to(options.device)
            train(model, options, f"{kind}, seed {seed}")
            found = on_grid(model, x, t)
            drawn.setdefault(kind, found)
            errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
        figures |= {f"{kind} error": errors, f"{kind} parameters": training.parameters(model)}
        each = ", ".join(f"{100 * error:.3g}" for error in errors)
        rows.append(
            {
                "network": kind,
                "parameters": training.parameters(model),
                "each": each,
                "mean": 100 * mean(errors),
            }
        )
    show(f"Burgers' equation, viscosity {options.viscosity:.5f}: relative L2 error in %, for each seed", rows)
    draw(options, x, t, exact, drawn)
    return figures


class Solution(nn.Module):
    """u(x, t) in two columns, whatever the network: initial and boundary values are right by construction."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return t * (1 - x * x) * self.network(torch.cat([x, 2 * t - 1], 1)) - torch.sin(math.pi * x)


def network(kind: str, options: Options) -> nn.Module:
    if kind == "tanh":
        w = options.tanh_width
        hidden = [part for _ in range(2) for part in (nn.Linear(w, w), nn.Tanh())]
        return nn.Sequential(nn.Linear(2, w), nn.Tanh(), *hidden, nn.Linear(w, 1))
    kan = KAN([2, options.width, options.width, 1], options.segments, options.degree)
    knots: Any = kan.layers[0].grid
    knots[0] = torch.sinh(4 * knots[0]) / math.sinh(4)  # of x: close together at 0, and -1 and 1 as before
    return kan


def residual(model: nn.Module, x: Tensor, t: Tensor, viscosity: float) -> Tensor:
    """u_t + u u_x - v u_xx over 1 + |u_x| / 10, so that the steep shock leaves the other points their say."""
    x, t = x.requires_grad_(), t.requires_grad_()
    u = model(x, t)
    u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    found: Tensor = (u_t + u * u_x - viscosity * u_xx) / (1 + 0.1 * u_x.detach().abs())
    return found


class Points:
    """One batch an epoch: x [N, 1] in (-1, 1), half of it drawn towards 0, and t [N, 1] in (0, 1)."""

    def __init__(self, number: int, device: str) -> None:
        self.number, self.device = number, device
        self.sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=torch.initial_seed())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, t = self.sobol.draw(self.number, dtype=torch.float32).to(self.device).split(1, 1)
        x = 2 * x - 1
        yield torch.cat([x[::2], x[1::2] ** 3]), torch.cat([t[::2], t[1::2]])


def train(model: nn.Module, options: Options, title: str) -> None:
    def loss(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        return residual(model, x, t, options.viscosity).square().mean()

    points = Points(options.points, options.device)
    optimizer = make_optimizer("adam", model, lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, options.max_epochs, options.learning_rate / 50
    )
    for _ in training.epochs_of(model, loss, points, optimizer, options.max_epochs, title=title):
        schedule.step()
    wolfe: dict[str, Any] = {"line_search_fn": "strong_wolfe", "tolerance_change": 0.0, "tolerance_grad": 0.0}
    for number in range(options.rounds):  # each begins anew: what LBFGS remembers is of other points
        optimizer = make_optimizer("lbfgs", model, max_iter=options.steps, history_size=50, **wolfe)
        training.fit(model, loss, points, optimizer, 1, title=f"{title}, LBFGS {number + 1}")


def reference(x: np.ndarray, t: np.ndarray, viscosity: float) -> np.ndarray:
    """u [len(t), len(x)] by Cole's and Hopf's integrals, 200 points of Gauss-Hermite quadrature each."""
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    y = x[:, None] - 2 * np.sqrt(viscosity * t)[:, None, None] * nodes
    power = -np.cos(np.pi * y) / (2 * np.pi * viscosity)
    share = np.exp(power - power.max(-1, keepdims=True)) * weights
    found: np.ndarray = -(share * np.sin(np.pi * y)).sum(-1) / share.sum(-1)
    return found


def on_grid(model: nn.Module, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """u [len(t), len(x)]."""
    device = next(model.parameters()).device
    times, places = (
        torch.tensor(a.reshape(-1, 1), dtype=torch.float32) for a in np.meshgrid(t, x, indexing="ij")
    )
    with training.evaluating(model):
        u: np.ndarray = model(places.to(device), times.to(device)).cpu().double().numpy()
    return u.reshape(len(t), len(x))


@pictures.styled
def draw(
    options: Options, x: np.ndarray, t: np.ndarray, exact: np.ndarray, found: dict[str, np.ndarray]
) -> None:
    """Above the solutions, below the errors over the same colours, and three slices through all of them."""
    from matplotlib.colors import BoundaryNorm

    figure, grid = pictures.panels(2, 3, (3.7, 2.7))
    shown = {"Reference": exact} | {f"u of the {kind} network": u for kind, u in found.items()}
    for axes, (title, u) in zip(grid[0], shown.items(), strict=True):
        mesh = axes.contourf(t, x, u.T, np.linspace(-1, 1, 21), cmap="RdBu_r", extend="both")
        axes.set(title=title, xlabel="t", ylabel="x")
    figure.colorbar(mesh, ax=grid[0], label="u", shrink=0.9, pad=0.01, ticks=[-1, -0.5, 0, 0.5, 1])
    errors = {kind: np.abs(u - exact) for kind, u in found.items()}
    steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]
    scale: dict[str, Any] = {
        "levels": steps,
        "norm": BoundaryNorm(steps, 256, extend="both"),
        "extend": "both",
    }
    for axes, error in zip(grid[1, 1:], errors.values(), strict=True):
        mesh = axes.contourf(t, x, error.T, cmap="magma_r", **scale)
        share = np.linalg.norm(error) / np.linalg.norm(exact)
        axes.set(title=f"Error, {100 * share:.2g} % in L2", xlabel="t", ylabel="x")
    figure.colorbar(mesh, ax=grid[1, 1:], label="|u - reference|", shrink=0.9, pad=0.01, format="%g")
    slices = grid[1, 0]
    for time in TIMES:
        row = int(np.abs(t - time).argmin())
        slices.plot(
            x, exact[row], color=pictures.FAINT, lw=6, label="reference" if time == TIMES[0] else None
        )
        for kind, color, style in (("splines", pictures.BLUE, "-"), ("tanh", pictures.ORANGE, ":")):
            slices.plot(
                x, found[kind][row], style, color=color, lw=1.6, label=kind if time == TIMES[0] else None
            )
    slices.set(title="At t = " + ", ".join(map(str, TIMES)), xlabel="x", ylabel="u")
    slices.legend(frameon=False, fontsize=8)
    pictures.save(figure, options, "burgers")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
