"""The graph of a network of learned functions: nodes in rows, a small picture on every edge."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from .domain import watch
from .edge_functions import EdgeFunctions, edge_functions
from .plot_style import BLUE, FAINT, INK, MUTED, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT, _LETTER = 1.9, 0.085  # inches: from nodes to nodes, a letter
_BOX, _GAP, _WIDEST = 0.46, 1.25, 24.0  # the side of a small picture; from one to the next, in boxes; a row
_ROUNDING = 1e-5  # of the coefficients: what varies by less is constant


class _Level(NamedTuple):
    """A layer of the graph; strength [outputs, inputs] over the data; then: the modules called after it."""

    title: str
    functions: EdgeFunctions
    strength: Tensor
    then: list[str]


@styled
def network(model: nn.Module, x: Tensor | None = None, most: int = 100) -> "Figure":
    """A network as a graph, read from below: a node for each feature, on every edge its function.

    The darker an edge, the more its function varies over the data x [N, in], as part of the most in its
    layer; without x, over 256 points spread evenly over the first layer's domain. What is called between
    layers (normalisations and the like) is named beside the nodes. The model runs once, in evaluation mode.
    TypeError for a network that is no stack of fully connected layers, ValueError where a layer has more than
    `most` edges: `edges` draws some of them. Source: the diagrams of Liu et al., KAN (2024).
    """
    from matplotlib.figure import Figure

    levels = _levels(model, _spread(model) if x is None else x, most)
    boxes = max(level.strength.numel() for level in levels)
    box = min(_BOX, _WIDEST / (_GAP * boxes))
    width = max(4.0, _GAP * box * boxes)
    height = _HEIGHT * len(levels)
    left = 0.3 + _LETTER * max(len(part) for level in levels for part in level.title.split())
    right = 0.3 + _LETTER * max((len(name) for level in levels for name in level.then), default=0)
    figure = Figure(figsize=(left + width + right, height + 1.1))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, width + right), ylim=(-0.65, height + 0.45), aspect="equal")
    axes.set_axis_off()
    for number, level in enumerate(levels):
        _draw_level(axes, level, number * _HEIGHT, width, box)
    _draw_nodes(axes, [f"$x_{{{k}}}$" for k in range(levels[0].functions.inputs)], 0.0, width, "")
    for number, level in enumerate(levels, 1):
        symbol = r"$\times$" if level.functions.multiplied else "$+$"
        names = [f"$y_{{{k}}}$" if level is levels[-1] else "" for k in range(level.functions.outputs)]
        _draw_nodes(axes, names, number * _HEIGHT, width, symbol)
        axes.text(width + 0.15, number * _HEIGHT, "\n".join(level.then), va="center", color=MUTED, fontsize=8)
    note = "Each box: the function of an edge over its domain. The darker, the more it varies over the data."
    axes.text(width / 2, -0.55, note, ha="center", color=MUTED, fontsize=8)
    return figure


def _levels(model: nn.Module, x: Tensor, most: int) -> list[_Level]:
    """The layers with functions in the order of their calls."""
    levels: list[_Level] = []
    met: list[tuple[str, Tensor]] = []

    def visit(name: str, module: nn.Module, x: Tensor) -> None:
        if levels and name.startswith(f"{met[-1][0]}." if met[-1][0] else ""):
            return  # a part of the layer before
        try:
            functions = edge_functions(module)
        except TypeError:
            if next(module.children(), None) is None and levels:
                levels[-1].then.append(type(module).__name__)
            return
        title = f"{name} {type(module).__name__}".strip()
        if x.dim() != 2:
            raise TypeError(f"model: got {title!r} with an input of {x.dim()} axes, needs rows")
        if any(x is other for _, other in met):
            raise TypeError(f"model: got {title!r} beside another layer, needs layers in a row")
        width = levels[-1].functions.outputs if levels else x.shape[1]
        if width != functions.inputs:
            raise TypeError(
                f"model: got {title!r} of {functions.inputs} inputs after {width} features, "
                "needs layers in a row"
            )
        if functions.weight[..., 0].numel() > most:
            raise ValueError(
                f"model: got {functions.inputs} x {functions.outputs} edges in {title!r}, "
                f"needs at most {most} in a layer; plot.edges draws some of them"
            )
        met.append((name, x))
        levels.append(_Level(title, functions, functions.strength(x), []))

    watch(model, x, visit)
    if not levels:
        raise TypeError(f"model: got {type(model).__name__}, needs fully connected layers of ours")
    return levels


def _spread(model: nn.Module) -> Tensor:
    """256 rows, evenly at random, over the domain of the first layer."""
    for module in model.modules():
        try:
            functions = edge_functions(module)
        except TypeError:
            continue
        low, high = functions.ends[:, 0], functions.ends[:, -1]
        generator = torch.Generator().manual_seed(0)
        u = torch.rand(256, functions.inputs, generator=generator, dtype=torch.float64, device="cpu")
        return (low + (high - low) * u).to(next(module.parameters()))
    raise TypeError(f"model: got {type(model).__name__}, needs fully connected layers of ours")


def _places(number: int, width: float) -> list[float]:
    return [(k + 0.5) * width / number for k in range(number)]


def _draw_level(axes: "Axes", level: _Level, bottom: float, width: float, side: float) -> None:
    """The edges of a layer: lines from the inputs' nodes to boxes in a row, and on to the outputs' nodes."""
    from matplotlib.patches import Rectangle

    functions, middle = level.functions, bottom + _HEIGHT / 2
    starts, ends = _places(functions.inputs, width), _places(functions.outputs, width)
    boxes = _places(functions.inputs * functions.outputs, width)
    half = side / 2
    least = _ROUNDING * functions.weight.abs().max()
    shades = level.strength / torch.maximum(level.strength.max(), least).clamp_min(1e-300)
    for feature, start in enumerate(starts):
        points = functions.curve(feature, 60)
        curves = functions.values(points[:, None], [feature], range(functions.outputs))[:, :, 0]
        across = side * _fitted(points)
        for output, end in enumerate(ends):
            alpha = 0.1 + 0.9 * shades[output, feature].item()
            center = boxes[feature * functions.outputs + output]
            line: Any = {"color": INK, "alpha": alpha, "lw": 1, "zorder": 1}
            axes.plot([start, center], [bottom, middle - half], **line)
            axes.plot([center, end], [middle + half, bottom + _HEIGHT], **line)
            box = Rectangle((center - half, middle - half), side, side)
            box.set(facecolor="white", edgecolor=FAINT, linewidth=0.8, zorder=2)
            axes.add_patch(box)
            x, y = center + across, middle + side * _fitted(curves[:, output])
            axes.plot(x.numpy(), y.numpy(), color=BLUE, alpha=alpha, lw=1.5, zorder=3)
    axes.text(-0.15, middle, level.title.replace(" ", "\n"), ha="right", va="center", color=INK, fontsize=9)


def _fitted(values: Tensor) -> Tensor:
    """Values, NaN among them, moved and scaled into (-1/2, 1/2); what is constant is 0."""
    there = values[~values.isnan()]
    low, high = there.min(), there.max()
    size = torch.maximum(high - low, _ROUNDING * there.abs().max()).clamp_min(1e-300)
    return (values - (low + high) / 2) / size * 0.82


def _draw_nodes(axes: "Axes", names: list[str], height: float, width: float, symbol: str) -> None:
    """A circle for each feature, and its name: beneath the inputs, above the outputs."""
    for place, name in zip(_places(len(names), width), names, strict=True):
        axes.plot(place, height, "o", color="white", markeredgecolor=INK, markersize=11, zorder=4)
        axes.text(place, height - 0.01, symbol, ha="center", va="center", fontsize=10, zorder=5)
        above = 0.26 if symbol else -0.26
        axes.text(place, height + above, name, ha="center", va="center", fontsize=11)
