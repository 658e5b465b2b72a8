"""Pieces of an array that is too large to exist at once: a place in it and what stands there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# One slice with start and stop per spatial axis, and values (*spatial of the piece, channels).
Piece = tuple[tuple[slice, ...], np.ndarray]


def cover(array: np.ndarray, pieces: Iterable[Piece]) -> np.ndarray:
    """Write every piece to its place in ``array`` and return that."""
    for place, values in pieces:
        array[place] = values
    return array


def moved(piece: Piece, shift: Sequence[int], bounds: Sequence[slice]) -> Iterator[Piece]:
    """Yield a piece on a grid whose voxels have other numbers, or nothing where it is out of bounds.

    Args:
        piece: The piece.
        shift: What is added to the numbers of voxels along each axis.
        bounds: What is kept, along each axis.
    """
    place, values = piece
    whole = [slice(part.start + by, part.stop + by) for part, by in zip(place, shift, strict=True)]
    kept = [
        slice(max(part.start, bound.start), min(part.stop, bound.stop))
        for part, bound in zip(whole, bounds, strict=True)
    ]
    if all(part.start < part.stop for part in kept):
        inside = (slice(k.start - w.start, k.stop - w.start) for k, w in zip(kept, whole, strict=True))
        yield tuple(kept), values[tuple(inside)]


def outside(box: Sequence[slice], shape: Sequence[int], values: np.ndarray) -> Iterator[Piece]:
    """Yield what lies around a box, in pieces of one value.

    Args:
        box: The box.
        shape: ``(*spatial)`` of all.
        values: ``(channels,)``, at each voxel.
    """
    place = [slice(0, size) for size in shape]
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        for side in (slice(0, part.start), slice(part.stop, size)):
            if side.start < side.stop:
                found = (*place[:axis], side, *place[axis + 1 :])
                lengths = (piece.stop - piece.start for piece in found)
                yield found, np.broadcast_to(values, (*lengths, len(values)))
        place[axis] = part


def slabs(shape: Sequence[int], row_bytes: int, limit: int = 2**27) -> Iterator[slice]:
    """Yield parts of the first axis, each of ``limit`` bytes or less where a row is not larger.

    Args:
        shape: ``(*spatial)``.
        row_bytes: Size of what one voxel of the first axis stands for.
        limit: Most bytes of a slab.
    """
    step = max(1, limit // row_bytes)
    yield from (slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step))
