"""A result as a bar plot: a group for each case, a panel for each quantity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from .report import figure, label, machine, peak_mib, peak_text, shape

COLOURS = {
    "ours": "#0b6fb8",
    "torch reference": "#8fbbdc",
    "expand + GEMM": "#e08a1e",
    "expand + convolution": "#e08a1e",
    "Cox-de Boor + GEMM": "#c2571a",
    "high-order-layers-torch": "#7d5ba6",
    "efficient-kan": "#7d5ba6",
    "nn.Linear": "#b5b5b5",
    "nn.Conv2d": "#b5b5b5",
}
OUTSIDE_BAR: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 7}
GAP = 0.9  # between groups, in bars
Value = Callable[[dict[str, Any]], float | None]
Groups = list[tuple[dict[str, Any], list[dict[str, Any]]]]  # a case and who was measured


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the plot as a PNG."""
    groups = [
        (measured["case"], [entry for entry in measured["contenders"] if "not_measured" not in entry])
        for measured in result["cases"]
    ]
    panels: list[tuple[str, str, Value]] = [("forward", "ms", _forward), ("forward + backward", "ms", _both)]
    if result["settings"]["memory"]:
        panels.append(("peak memory of forward + backward", "MiB", peak_mib))
    bars = sum(len(entries) + GAP for _, entries in groups)
    plot = Figure(figsize=(4.4 * len(panels) + 1.6, 0.2 * bars + 1.7), dpi=150, layout="constrained")
    FigureCanvasAgg(plot)
    axes = plot.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, unit, value) in zip(axes, panels, strict=True):
        _panel(ax, groups, value)
        ax.set_title(f"{title}, {unit}", loc="left", fontsize=10)
    _names(axes[0], groups)
    names = {entry["name"]: label(entry) for _, entries in groups for entry in entries}
    handles = [Patch(color=colour, label=names[name]) for name, colour in COLOURS.items() if name in names]
    plot.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9)
    plot.supxlabel(_footnote(result["stamp"]), x=0.01, ha="left", fontsize=7.5, color="#555555")
    plot.savefig(path)


def draw_sweep(result: dict[str, Any], path: Path) -> None:
    """Write the time of every contender against the number of segments as a PNG."""
    plot = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(plot)
    axes = plot.subplots(1, 2, sharey=True)
    names: dict[str, str] = {}
    for ax, (title, value) in zip(axes, (("forward", _forward), ("forward + backward", _both)), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for measured in result["cases"]:
            for entry in measured["contenders"]:
                if "not_measured" not in entry:
                    names[entry["name"]] = label(entry)
                    time = value(entry)
                    assert time is not None
                    lines.setdefault(entry["name"], []).append((measured["case"]["segments"], time))
        for name, points in lines.items():
            style = {"color": COLOURS.get(name, "#444444"), "linewidth": 2.4 if name == "ours" else 1.4}
            ax.plot(*zip(*points, strict=True), marker="o", markersize=4, label=names[name], **style)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("segments")
        ax.set_title(f"{title}, ms", loc="left", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e4e4e4", linewidth=0.6)
    plot.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False, fontsize=8
    )
    sizes, terms = shape(result["cases"][0]["case"])
    about = f"continuous, {sizes}, {terms.partition(',')[0]}. {_footnote(result['stamp'])}"
    plot.supxlabel(about, x=0.01, ha="left", fontsize=7.5, color="#555555")
    plot.savefig(path)


def _panel(ax: Axes, groups: Groups, value: Value) -> None:
    """Bars of one quantity on a logarithmic axis, each with its figure and its ratio to ours."""
    y = 0.0
    shown = []
    for _, entries in groups:
        ours = value(entries[0])
        for entry in entries:
            found = value(entry)
            if found is None:
                ax.annotate(
                    peak_text(entry), (0, y), (3, 0), **OUTSIDE_BAR, xycoords=("axes fraction", "data")
                )
            else:
                shown.append(found)
                ax.barh(y, found, 0.86, color=COLOURS.get(entry["name"], "#444444"))
                is_ours = entry["name"] == "ours"
                text = figure(found) + (f"  {figure(found / ours)}x" if ours and not is_ours else "")
                note = ax.annotate(text, (found, y), (3, 0), **OUTSIDE_BAR)
                note.set_fontweight("bold" if is_ours else "normal")
            y += 1
        y += GAP
    ax.set_xscale("log")
    low, high = min(shown, default=1.0), max(shown, default=1.0)
    ax.set_xlim(low / 2, high * max(3, (high / low) ** 0.3))  # room for the figures
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_ylim(y - GAP, -1)
    ax.tick_params(labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)


def _names(ax: Axes, groups: Groups) -> None:
    """Cases as labels of the groups."""
    y, places, names = 0.0, [], []
    for case, entries in groups:
        places.append(y + (len(entries) - 1) / 2)
        sizes, terms = shape(case)
        names.append(f"{case['name']}\n{sizes}\n{terms}")
        y += len(entries) + GAP
    ax.set_yticks(places, names)


def _forward(entry: dict[str, Any]) -> float | None:
    return float(entry["forward"]["median_ms"])


def _both(entry: dict[str, Any]) -> float | None:
    return float(entry["forward_backward"]["median_ms"])


def _footnote(stamp: dict[str, Any]) -> str:
    return (
        f"{stamp['date']}, {machine(stamp)}. Medians of alternating samples; x: ratio to ours; log axes.\n"
        "nn.Linear and nn.Conv2d are other functions of the same sizes: the floor of bare products."
    )
