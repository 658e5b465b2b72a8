"""The table of findings that ``predict.py`` writes: one line per image, one probability per finding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks.downstream.class_table import Row


def header(findings: Sequence[str]) -> Row:
    """Return the names of the columns."""
    return ["image", *(f"probability_{finding}" for finding in findings)]


def rows(images: Sequence[str], probabilities: np.ndarray) -> list[Row]:
    """Return the lines of some images.

    Args:
        images: File names.
        probabilities: ``(n, num_findings)``.
    """
    return [[image, *(f"{value:.6g}" for value in values)] for image, values in zip(images, probabilities, strict=True)]
