"""The demo's pictures: learned edges, accuracy by epoch, time and memory."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from torch import Tensor, nn

from .edge_functions import EdgeFunctions, edge_functions
from .kan import KANLinear
from .linear import HighOrderLinear
from .plot_style import BLUE, FAINT, MUTED, ORANGE, RED, STYLE, curve, occurrence

COLORS = {"KAN": BLUE, "piecewise polynomial": ORANGE, "ReLU": MUTED}
WORDS = {"KAN": "cubic splines, 5 segments", "piecewise polynomial": "parabolas, 2 segments"}
OURS, PEER = COLORS["piecewise polynomial"], "#a8b4c4"
Layer = KANLinear | HighOrderLinear


def draw(folder: Path, results: dict[str, Any], models: dict[str, nn.Module], x: Tensor) -> list[Path]:
    """Write edges.png, accuracy.png, speed.png from the figures, trained models and images x [N, 64]."""
    layers = {name: _first(model) for name, model in models.items()}
    with matplotlib.rc_context(STYLE):
        pictures = {
            folder / "edges.png": edges(layers, x),
            folder / "accuracy.png": accuracy(results),
            folder / "speed.png": speed(results),
        }
        for path, picture in pictures.items():
            picture.savefig(path)
    return list(pictures)


def edges(layers: dict[str, Layer], x: Tensor, columns: int = 6) -> Figure:
    """A column for each of the most influential pixels; for each layer all edges of that pixel."""
    functions = {name: edge_functions(layer) for name, layer in layers.items()}
    strength = {name: each.strength(x) for name, each in functions.items()}
    influence = torch.stack([s.amax(0) / s.max() for s in strength.values()]).sum(0)
    pixels = influence.topk(columns).indices.sort().values.tolist()
    figure = Figure(figsize=(2 * columns, 2.2 + 2.1 * len(layers)))
    grid = figure.subplots(1 + len(layers), columns, height_ratios=[0.62] + [1] * len(layers), sharey="row")
    for axes, pixel in zip(grid[0], pixels, strict=True):
        _pixel(axes, x, pixel)
    for row, (name, each) in zip(grid[1:], functions.items(), strict=True):
        for axes, pixel in zip(row, pixels, strict=True):
            _edges_of(axes, each, x, pixel, int(strength[name][:, pixel].argmax()), COLORS[name])
        limit = max(abs(end) for end in row[0].get_ylim())
        row[0].set_ylim(-limit, limit)
        row[0].set_ylabel("contribution to a unit")
        row[0].set_title(f"{name}: {WORDS[name]}", color=COLORS[name])
    for axes in grid[-1]:
        axes.set_xlabel("pixel value")
    figure.suptitle("Functions learned on the edges that leave six pixels", fontsize=14, weight="bold")
    figure.supxlabel(
        "Bold: the strongest edge of the pixel, with its knots. Thin: its edges to the other units. "
        "Grey: how often the training images have the value.",
        fontsize=9,
        color=MUTED,
    )
    return figure


def accuracy(results: dict[str, Any]) -> Figure:
    """Accuracy by epoch: the mean of the seeds in a band from the lowest to the highest."""
    settings, figure = results["settings"], Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    last = {}
    for name, found in results["networks"].items():
        curves = 100 * np.array(found["accuracy_by_seed_and_epoch"])
        epochs, mean = range(1, curves.shape[1] + 1), curves.mean(0)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=COLORS[name], alpha=0.14, lw=0)
        axes.plot(epochs, mean, color=COLORS[name], lw=2, marker="o" if len(epochs) == 1 else "")
        last[name] = float(mean[-1])
    bottom = max(0.0, min(90.0, min(last.values()) - 5))
    axes.set(ylim=(bottom, 100), xlim=(1, max(2, settings["epochs"])))
    for name, height in _apart(last, 0.07 * (100 - bottom)).items():
        place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "weight": "bold"}
        axes.annotate(f"{last[name]:.1f} %  {name}", (1.02, height), color=COLORS[name], **place)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=f"{settings['judged_by']} accuracy (%)")
    seeds = f"{settings['seeds']} seed{'s' * (settings['seeds'] > 1)}"
    axes.set_title(f"Handwritten digits: mean and range of {seeds}")
    return figure


def speed(results: dict[str, Any]) -> Figure:
    """Time of an epoch of the networks; time and memory of one layer, ours and the peer's."""
    layer, machine, settings = results["layer"], results["machine"], results["settings"]
    figure = Figure(figsize=(12, 3.1))
    figure.set_layout_engine("constrained", wspace=0.08)
    left, middle, right = figure.subplots(1, 3)
    epochs = {name: 1e3 * found["epoch_seconds"] for name, found in results["networks"].items()}
    _bars(left, epochs, COLORS, "ms")
    left.set(title="One epoch of training", xlabel="milliseconds")
    rivals = {"high_order_fused": layer["ours"], "high-order-\nlayers-torch": layer["peer"]}
    measured = {name: found for name, found in rivals.items() if isinstance(found, dict)}
    colors = dict(zip(rivals, (OURS, PEER), strict=True))
    seconds = {name: 1e3 * found["seconds"] for name, found in measured.items()}
    _bars(middle, seconds, colors, "ms", log=True)
    middle.set(title="One layer: forward + backward", xlabel="milliseconds, log scale")
    memory = {name: found["peak_bytes"] / 1e6 for name, found in measured.items()}
    _bars(right, memory, colors, "MB", log=True)
    right.set(title="One layer: peak memory", xlabel="megabytes, log scale", yticks=[])
    threads = f"{machine['threads']} threads (training: {settings['training_threads']})"
    figure.supxlabel(
        f"Layer: piecewise polynomial, {layer['in_features']} to {layer['out_features']}, "
        f"{layer['batch']} images. {machine['cpu']}, {threads}, "
        f"torch {machine['torch']}, backend {machine['backend']}.",
        fontsize=9,
        color=MUTED,
    )
    return figure


