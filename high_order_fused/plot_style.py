"""What the pictures share: colours, style, a curve with its knots, how often values occur."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")
R = TypeVar("R")

BLUE, ORANGE, RED = "#2563eb", "#ea580c", "#dc2626"
INK, MUTED, FAINT, DATA = "#1e293b", "#64748b", "#cbd5e1", "#dbe3ec"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#94a3b8",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "figure.constrained_layout.use": True,
    "figure.dpi": 160,
    "lines.solid_capstyle": "round",
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """draw in this style; ImportError says what to install where matplotlib is missing."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import matplotlib
        except ImportError as error:
            raise ImportError("pictures need matplotlib: pip install 'high_order_fused[demo]'") from error
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def curve(axes: "Axes", x: Tensor, y: Tensor, color: str, width: float = 2.2, circles: bool = True) -> None:
    """A bold line on a white one, in parts where x is NaN, perhaps with circles at the ends of each part."""
    axes.plot(x.numpy(), y.numpy(), color="white", lw=2 * width)
    axes.plot(x.numpy(), y.numpy(), color=color, lw=width)
    if not circles:
        return
    gap = x.isnan()
    end = ~gap & (torch.cat([gap.new_ones(1), gap[:-1]]) | torch.cat([gap[1:], gap.new_ones(1)]))
    ring: Any = {"color": "white", "markeredgecolor": color, "markeredgewidth": 0.7 * width}
    axes.plot(x[end].numpy(), y[end].numpy(), "o", markersize=2.05 * width, **ring)


def occurrence(axes: "Axes", values: Tensor, low: float, high: float, bins: int = 17) -> None:
    """Behind the curves, a histogram of values, of which the first and last bar stand on low and high."""
    half = (high - low) / (bins - 1) / 2
    behind = axes.twinx()
    behind.hist(values.tolist(), bins=bins, range=(low - half, high + half), color=DATA, rwidth=0.86)
    behind.set_ylim(0, 3 * behind.get_ylim()[1])
    behind.set_axis_off()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
