"""Resizing on the voxel grid: linear for intensities and probabilities, nearest neighbour for masks.

Both align the borders of the grids (half-voxel centres): enlarging and shrinking again does not shift anything.
"""

from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks import lazy

transform = lazy.load("skimage.transform")


def resize_linear(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize the spatial axes linearly; where an axis shrinks, it is smoothed first to prevent aliasing.

    Args:
        array: ``(*spatial, channels)``, float32.
        shape: New spatial shape.

    Returns:
        ``(*shape, channels)``, float32, within the range of ``array``.
    """
    shape = (*shape, array.shape[-1])
    if shape == array.shape:
        return array
    shrinks = any(new < old for new, old in zip(shape, array.shape, strict=True))
    resized = transform.resize(array, shape, order=1, mode="edge", anti_aliasing=shrinks, preserve_range=True)
    return resized.astype(np.float32, copy=False)


def resize_nearest(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize a mask ``(*spatial)`` to ``shape`` by nearest neighbour: no label appears that was not there."""
    if mask.shape == tuple(shape):
        return mask
    return transform.resize(mask, shape, order=0, mode="edge", anti_aliasing=False, preserve_range=True)
