"""The common look of all figures, and how they reach the disk.

Figures use matplotlib's object interface on the Agg canvas: no window system, no global list of figures. The
colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from self_supervised_3d_tasks.files.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#666666"
STYLE = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def figure(path: Path, width: float, height: float, *, layout: str | None = None) -> Iterator[Figure]:
    """Give an empty figure; when the block ends without an error, the PNG file is there, complete.

    Args:
        path: PNG file; its folder is made if need be and an older file is replaced.
        width: inches.
        height: inches.
        layout: matplotlib's layout engine, None for axes placed by hand.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        canvas = Figure((width, height), dpi=DPI, layout=layout)
        yield canvas
        with atomic_write(path) as temporary:
            canvas.savefig(temporary, format="png")


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes for a picture, without ticks and frame; lengths in inches from the upper left corner."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def write(figure: Figure, left: float, top: float, text: str, *, fontsize: float, rotation: float = 0) -> None:
    """Write text centred at a place; lengths in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, ha="center", va="center", fontsize=fontsize, rotation=rotation)
