"""Pictures of layers and networks, as matplotlib figures: edge functions, graphs, where the data lies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .basis import boundaries
from .domain import beyond_domain, variables, watch
from .edge_functions import EdgeFunctions, edge_functions
from .plot_network import network as network
from .plot_style import BLUE, FAINT, INK, ORANGE, RED, curve, occurrence, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .basis import Basis

_COLUMNS, _ROWS = 6, 4  # of edges, where none are chosen


@styled
def edges(
    layer: nn.Module,
    inputs: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
    x: Tensor | None = None,
    tap: Sequence[int] | None = None,
) -> "Figure":
    """The functions on a layer's edges: a column for each of some inputs, a row for each of some outputs.

    Dotted lines and, if there are few, circles are at the ends of segments. x: rows of data [N, in], drawn as
    how often an input has a value.
    Where inputs or outputs are left out, up to 6 and 4 of them: with x those of the edges that contribute
    most (`EdgeFunctions.strength`), otherwise the first. tap and errors as of `edge_functions`; IndexError
    for an edge that is not there.
    """
    from matplotlib.figure import Figure

    functions = edge_functions(layer, tap)
    data = None if x is None else _rows(x, functions.inputs)
    columns, rows = _chosen(functions, inputs, outputs, data)
    size = max(4.0, 1 + 1.75 * len(columns)), max(3.0, 1.1 + 1.35 * len(rows))
    figure = Figure(figsize=size)
    grid = figure.subplots(len(rows), len(columns), sharex="col", sharey=True, squeeze=False)
    for column, feature in enumerate(columns):
        points = functions.curve(feature)
        curves = functions.values(points[:, None], [feature], rows)[:, :, 0]
        ends = functions.ends_of(feature)
        for row, output in enumerate(rows):
            axes = grid[row, column]
            axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
            for knot in ends[1:-1].tolist():
                axes.axvline(knot, color=FAINT, lw=0.8, ls=":", zorder=1)
            curve(axes, points, curves[:, row], BLUE, 1.6, circles=len(ends) <= 13)
            if data is not None:
                occurrence(axes, data[:, feature], ends[0].item(), ends[-1].item())
            if column == 0:
                axes.set_ylabel(f"output {output}", color=INK)
            if row == 0:
                axes.set_title(f"input {feature}", fontsize=10, loc="center")
    figure.supxlabel("value of the input", fontsize=10)
    figure.supylabel("factor less 1" if functions.multiplied else "contribution to the output", fontsize=10)
    return figure


@styled
def density(layer_or_model: nn.Module, x: Any) -> "Figure":
    """Where the data lies: for each layer that is called, the shares of an input's values in each segment.

    x: what the model is given, as in `domain_report`, which says what counts as outside. ValueError where no
    layer of ours is called.
    """
    from matplotlib.figure import Figure

    found = _shares(layer_or_model, x)
    if not found:
        raise ValueError("layer_or_model: got a module without layers of ours, needs at least one")
    figure = Figure(figsize=(7.5, 0.4 + 3.3 * len(found)))
    parts = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for part, (title, (basis, counts)) in zip(parts, found.items(), strict=True):
        _density(part, title, basis, counts)
    return figure


def _density(figure: Any, title: str, basis: "Basis", counts: Tensor) -> None:
    """A bar for each segment over a row of shades for each input; counts [inputs, 1 + segments + 1]."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).numpy()
    whole = (counts.sum(0) / counts.sum().clamp_min(1)).numpy()
    outside = float(whole[0] + whole[-1])
    last = len(whole) - 1
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.4], sharex=True)
    colors = [RED if k in (0, last) else ORANGE for k in range(last + 1)]
    above.bar(range(last + 1), whole, color=colors, width=0.86)
    above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    above.set_ylabel("all inputs")
    above.set_title(f"{title}: {outside:.1%} outside the domain")
    shown = below.imshow(shares, cmap="Oranges", vmin=0, aspect="auto", interpolation="nearest")
    below.set_ylabel("input")
    below.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    below.spines[:].set_visible(False)
    for axes in (above, below):
        for edge in (0.5, last - 0.5):
            axes.axvline(edge, color=INK, lw=1)
        axes.tick_params(length=0)
    _name_segments(below, basis, last)
    figure.colorbar(shown, ax=below, format=PercentFormatter(1, decimals=0), label="share of the input")


def _name_segments(axes: "Axes", basis: "Basis", last: int) -> None:
    """Beneath a column for each segment: where the segments end, or their numbers if inputs differ."""
    ends, every = boundaries(basis), -(-(last - 1) // 8)
    if bool((ends == ends[:1]).all()):
        marks = list(range(0, last, every))
        axes.set_xticks([0.5 + k for k in marks], [f"{ends[0, k].item():.3g}" for k in marks])
        axes.set_xlabel("value of the input, at the ends of segments (red: outside the domain)")
    else:
        marks = list(range(1, last, every))
        axes.set_xticks([0, *marks, last], ["below", *map(str, marks), "above"])
        axes.set_xlabel("segment of the input's own grid")


def _shares(model: nn.Module, x: Any) -> dict[str, tuple["Basis", Tensor]]:
    """By the layers' titles, how many values each input has below, in each segment, above."""
    found: dict[str, tuple[Basis, Tensor]] = {}

    def visit(name: str, layer: nn.Module, x: Tensor) -> None:
        several = variables(layer, x)
        for number, (basis, values) in enumerate(several):
            title = f"{name} {type(layer).__name__}".strip() + f", variable {number}" * (len(several) > 1)
            low, high, lost = beyond_domain(basis, values)
            columns = basis.segments + 2
            place = basis.locate(values)[0].clamp(0, basis.segments - 1) + 1
            place = place.masked_fill(low, 0).masked_fill(high, columns - 1)
            place += columns * torch.arange(values.shape[1], device=values.device)
            counts = torch.bincount(place[~lost], minlength=columns * values.shape[1])
            before = found[title][1] if title in found else 0
            found[title] = basis, counts.view(-1, columns).cpu().double() + before

    watch(model, x, visit)
    return found


def _chosen(
    functions: EdgeFunctions, inputs: Sequence[int] | None, outputs: Sequence[int] | None, x: Tensor | None
) -> tuple[list[int], list[int]]:
    """Which inputs and outputs are drawn."""
    sizes = functions.inputs, functions.outputs
    strength = None if x is None else functions.strength(x)
    chosen = []
    for axis, (name, these) in enumerate((("inputs", inputs), ("outputs", outputs))):
        size, most = sizes[axis], (_COLUMNS, _ROWS)[axis]
        if these is None:
            order = range(size) if strength is None else strength.amax(axis).argsort(descending=True).tolist()
            these = sorted(order[:most])
        wrong = [k for k in these if not 0 <= k < size]
        if wrong or not len(these):
            raise IndexError(f"{name}: got {list(these)}, needs some of 0 to {size - 1}")
        chosen.append(list(these))
    return chosen[0], chosen[1]


def _rows(x: Tensor, features: int) -> Tensor:
    """x [..., features] as rows; ValueError for another last axis."""
    if x.shape[-1:] != (features,):
        raise ValueError(f"x: got shape {tuple(x.shape)}, needs [..., {features}]")
    return x.detach().cpu().double().reshape(-1, features)
