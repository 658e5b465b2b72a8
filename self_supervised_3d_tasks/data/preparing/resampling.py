"""Resizing on the voxel grid: linear or cubic for intensities, linear for probabilities and class by class for masks.

Both align the borders of the grids (half-voxel centres): enlarging and shrinking again does not shift anything.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from self_supervised_3d_tasks import lazy

transform = lazy.load("skimage.transform")

Interpolation = Literal["linear", "cubic"]
_ORDERS = {"linear": 1, "cubic": 3}


def resize(array: np.ndarray, shape: Sequence[int], interpolation: Interpolation = "linear") -> np.ndarray:
    """Resize the spatial axes; where an axis shrinks, it is smoothed first to prevent aliasing.

    Args:
        array: ``(*spatial, channels)``, float32.
        shape: New spatial shape.
        interpolation: Between the voxels; ``"cubic"`` keeps edges sharper, and is clipped where it overshoots.

    Returns:
        ``(*shape, channels)``, float32, within the range of ``array``.
    """
    shape = (*shape, array.shape[-1])
    if shape == array.shape:
        return array
    shrinks = any(new < old for new, old in zip(shape, array.shape, strict=True))
    order = _ORDERS[interpolation]
    resized = transform.resize(array, shape, order=order, mode="edge", anti_aliasing=shrinks, preserve_range=True)
    return resized.astype(np.float32, copy=False)


def resize_labels(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize a mask to the label whose share is largest at each new voxel; of equal ones, the lowest.

    Each label is resized like an image, so that mask and image stay aligned. The nearest neighbour would not: shrunk by
    an even factor, no voxel has its centre where the new one has, and one side would win throughout.

    Args:
        mask: ``(*spatial)`` integers.
        shape: New spatial shape.

    Returns:
        ``(*shape)`` of the same type; no label appears that was not there.
    """
    if mask.shape == tuple(shape):
        return mask
    resized, largest = np.empty(shape, mask.dtype), np.full(shape, -1, np.float32)
    for label in np.unique(mask):
        share = resize((mask == label).astype(np.float32)[..., None], shape)[..., 0]
        wins = share > largest + 1e-5  # rounding must not decide between equal shares
        resized[wins], largest[wins] = label, share[wins]
    return resized
