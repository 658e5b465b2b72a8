"""A scan as it is kept between decoding and training: small, and scaled and padded where a part of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.data.preparing.scaling import Contrast, IntensityRange

INTEGERS = (np.uint8, np.int8, np.int16, np.uint16)  # float32 holds every one of their numbers
Place = tuple[slice, ...]


@dataclass(frozen=True)
class FittedScan:
    """A scan, cropped to its box, and what makes an image of it.

    Args:
        array: ``(*spatial, channels)``; float32 in [0, 1], or integers of at most 16 bits as the files hold them. Any
            object that gives such arrays for slices will do, such as one on disk.
        box: The part of the scan's own grid that ``array`` shows, one slice per spatial axis.
        padding: Zeros before and after each spatial axis of the image; empty: none.
        intensities: What becomes 0 and 1 of integers; None: they are scaled.
        contrast: What is left to see of the box; None: it was not noted.
        content: What the voxels as they were read are told by, see `content.hash_channels`.
    """

    array: np.ndarray
    box: Place
    padding: tuple[tuple[int, int], ...] = ()
    intensities: IntensityRange | None = None
    contrast: Contrast | None = None
    content: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of the image."""
        *spatial, channels = self.array.shape
        padding = self.padding or [(0, 0)] * len(spatial)
        return (*(before + size + after for size, (before, after) in zip(spatial, padding, strict=True)), channels)

    def image(self) -> np.ndarray:
        """Return the whole image ``(*spatial, channels)``, float32 in [0, 1]. It may be kept: do not write to it."""
        if self.intensities is None and not np.any(self.padding):
            return self.array[:]
        return self.crop([slice(0, size) for size in self.shape[:-1]])

    def crop(self, place: Sequence[slice]) -> np.ndarray:
        """Return ``image()[place]`` as a new array; nothing else is read and scaled.

        Args:
            place: One slice per spatial axis, with a start and a stop within the image.
        """
        if not np.any(self.padding):
            return self._scaled(tuple(place))
        size = [side.stop - side.start for side in place]
        crop = np.zeros((*size, self.array.shape[-1]), np.float32)
        source, target = [], []
        for side, (before, _), length in zip(place, self.padding, self.array.shape, strict=False):
            start, stop = max(side.start - before, 0), min(side.stop - before, length)
            if start >= stop:
                return crop  # nothing but padding
            source.append(slice(start, stop))
            target.append(slice(start + before - side.start, stop + before - side.start))
        crop[tuple(target)] = self._scaled(tuple(source))
        return crop

    def _scaled(self, place: Place) -> np.ndarray:
        part = self.array[place]
        return np.array(part, order="C") if self.intensities is None else self.intensities.scale(part)


def as_integers(array: np.ndarray) -> np.ndarray | None:
    """Return a copy of whole numbers in the smallest of `INTEGERS` that holds them all; None where none does.

    Scanners give integers of at most 16 bits. They are found whatever type a file has for them, and whatever offset
    its header adds.

    Args:
        array: Finite float32.
    """
    some = array[(slice(None, None, 8),) * (array.ndim - 1)]  # which answers for most that hold fractions
    if np.any(some != np.rint(some)) or np.any(array != np.rint(array)):
        return None
    least, most = array.min(), array.max()
    for kind in INTEGERS:
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return array.astype(kind, order="C")
    return None
