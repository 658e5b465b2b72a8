"""Codes in a plane."""

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.plots import canvas

COLOURS = (*canvas.COLOURS, canvas.GREY, "#000000")
MARKERS = "osD^vPX*"


def embedding(path: Path, points: np.ndarray, wholes: np.ndarray) -> None:
    """Draw one point per part; the parts of a whole share colour and shape.

    Args:
        path: PNG file.
        points: Places of the codes in the plane, ``(n, 2)``.
        wholes: Number of the whole of each part, ``(n,)`` integers from 0.
    """
    numbers = np.unique(wholes)
    with canvas.chart(path, 4.8, 4.9) as (_, axes):
        for whole in numbers:
            # Eight colours times eight shapes: more would not be told apart.
            colour, marker = COLOURS[whole % 8], MARKERS[whole // 8 % 8]
            own = points[wholes == whole]
            axes.scatter(*own.T, s=18, color=colour, marker=marker, alpha=0.75, linewidths=0)
        axes.spines[:].set_visible(True)
        axes.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        axes.set_title(f"{len(points)} parts of {len(numbers)} wholes (same whole: same colour and shape)", fontsize=9)
