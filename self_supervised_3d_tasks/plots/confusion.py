"""Confusion matrices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.plots import canvas

MAX_NAME = 16  # letters of a class name before it is cut


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Return each count as a share of its row, ``(num_classes, num_classes)``; a class without cases has zeros."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def confusion_matrix(path: Path, matrix: np.ndarray, title: str, names: Mapping[int, str] | None = None) -> None:
    """Draw a confusion matrix: true classes down, predicted ones across, shaded by their share of the row.

    Args:
        path: PNG file.
        matrix: Counts ``(num_classes, num_classes)``, row the true class, column the predicted one.
        title: Heading.
        names: Class to name; default: its number.
    """
    count = len(matrix)
    shares = row_shares(matrix)
    labels = [canvas.shorten((names or {}).get(label, str(label)), MAX_NAME) for label in range(count)]
    longest = max(map(len, labels))
    turned = {"rotation": 35, "ha": "right"} if longest > 3 else {}
    cell = 0.62 if count <= 8 else 0.42
    width = max(3.2, 1.1 + 0.075 * longest + cell * count)
    height = 1.0 + (0.06 * longest if turned else 0.15) + cell * count
    with canvas.chart(path, width, height) as (figure, axes):
        axes.grid(False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(matrix.shape):
            share = f"\n{100 * shares[row, column]:.0f} %" if count <= 8 else ""
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{matrix[row, column]}{share}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(count), labels, **turned)
        axes.set_yticks(range(count), labels)
        axes.tick_params(length=0)
        axes.set(xlabel="Predicted class", ylabel="True class")
        figure.suptitle(title, fontsize=9)
