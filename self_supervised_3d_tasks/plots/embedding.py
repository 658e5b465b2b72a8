"""Codes in a plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.plots import canvas

COLOURS = (
    *(canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE),
    *(canvas.SKY, canvas.PURPLE, canvas.GREY, "#000000"),
)
MARKERS = "osD^vPX*"


def embedding(path: Path, points: np.ndarray, wholes: np.ndarray) -> None:
    """Draw one point per part; the parts of a whole share colour and shape.

    Args:
        path: PNG file.
        points: ``(n, 2)``.
        wholes: Number of the whole of each part, ``(n,)`` integers from 0.
    """
    numbers = np.unique(wholes)
    with canvas.figure(path, 4.8, 4.9, layout="constrained") as figure:
        axes = figure.subplots()
        for whole in numbers:
            # Eight colours times eight shapes: more would not be told apart.
            colour, marker = COLOURS[whole % 8], MARKERS[whole // 8 % 8]
            own = points[wholes == whole]
            axes.scatter(*own.T, s=18, color=colour, marker=marker, alpha=0.75, linewidths=0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.set_xlabel("t-SNE 1")
        axes.set_ylabel("t-SNE 2")
        axes.set_title(f"{len(points)} parts of {len(numbers)} wholes (same whole: same colour and shape)", fontsize=9)
