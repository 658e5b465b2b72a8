"""Sheets of restored images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.preview import central_slice

COLUMNS = ("original", "what the encoder sees", "reconstruction")
SEEN = 1  # the column with a range of its own
MAX_NAME = 26  # letters of a scan's name before it is cut


class Restoration(NamedTuple):
    """One row of a sheet; images ``(*spatial, channels)``.

    Attributes:
        name: Name of the scan.
        wanted: The image to be restored, in [0, 1].
        seen: What the encoder sees.
        restored: What the decoder gives, in [0, 1].
        note: Text behind the name, such as the error.
    """

    name: str
    wanted: np.ndarray
    seen: np.ndarray
    restored: np.ndarray
    note: str


def restorations(path: Path, rows: Sequence[Restoration], title: str) -> None:
    """Draw original, what the encoder sees, and reconstruction of some scans, a row for each.

    Original and reconstruction are drawn from 0 (black) to 1; what the encoder sees has its own range, as a task may
    have changed its intensities.

    Args:
        path: PNG file.
        rows: At least one.
        title: Heading.
    """
    cell, gap, text, head, margin = 1.7, 0.08, 0.34, 0.56, 0.1
    width = 2 * margin + len(COLUMNS) * (cell + gap) - gap
    with canvas.figure(path, width, head + len(rows) * (text + cell) + margin) as figure:
        canvas.write(figure, width / 2, 0.16, title, fontsize=9)
        for number, name in enumerate(COLUMNS):
            canvas.write(figure, margin + number * (cell + gap) + cell / 2, 0.42, name, fontsize=8)
        for index, row in enumerate(rows):
            top = head + index * (text + cell) + text
            line = f"{canvas.shorten(row.name, MAX_NAME)}: {row.note}"
            canvas.write(figure, width / 2, top - 0.13, line, fontsize=7.5)
            for number, image in enumerate((row.wanted, row.seen, row.restored)):
                picture = central_slice(np.asarray(image, np.float32))
                low, high = (float(picture.min()), float(picture.max())) if number == SEEN else (0.0, 1.0)
                axes = canvas.place(figure, margin + number * (cell + gap), top, cell, cell)
                canvas.show(axes, picture, (low, max(high, low + 1e-6)))
