"""The table that ``predict.py`` writes of whole scans: one line per image, with its class or its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.downstream.predictions import Columns
from self_supervised_3d_tasks.files.tables import read_table, write_table

Row = list[str]
"""Image, then of classes the most fitting one and its name, then the probabilities."""


def header(columns: Columns) -> Row:
    """Return the names of the columns."""
    return ["image", *(("class", "name") if columns.exclusive else ()), *columns.probabilities]


def rows(
    images: Sequence[str], classes: np.ndarray | None, probabilities: np.ndarray, names: Mapping[int, str]
) -> list[Row]:
    """Return the lines of some images.

    Args:
        images: File names.
        classes: ``(n,)``; None of findings.
        probabilities: ``(n, num_classes)`` or ``(n, num_findings)``.
        names: Class to name; without it the name is empty.
    """
    answers = [[]] * len(images) if classes is None else [[str(label), names.get(int(label), "")] for label in classes]
    return [
        [image, *answer, *(f"{value:.6g}" for value in values)]
        for image, answer, values in zip(images, answers, probabilities, strict=True)
    ]


def write(path: Path, lines: Sequence[Row], columns: Row) -> None:
    """Write a table; killed at any moment, there is the old file or the new one."""
    write_table(path, columns, lines)


def read(path: Path, columns: Row) -> list[Row]:
    """Return the lines of a table that has these columns.

    Raises:
        UserError: The file has other columns.
    """
    return read_table(path, columns, "choose another OUTPUT")
