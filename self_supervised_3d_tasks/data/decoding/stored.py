"""A scan as the library of its format shows it, and what every format with an affine makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.decoding.grid import Grid
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels, check_numbers


@dataclass(frozen=True)
class StoredScan:
    """A scan on its stored axes.

    Args:
        path: The file.
        shape: (x, y, z), (x, y, z, channels), (x, y, z, 1, channels), or (x, y) of a plane.
        affine: ``(4, 4)``, stored voxel index to mm in RAS directions.
        dtype: Type of the voxels.
        decode: Gives the voxels in this shape, of the type that it is asked for, or for None as the library likes.
    """

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype
    decode: Callable[[type | None], np.ndarray]

    def grid(self, rank: int) -> Grid:
        """Return the way to canonical axes.

        Raises:
            UserError: The voxels are no numbers, the shape has another rank, or the affine cannot be used.
        """
        check_numbers(self.dtype, self.path)
        return Grid.of(self.shape, self.affine, self.path, rank)

    def header(self, rank: int) -> Header:
        """Return shape and affine on canonical axes, no voxel decoded."""
        return self.grid(rank).header(self.path)

    def image(self, rank: int) -> Volume:
        """Return ``(*spatial, channels)`` float32 on canonical axes."""
        grid = self.grid(rank)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            return grid.volume(as_float32(self.decode(np.float32)), self.path)

    def mask(self, rank: int) -> Volume:
        """Return ``(*spatial)`` int32 on canonical axes."""
        volume = self.grid(rank).volume(as_labels(self.decode(None), self.path), self.path)
        return replace(volume, array=volume.array[..., 0])
