"""The part of a scan that holds tissue, and the largest one that is full of it."""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from absl import logging

from self_supervised_3d_tasks.ops.patches import FOREGROUND

ForegroundCrop = Literal["none", "box", "inside"]

FILLED = 0.95  # share of foreground in each corner of a box that lies inside
SMALLEST = 0.4  # of the edge of the box around: a smaller one would hold too little


def foreground_box(image: np.ndarray, kind: ForegroundCrop, name: str) -> tuple[slice, ...]:
    """Return the box of an image that is kept, one slice per spatial axis.

    Taleb et al. 2020 crop the empty borders of scans before anything else.

    Args:
        image: ``(*spatial, channels)`` in [0, 1].
        kind: ``"none"``: all of it. ``"box"``: the smallest box that holds every voxel above 5 % of the range in some
            channel. ``"inside"``: the largest one of the same centre and shape whose corners, a quarter of each edge
            long, are filled: what a round body shows at every place of a grid of patches.
        name: What a warning calls the scan.
    """
    above = np.any(image > FOREGROUND, axis=-1)
    if kind == "none" or not above.any():
        return tuple(slice(0, size) for size in above.shape)
    box = []
    for axis in range(above.ndim):
        found = np.flatnonzero(above.any(axis=tuple(other for other in range(above.ndim) if other != axis)))
        box.append((int(found[0]), int(found[-1]) + 1))
    if kind == "box":
        return tuple(slice(*ends) for ends in box)
    for share in np.linspace(1, SMALLEST, 31):
        inner = tuple(_shrunk(ends, float(share)) for ends in box)
        if min(_corners(above[inner])) >= FILLED:
            return inner
    logging.warning(
        'foreground_crop: %s has no filled box of %.0f %% of its foreground or more; "inside" takes that size',
        name,
        100 * SMALLEST,
    )
    return inner


def _shrunk(ends: Sequence[int], share: float) -> slice:
    """Return the middle of an interval, ``share`` as long and at least one voxel."""
    first, last = ends
    size = max(1, round(share * (last - first)))
    start = first + (last - first - size) // 2
    return slice(start, start + size)


def _corners(above: np.ndarray) -> list[float]:
    """Return the share of foreground in each corner region of a box."""
    halves = [(slice(0, max(1, size // 4)), slice(size - max(1, size // 4), size)) for size in above.shape]
    return [float(above[corner].mean()) for corner in itertools.product(*halves)]
