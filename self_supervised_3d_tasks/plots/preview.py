"""Preview sheets: what a pretext task makes of some scans."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.plots import canvas

MAX_COLUMNS = 9


def central_slice(image: np.ndarray) -> np.ndarray:
    """Return the picture of an image: ``(rows, columns)`` of its first channel, the middle of the last axis in 3D.

    A 3D scan is shown with its first axis to the right and its second axis up, a 2D image as it is stored; one with
    three channels is a colour photograph, ``(rows, columns, 3)``.

    Args:
        image: ``(*spatial, channels)``.
    """
    if image.ndim == 4:
        return image[:, :, image.shape[2] // 2, 0].T[::-1]
    return image if image.shape[-1] == 3 else image[:, :, 0]


def pretext_preview(path: Path, panels: Sequence[Sequence[Panel]]) -> None:
    """Draw what a pretext task makes of some scans: one block of pictures per scan, one grey range per block.

    Args:
        path: PNG file.
        panels: For each scan its pictures, 2D or 3D images of any size.
    """
    panels = [block for block in panels if block]
    longest = max((len(block) for block in panels), default=1)
    columns = math.ceil(longest / math.ceil(longest / MAX_COLUMNS))  # rows of nearly the same length
    cell, gap, margin = (1.6 if columns <= 4 else 1.0), 0.08, 0.3
    rows, top = [], 0.1
    for number, block in enumerate(panels, start=1):
        slices = [central_slice(np.asarray(image, np.float32)) for _, image in block]
        titles = [textwrap.fill(title, int(cell / 0.055)) for title, _ in block]
        limits = (min(map(np.min, slices)), max(map(np.max, slices)))
        for start in range(0, len(block), columns):
            chosen = slice(start, start + columns)
            top += 0.06 + 0.12 * max(title.count("\n") + 1 for title in titles[chosen])
            rows.append((top, "" if start else f"Scan {number}", titles[chosen], slices[chosen], limits))
            top += cell + gap
        top += gap
    with canvas.figure(path, margin + columns * (cell + gap), top) as figure:
        for row_top, name, titles, slices, limits in rows:
            for column, (title, picture) in enumerate(zip(titles, slices, strict=True)):
                axes = canvas.place(figure, margin + column * (cell + gap), row_top, cell, cell)
                canvas.show(axes, picture, limits)
                axes.set_title(title, fontsize=6.5, pad=2.5, linespacing=1.1)
            canvas.write(figure, 0.15, row_top + cell / 2, name, fontsize=8, rotation=90)
