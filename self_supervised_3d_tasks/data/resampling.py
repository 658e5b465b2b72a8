"""Resizing on the voxel grid: linear for intensities and probabilities, nearest neighbour for masks.

Both align the borders of the grids (half-voxel centres): enlarging and shrinking again does not shift
anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def resize_linear(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize the spatial axes linearly; where an axis shrinks, the filter widens to prevent aliasing.

    Element-wise numpy, one axis after the other: the same bits whatever the number of threads.

    Args:
        array: ``(*spatial, channels)``, float32.
        shape: new spatial shape.

    Returns:
        ``(*shape, channels)``, float32, within the range of ``array``.
    """
    # Axes that shrink most go first, the others then have fewer voxels to visit.
    for axis in sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[axis]):
        if array.shape[axis] != shape[axis]:
            array = _resize_axis(array, axis, shape[axis])
    return array


def linear_taps(length: int, new_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which voxels a resized voxel is made of, and how much of each.

    Args:
        length: voxels of the axis before.
        new_length: voxels of the axis after.

    Returns:
        Indices and weights, both ``(new_length, taps)``; each row of weights sums to one.
    """
    scale = length / new_length
    width = max(scale, 1.0)
    centres = (np.arange(new_length) + 0.5) * scale - 0.5
    indices = np.floor(centres - width).astype(int)[:, None] + 1 + np.arange(int(np.ceil(2 * width)))
    weights = np.maximum(0.0, 1.0 - np.abs(indices - centres[:, None]) / width)
    weights[(indices < 0) | (indices >= length)] = 0.0
    return indices.clip(0, length - 1), weights / weights.sum(axis=1, keepdims=True)


def resize_nearest(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize a mask ``(*spatial)`` to ``shape`` by nearest neighbour: no label appears that was not there."""
    for axis, new_length in enumerate(shape):
        length = mask.shape[axis]
        if length != new_length:
            mask = mask.take((2 * np.arange(new_length) + 1) * length // (2 * new_length), axis=axis)
    return mask


def _resize_axis(array: np.ndarray, axis: int, new_length: int) -> np.ndarray:
    indices, weights = linear_taps(array.shape[axis], new_length)
    along_axis = [1] * array.ndim
    along_axis[axis] = new_length
    resized = np.zeros((*array.shape[:axis], new_length, *array.shape[axis + 1 :]), np.float32)
    for index, weight in zip(indices.T, weights.T.astype(np.float32), strict=True):
        resized += weight.reshape(along_axis) * array.take(index, axis=axis)
    return resized
