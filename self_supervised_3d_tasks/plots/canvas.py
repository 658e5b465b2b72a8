"""The common look of all figures, and how they reach the disk.

Figures use matplotlib's object interface on the Agg canvas: no window system, no global list of figures. The
colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.paths import escaped

matplotlib, figures, texts = map(lazy.load, ("matplotlib", "matplotlib.figure", "matplotlib.text"))
# Strings, as the library is imported when the first figure is drawn.
Axes: TypeAlias = "matplotlib.axes.Axes"
Figure: TypeAlias = "matplotlib.figure.Figure"

DPI = 200
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#666666"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE)
MODE_COLOURS = {"frozen": ORANGE, "initialized": BLUE, "random": GREY}
MODE_MARKERS = {"frozen": "s", "initialized": "o", "random": "D"}
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
    "text.parse_math": False,  # a "$" in the name of a scan or class is no formula
}


@contextmanager
def figure(path: Path, width: float, height: float, *, layout: str | None = None) -> Iterator[Figure]:
    """Give an empty figure; when the block ends without an error, the PNG file is there, complete.

    Args:
        path: PNG file; its folder is made if need be and an older file is replaced.
        width: Width in inches.
        height: Height in inches.
        layout: Layout engine of matplotlib; None for axes that are placed by hand.
    """
    with matplotlib.rc_context(STYLE):
        canvas = figures.Figure((width, height), dpi=DPI, layout=layout)
        yield canvas
        for text in canvas.findobj(texts.Text):
            text.set_text(escaped(text.get_text()))
        picture = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # an empty box says as much
            canvas.savefig(picture, format="png")
        atomic_write_bytes(path, picture.getbuffer())


@contextmanager
def chart(path: Path, width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a `figure` that is filled by one pair of axes, and the axes."""
    with figure(path, width, height, layout="constrained") as canvas:
        yield canvas, canvas.subplots()


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes for a picture, without ticks and frame; lengths in inches from the upper left corner."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    return axes


def write(figure: Figure, left: float, top: float, text: str, *, fontsize: float, rotation: float = 0) -> None:
    """Write text centred at a place; lengths in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, ha="center", va="center", fontsize=fontsize, rotation=rotation)


def show(axes: Axes, picture: np.ndarray, limits: tuple[float, float]) -> None:
    """Draw ``(rows, columns)`` in grey or ``(rows, columns, 3)`` in colour, black and white at the ``limits``."""
    low, high = limits
    if picture.ndim == 3:  # imshow scales grey values only
        picture = np.clip((picture - low) / max(high - low, 1e-8), 0, 1)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def shorten(text: str, length: int) -> str:
    """Return a text of at most ``length`` letters; an ellipsis stands for what is cut off."""
    return text if len(text) <= length else text[: length - 1] + "…"