def _first(model: nn.Module) -> Layer:
    return next(layer for layer in model.modules() if isinstance(layer, Layer))


def _pixel(axes: Axes, x: Tensor, pixel: int) -> None:
    """Where the pixel is, in the average image."""
    down, right = divmod(pixel, 8)
    axes.imshow(x.mean(0).view(8, 8).numpy(), cmap="Greys", vmin=-1, vmax=1.4)
    axes.add_patch(Rectangle((right - 0.5, down - 0.5), 1, 1, fill=False, edgecolor=RED, lw=2))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    axes.set_title(f"row {down + 1}, column {right + 1}", fontsize=9, weight="normal", loc="center")


def _edges_of(axes: Axes, edge: EdgeFunctions, x: Tensor, pixel: int, unit: int, color: str) -> None:
    """Draw a pixel's edges less their means over x, the one to a unit boldly, over the pixel's values."""
    at, units = edge.curve(pixel), range(edge.outputs)
    mean = edge.values(x[:, [pixel]], [pixel], units).mean(0)
    functions = (edge.values(at[:, None], [pixel], units) - mean)[:, :, 0]
    axes.plot(at.numpy(), functions.numpy(), color=color, lw=0.6, alpha=0.22)
    axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
    curve(axes, at, functions[:, unit], color)
    axes.tick_params(length=0)
    occurrence(axes, x[:, pixel], -1.0, 1.0)


def _bars(axes: Axes, values: dict[str, float], colors: dict[str, str], unit: str, log: bool = False) -> None:
    bars = axes.barh(list(values), list(values.values()), color=[colors[name] for name in values], height=0.6)
    axes.bar_label(bars, [f"{value:,.3g} {unit}" for value in values.values()], padding=4, weight="bold")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    if not log:
        axes.set_xlim(0, 1.25 * max(values.values()))
        return
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(values.values()) / 3)), 6 * max(values.values()))
    axes.xaxis.set_major_locator(LogLocator(10))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _apart(values: dict[str, float], gap: float) -> dict[str, float]:
    """Heights for labels beside the values, at least a gap apart."""
    heights: dict[str, float] = {}
    for name in sorted(values, key=lambda name: values[name]):
        heights[name] = max([values[name], *(height + gap for height in heights.values())])
    shift = sum(heights[name] - values[name] for name in values) / len(values)
    return {name: height - shift for name, height in heights.items()}
