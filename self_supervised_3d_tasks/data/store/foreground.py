"""The labelled voxels of a mask that crops can be centred on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.data.store.disk import DiskArray

MAX_VOXELS = 10_000  # remembered per mask: 80 kB, enough to draw from


class Foreground(NamedTuple):
    """What a mask shows: its classes, and voxels of each; the background, class 0, has none.

    Attributes:
        flat: Flat indices ``(number,)``, int64, one class after the other; in memory or in a file.
        borders: Where in ``flat`` each class that the mask has begins, and where the last one ends, ``(classes + 1,)``.
        classes: The classes that the mask has, sorted, background included.
    """

    flat: np.ndarray | DiskArray
    borders: np.ndarray
    classes: tuple[int, ...]

    @classmethod
    def of(cls, mask: np.ndarray) -> Foreground:
        """Return the voxels of a mask ``(*spatial)`` of unsigned integers.

        The classes share `MAX_VOXELS` evenly. Of a class with more voxels that many are drawn once, uniformly and the
        same every time: a large class cannot take the place of a small one.
        """
        flat = np.flatnonzero(mask)
        labels = mask.reshape(-1)[flat]
        order = np.argsort(labels, kind="stable")
        found, starts = np.unique(labels[order], return_index=True)
        background = [0] if len(flat) < mask.size else []
        share = MAX_VOXELS // max(1, len(starts))
        rng = np.random.default_rng(0)
        classes = [
            np.sort(rng.choice(voxels, share, replace=False)) if len(voxels) > share else voxels
            for voxels in np.split(flat[order], starts[1:])
        ]
        borders = np.cumsum([0, *map(len, classes)])
        return cls(np.concatenate(classes), borders, (*background, *found.tolist()))

    def at(self, position: float) -> int | None:
        """Return the voxel at a position in [0, 1), or None without a labelled one.

        Uniform positions give every class with the same probability, and of a class every remembered voxel.
        """
        if not self.borders[-1]:
            return None
        number, rest = divmod(position * (len(self.borders) - 1), 1.0)
        start, end = self.borders[int(number) : int(number) + 2]
        return int(self.flat[int(start + int(rest * (end - start)))])
