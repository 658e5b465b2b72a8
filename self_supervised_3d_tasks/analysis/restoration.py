"""How well images are restored, beside the best answer that does not look at what the encoder sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class MeanImage(NamedTuple):
    """The mean of some images, and of how many.

    Attributes:
        image: ``(*spatial, channels)``, float64.
        count: Of images.
    """

    image: np.ndarray
    count: int


class ScanErrors(NamedTuple):
    """Errors of one scan, mean squares over its parts, voxels and channels, in squared intensities of [0, 1].

    Attributes:
        scan: Its name.
        mse: Of the restorations.
        mean_image_mse: Of the mean image, given for every part.
        n: Number of parts.
    """

    scan: str
    mse: float
    mean_image_mse: float
    n: int


def mean_image(batches: Iterable[np.ndarray]) -> MeanImage:
    """Return the mean of images that come in batches ``(n, *spatial, channels)``, which are not kept."""
    total, count = None, 0
    for batch in batches:
        part = np.sum(batch, axis=0, dtype=np.float64)
        total, count = (part if total is None else total + part), count + len(batch)
    if total is None:
        raise ValueError("expected at least one image to take the mean of")
    return MeanImage(total / count, count)


def squared_errors(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return mean squares of the difference over voxels and channels, ``(n,)`` float64.

    Args:
        predicted: ``(n, *spatial, channels)``, or without n for the same answer to all.
        wanted: ``(n, *spatial, channels)``.
    """
    difference = np.subtract(predicted, wanted, dtype=np.float64)
    return np.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def per_scan(scans: Sequence[str], errors: np.ndarray, mean_image_errors: np.ndarray) -> list[ScanErrors]:
    """Average the errors of the parts of each scan.

    Args:
        scans: Name of the scan of each part, ``(n,)``.
        errors: Of the restorations, ``(n,)``.
        mean_image_errors: Of the mean image, ``(n,)``.
    """
    names = np.asarray(scans)
    rows = []
    for scan in dict.fromkeys(scans):
        own = names == scan
        rows.append(ScanErrors(scan, float(errors[own].mean()), float(mean_image_errors[own].mean()), int(own.sum())))
    return rows
