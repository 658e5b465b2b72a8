"""Voxel grids: the axes that a file stores against the canonical ones."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredGrid:
    """The three stored axes of a scan and their way to the closest canonical (RAS) axes and back.

    Args:
        shape: voxels along the three stored axes.
        num_channels: channels per voxel.
        affine: ``(4, 4)``, stored voxel index to mm.
        orientation: ``(3, 2)``; row i is the canonical axis of stored axis i and its direction, 1 or -1.
        rank: 3; or 2, which drops the third stored axis (of length 1), whichever canonical axis that is.
    """

    shape: tuple[int, int, int]
    num_channels: int
    affine: np.ndarray
    orientation: np.ndarray
    rank: int

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """Voxels along each canonical axis."""
        return self._to_canonical_axes(self.shape)

    @property
    def canonical_spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along each canonical axis."""
        return self._to_canonical_axes(tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist()))

    @property
    def canonical_affine(self) -> np.ndarray:
        """``(4, 4)``, canonical voxel index to mm."""
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for axis, (canonical, direction) in enumerate(self.orientation):
            to_stored[axis, int(canonical)] = direction
            to_stored[axis, 3] = 0 if direction > 0 else self.shape[axis] - 1
        return self.affine @ to_stored

    @property
    def _stored_axes(self) -> list[int]:
        """Stored axis that lies on each canonical axis."""
        return np.argsort(self.orientation[:, 0]).tolist()

    @property
    def _flipped_axes(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.orientation[:, 1] < 0).tolist())

    def _to_canonical_axes(self, values: tuple) -> tuple:
        return tuple(values[axis] for axis in self._stored_axes if axis < self.rank)

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """Return a contiguous ``(*spatial, channels)`` from voxels as stored."""
        array = array.reshape((*self.shape, self.num_channels))
        array = np.flip(array, self._flipped_axes).transpose([*self._stored_axes, 3])
        if self.rank == 2:
            array = array.take(0, axis=self._stored_axes.index(2))
        return np.ascontiguousarray(array)

    def to_stored(self, mask: np.ndarray) -> np.ndarray:
        """Return ``(x, y, z)`` as stored from a mask ``(*spatial)`` on canonical axes."""
        if self.rank == 2:
            mask = np.expand_dims(mask, self._stored_axes.index(2))
        return np.flip(mask.transpose(self.orientation[:, 0].astype(int)), self._flipped_axes)
