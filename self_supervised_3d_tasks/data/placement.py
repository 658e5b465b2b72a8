"""Which voxels of a scan a prepared image shows, and the padding around them."""

from collections.abc import Sequence
from dataclasses import dataclass


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


def padding_to(shape: Sequence[int], padded_shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the voxels to add before and after each axis; an odd one goes to the end."""
    missing = [padded - size for size, padded in zip(shape, padded_shape, strict=False)]
    return [(count // 2, count - count // 2) for count in missing]
