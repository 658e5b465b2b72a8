"""Stored axes of a scan and their way to the closest canonical (RAS) axes and back, for every format with an affine.

One array axis then means the same direction in every scan, whatever its format and however it was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.volumes import Header, Volume, wrong_rank
from self_supervised_3d_tasks.errors import UserError

nib = lazy.load("nibabel")

LARGEST_SHEAR = 0.01  # cosine of the angle between two axes; what rounded headers have is a hundred times less


@dataclass(frozen=True)
class Grid:
    """The three stored axes of a scan and their way to the closest canonical (RAS) axes and back.

    Args:
        shape: ``(x, y, z, channels)`` as stored.
        affine: ``(4, 4)``, stored voxel index to mm.
        orientation: ``(3, 2)``; row i is the canonical axis of stored axis i and its direction, 1 or -1.
        rank: 3; or 2, which drops the third stored axis (of length 1), whichever canonical axis that is.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    orientation: np.ndarray
    rank: int

    @classmethod
    def of(cls, shape: Sequence[int], affine: np.ndarray, path: Path, rank: int) -> Grid:
        """Return the grid of a file.

        Args:
            shape: (x, y, z), (x, y, z, channels), or vector-valued (x, y, z, 1, channels), as stored.
            affine: ``(4, 4)``, stored voxel index to mm in RAS directions.
            path: The file, which messages name.
            rank: Number of spatial axes; 2 needs a third axis of length 1.

        Raises:
            UserError: The shape has another rank; the affine is not finite, degenerate or sheared.
        """
        padded = (*shape, 1, 1, 1)
        spatial, others = padded[:3], padded[3:]
        has_rank = spatial[2] == 1 if rank == 2 else len(shape) >= rank
        if not has_rank or sum(size > 1 for size in others) > 1 or min(padded) < 1:
            raise wrong_rank(tuple(shape), path, rank)
        finite = np.isfinite(affine).all()
        with np.errstate(all="ignore"):  # an axis of length 0, or one too long to be squared
            orientation = nib.io_orientation(affine) if finite else np.full((3, 2), np.nan)
            shear = _shear(affine)
        if np.isnan(orientation).any() or np.isnan(shear):
            raise UserError(f"{path}: its affine is degenerate; expected three independent axes. Repair the header.")
        if shear > LARGEST_SHEAR:
            raise UserError(
                f"{path}: its axes are sheared (the cosine of the angle between two is {shear:.3f}, as a tilted "
                "gantry makes it); expected axes at right angles. Resample the scan onto a straight grid."
            )
        return cls((*spatial, int(np.prod(others))), affine, orientation, rank)

    @property
    def canonical_affine(self) -> np.ndarray:
        """The affine ``(4, 4)`` from canonical voxel index to mm."""
        return self.affine @ nib.orientations.inv_ornt_aff(self.orientation, self.shape[:3])

    def header(self, path: Path) -> Header:
        """Return the header, on canonical axes, of a file on this grid."""
        shape = (*self.on_canonical_axes(self.shape[:3]), self.shape[3])
        return Header(shape, path, self.canonical_affine, self.spacing)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along each canonical axis."""
        return self.on_canonical_axes(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    def on_canonical_axes(self, values: Sequence) -> tuple:
        """Return the values of the three stored axes for each axis that a volume of this grid has."""
        return tuple(values[axis] for axis in np.argsort(self.orientation[:, 0]) if axis < self.rank)

    def volume(self, array: np.ndarray, path: Path) -> Volume:
        """Return the volume, on canonical axes, of the voxels of a file as they are stored."""
        array = nib.apply_orientation(array.reshape(self.shape), self.orientation)
        if self.rank == 2:
            array = array.take(0, axis=int(self.orientation[2, 0]))
        return Volume(np.ascontiguousarray(array), self.canonical_affine, self.spacing, path)

    def to_stored(self, mask: np.ndarray) -> np.ndarray:
        """Return ``(x, y, z)`` as stored from a mask ``(*spatial)`` on canonical axes."""
        if self.rank == 2:
            mask = np.expand_dims(mask, int(self.orientation[2, 0]))
        canonical = nib.orientations.axcodes2ornt("RAS")
        return nib.apply_orientation(mask, nib.orientations.ornt_transform(canonical, self.orientation))


def _shear(affine: np.ndarray) -> float:
    """Return the largest absolute cosine of the angle between two axes of an affine, NaN for an axis of no length."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(np.triu(axes.T @ axes, 1)).max())
