"""Which voxels of a scan a prepared image shows, and the padding around them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.data.preparing.resized_rows import resize_rows


@dataclass(frozen=True)
class Placement:
    """Which voxels of a scan's own grid a prepared image shows, and at what size.

    Args:
        shape: Spatial shape of the scan.
        box: The part of it that is shown, one slice per spatial axis.
        size: Voxels along each axis of the prepared image that show the box; what it has more is padding around.
    """

    shape: tuple[int, ...]
    box: tuple[slice, ...]
    size: tuple[int, ...]

    @property
    def box_shape(self) -> tuple[int, ...]:
        """Voxels of the scan's own grid along each axis of the box."""
        return tuple(side.stop - side.start for side in self.box)

    def inside(self, fitted: Sequence[int]) -> tuple[slice, ...]:
        """Return where a prepared image of that spatial shape shows the scan."""
        starts = (before for before, _ in padding_to(self.size, fitted))
        return tuple(slice(start, start + size) for start, size in zip(starts, self.size, strict=True))

    def shift(self, fitted: Sequence[int]) -> tuple[int, ...] | None:
        """Return what is added to the number of a fitted voxel along each axis to have that of the scan's own voxel.

        None: both grids have voxels of different sizes.

        Args:
            fitted: ``(*spatial)`` of the image.
        """
        if self.size != self.box_shape:
            return None
        return tuple(side.start - place.start for side, place in zip(self.box, self.inside(fitted), strict=True))

    def restore(self, probabilities: np.ndarray, rows: slice | None = None) -> np.ndarray:
        """Undo the fitting and the crop of a prediction; what was cut off is background, class 0.

        Args:
            probabilities: ``(*spatial, num_classes)`` on the fitted grid.
            rows: Part of the first axis of the scan, with start and stop, that is returned; None: all of it.

        Returns:
            ``(rows, *shape[1:], num_classes)`` on the scan's own grid, float32.
        """
        rows = rows or slice(0, self.shape[0])
        whole = np.zeros((rows.stop - rows.start, *self.shape[1:], probabilities.shape[-1]), np.float32)
        whole[..., 0] = 1.0
        box = self.box
        first, last = max(rows.start, box[0].start), min(rows.stop, box[0].stop)
        if first >= last:
            return whole
        shown = probabilities[self.inside(probabilities.shape[:-1])]
        wanted = slice(first - box[0].start, last - box[0].start)
        restored = shown[wanted] if self.size == self.box_shape else resize_rows(shown, self.box_shape, wanted)
        whole[slice(first - rows.start, last - rows.start), *box[1:]] = restored
        return whole


def padding_to(shape: Sequence[int], padded_shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the voxels to add before and after each axis; an odd one goes to the end."""
    missing = [padded - size for size, padded in zip(shape, padded_shape, strict=False)]
    return [(count // 2, count - count // 2) for count in missing]
