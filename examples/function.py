"""A function of one variable by a single edge of each kind, and by ReLU networks of as many parameters.

The target, 0.5 cos(1.5 * 3.14159 / (|x| + 0.25)) on [-1, 1], oscillates faster the nearer to 0. function.png
has the four panels of high-order-layers-torch's README (which gives no numbers); function_parameters.png
tells what a parameter is worth in each kind.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from high_order_fused.kan import KANLinear
from high_order_fused.layers import high_order_fc_layers
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show

SHOWN = {
    "discontinuous": (1, 2, 4, 6),
    "continuous": (1, 2, 4, 6),
    "polynomial": (10, 20, 30),
    "fourier": (10, 20, 30),
}
KINDS = "continuous", "discontinuous", "B-spline", "polynomial", "fourier", "ReLU"
BUDGETS = 16, 31, 61, 121  # parameters of ReLU networks with 5, 10, 20 and 40 units
LEARNING_RATE = {
    "adam": 0.01,
    "lion": 1e-3,
    "sparse_lion": 1e-3,
    "sophia": 0.01,
    "adahessian": 0.1,
    "lbfgs": 1.0,
}


@dataclass
class Options(command.Options):
    optimizer: str = "adam"  # or lion, sparse_lion, sophia, adahessian, lbfgs
    learning_rate: float | None = None  # null: that of LEARNING_RATE
    epochs: int = 20
    segments: int = 5  # in the four panels
    batch_size: int = 4


class Case(NamedTuple):
    """A kind of function with n values an edge or segment; of a ReLU network the hidden units."""

    kind: str
    n: int
    segments: int | None = None

    def model(self) -> nn.Module:
        if self.kind == "ReLU":
            return nn.Sequential(nn.Linear(1, self.n), nn.ReLU(), nn.Linear(self.n, 1))
        if self.kind == "B-spline":
            return KANLinear(1, 1, self.segments, self.n - 1, enable_standalone_scale_spline=False)
        return high_order_fc_layers(
            self.kind, n=self.n, in_features=1, out_features=1, segments=self.segments
        )

    def parameters(self) -> int:
        """How many are trained; a peer's unused `result` is not."""
        return sum(p.numel() for name, p in self.model().named_parameters() if name != "result")


def within(kind: str, budget: int) -> Case:
    """The largest model of a kind with at most so many parameters; piecewise ones of cubics."""
    return {
        "continuous": Case(kind, 4, (budget - 1) // 3),
        "discontinuous": Case(kind, 4, budget // 4),
        "B-spline": Case(kind, 4, budget - 4),
        "polynomial": Case(kind, budget),
        "fourier": Case(kind, budget),
        "ReLU": Case(kind, (budget - 1) // 3),
    }[kind]


def target(x: Tensor) -> Tensor:
    return 0.5 * torch.cos(1.5 * 3.14159 / (x.abs() + 0.25))


def grid() -> Tensor:
    return torch.arange(1000).view(-1, 1) / 500 - 1


def run(options: Options) -> Figures:
    shown = [Case(kind, n, options.segments) for kind, every in SHOWN.items() for n in every]
    budgets = BUDGETS[1:2] if options.tiny else BUDGETS
    compared = [within(kind, budget) for kind in KINDS for budget in budgets]
    fits: dict[Case, Tensor] = {}
    errors: dict[Case, list[float]] = {}
    for case in dict.fromkeys([*([] if options.tiny else shown), *compared]):
        every = seeds(options) if case in compared else seeds(options)[:1]
        predictions = [_fitted(case, seed, options) for seed in every]
        fits[case] = predictions[0]
        errors[case] = [(y - target(grid())).square().mean().item() for y in predictions]
    means = {k: {f"{b} parameters": mean(errors[within(k, b)]) for b in budgets} for k in KINDS}
    worse = {b: max(means["continuous"][b], means["discontinuous"][b]) for b in means["ReLU"]}
    gain = {b: means["ReLU"][b] / worse[b] for b in worse}
    rows = [{"mse": kind, **found} for kind, found in means.items()]
    show(
        f"Of as many parameters, {options.optimizer}, mean of {options.seeds} seeds",
        [*rows, {"mse": "ReLU / the worse piecewise kind", **gain}],
    )
    draw_parameters(options, compared, errors)
    if not options.tiny:
        draw_fits(options, fits, errors)
    figures: Figures = {_name(case): found for case, found in errors.items()}
    return figures | {f"ReLU / piecewise, {b}": factor for b, factor in gain.items()}


def _name(case: Case) -> str:
    pieces = "" if case.segments is None else f", {case.segments} segments"
    return f"{case.kind}, {case.n} {'units' if case.kind == 'ReLU' else 'nodes'}{pieces}"


def _fitted(case: Case, seed: int, options: Options) -> Tensor:
    """What the trained model makes of the grid."""
    training.seeded(seed)
    x = 2 * torch.rand(1000, 1, device=options.device) - 1
    model = case.model().to(options.device)
    rate = LEARNING_RATE.get(options.optimizer) if options.learning_rate is None else options.learning_rate
    training.fit(
        model,
        training.mse,
        training.Batches(x, target(x), size=options.batch_size),
        make_optimizer(options.optimizer, model, lr=rate),
        2 if options.tiny else options.epochs,
        title=f"{_name(case)}, seed {seed}",
    )
    with training.evaluating(model):
        return model(grid().to(options.device)).cpu()


@pictures.styled
def draw_fits(options: Options, fits: dict[Case, Tensor], errors: dict[Case, list[float]]) -> None:
    """A panel for each kind: the target and the fits of several n."""
    figure, panels = pictures.panels(2, 2, (4.6, 3.1), sharex=True, sharey=True)
    for axes, (kind, every) in zip(panels.flat, SHOWN.items(), strict=True):
        axes.plot(grid(), target(grid()), color=pictures.FAINT, lw=5, label="target")
        colors = (pictures.MUTED, *pictures.COLORS)[4 - len(every) :]
        for n, color in zip(every, colors, strict=False):
            case = Case(kind, n, options.segments)
            label = f"n = {n}, mse {errors[case][0]:.2g}"
            axes.plot(grid(), fits[case], color=color, lw=1.4, label=label)
        pieces = f", {options.segments} segments" if "continuous" in kind else ""
        axes.set_title(f"{kind.capitalize()}{pieces}")
        axes.set_ylim(-0.65, 1.15)
        axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center")
    for axes in panels[1]:
        axes.set_xlabel("x")
    for axes in panels[:, 0]:
        axes.set_ylabel("y")
    pictures.save(figure, options, "function")


@pictures.styled
def draw_parameters(options: Options, cases: list[Case], errors: dict[Case, list[float]]) -> None:
    """Error against parameters, a line a kind; bands from the best to the worst seed."""
    figure, ((axes,),) = pictures.panels(size=(6.4, 4.0))
    for kind, color in zip(KINDS, pictures.COLORS, strict=True):
        own = [case for case in cases if case.kind == kind]
        x, y = [case.parameters() for case in own], [errors[case] for case in own]
        axes.loglog(x, [mean(e) for e in y], "o-", color=color, ms=4, label=kind)
        axes.fill_between(x, [min(e) for e in y], [max(e) for e in y], color=color, alpha=0.15, lw=0)
    axes.set(title="One function, as many parameters", xlabel="parameters", ylabel="mean squared error")
    ticks = [budget for budget in BUDGETS if any(case.parameters() == budget for case in cases)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=9)
    pictures.save(figure, options, "function_parameters")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
