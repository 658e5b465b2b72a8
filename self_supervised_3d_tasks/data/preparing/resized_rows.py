"""Rows of a resized array without the rest of it, which may be too large to exist at once."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.preparing.resampling import resize

sparse = lazy.load("scipy.sparse")


def resize_rows(array: np.ndarray, shape: Sequence[int], rows: slice) -> np.ndarray:
    """Return ``resize(array, shape)[rows]`` up to rounding.

    Resizing is linear and goes axis by axis: along each one it is a matrix with few entries per row.

    Args:
        array: ``(*spatial, channels)``, float32.
        shape: The spatial shape of the whole.
        rows: Part of the first axis of the whole, with start and stop.

    Returns:
        ``(rows, *shape[1:], channels)``, float32.
    """
    matrix = _matrix(array.shape[0], shape[0])[rows]
    first, last = matrix.indices.min(), matrix.indices.max() + 1
    array = _along(matrix[:, first:last], array[first:last], 0)
    for axis in range(len(shape) - 1, 0, -1):
        array = _along(_matrix(array.shape[axis], shape[axis]), array, axis)
    return array


@functools.lru_cache(maxsize=16)
def _matrix(old: int, new: int) -> Any:
    """Return what resizes an axis, ``(new, old)``: the resized unit vectors, smoothing included."""
    return sparse.csr_array(resize(np.eye(old, dtype=np.float32), (new,)))


def _along(matrix: Any, array: np.ndarray, axis: int) -> np.ndarray:
    """Return the products with a matrix along one axis."""
    new, old = matrix.shape
    if new == old and (matrix != sparse.eye_array(old)).nnz == 0:
        return array
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    parts = array.reshape(-1, old, int(np.prod(after)))
    result = np.empty((len(parts), new, parts.shape[-1]), np.float32)
    for part, target in zip(parts, result, strict=True):
        target[:] = matrix @ part
    return result.reshape(*before, new, *after)
