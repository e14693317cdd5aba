"""Pictures of the experiments: one style, axes that are named, and nothing blank."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from high_order_fused.plot_style import BLUE, DATA, FAINT, INK, MUTED, ORANGE, RED, styled

from .command import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREEN, VIOLET = "#059669", "#7c3aed"
COLORS = BLUE, ORANGE, GREEN, VIOLET, RED, MUTED  # of lines beside each other, in this order

__all__ = ["BLUE", "COLORS", "DATA", "FAINT", "GREEN", "INK", "MUTED", "ORANGE", "RED", "VIOLET"]
__all__ += ["panels", "save", "styled"]


def panels(rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.0, 3.0), **shared: Any) -> Any:
    """(figure, axes[row][column]), each panel of size inches; to be called and saved within `@styled`.

    shared goes to `Figure.subplots`: sharex, sharey, width_ratios and so on.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size[0], rows * size[1]))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def save(figure: "Figure", options: Options, name: str) -> Path:
    """NAME.png in the folder of results; its path is printed and returned.

    ValueError where a panel is blank, shows one colour only, or has axes without names: one in their row or
    column of panels will do, and axes that are off need none. To be called within `@styled`, as the style
    counts where it is drawn.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    for number, axes in enumerate(figure.axes):
        if not axes.get_visible():
            continue
        what = f"{name}.png: panel {number}, {axes.get_title('left') or axes.get_title() or 'untitled'!r},"
        inner = axes.get_window_extent()
        top, bottom = round(pixels.shape[0] - inner.y1) + 2, round(pixels.shape[0] - inner.y0) - 2
        part = pixels[top:bottom, round(inner.x0) + 2 : round(inner.x1) - 2]
        if part.size == 0 or (part == part[0, 0]).all():
            raise ValueError(f"{what} is blank")
        if axes.axison and not _named(figure, axes):
            raise ValueError(f"{what} needs names of both axes")
    path = Path(options.results) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    colors.save(path, optimize=True)
    print(f"Wrote {path}")
    return path


def _named(figure: "Figure", axes: Any) -> bool:
    """Whether both axes have a name: their own, the figure's, or one in their column or row of panels."""
    if hasattr(axes, "_colorbar"):
        return bool(axes.get_xlabel() or axes.get_ylabel())
    place = axes.get_subplotspec()
    mates: list[Any] = [(a, a.get_subplotspec()) for a in figure.axes if place and a.get_subplotspec()]
    column = [axes, *(a for a, other in mates if other.colspan == place.colspan)]
    row = [axes, *(a for a, other in mates if other.rowspan == place.rowspan)]
    x = figure.get_supxlabel() or any(a.get_xlabel() for a in column)
    y = figure.get_supylabel() or any(a.get_ylabel() for a in row)
    return bool(x and y)
