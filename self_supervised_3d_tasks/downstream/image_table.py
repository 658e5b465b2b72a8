"""The table that ``predict.py`` writes of whole scans: one line per image, with its class or its findings."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.downstream.predictions import Columns
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import atomic_write

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
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)


def read(path: Path, columns: Row) -> list[Row]:
    """Return the lines of a table that has these columns.

    Raises:
        UserError: The file has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another OUTPUT") from error
    if any(len(line) != len(columns) for line in lines) or lines[:1] != [columns]:
        raise UserError(f"{path}: expected a table with the columns {','.join(columns)}; choose another OUTPUT")
    return lines[1:]
