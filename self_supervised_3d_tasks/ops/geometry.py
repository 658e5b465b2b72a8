"""Rotations by right angles, flips, resized boxes and affine resampling of an image ``(*spatial, channels)``."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds

Rotation = tuple[int, tuple[int, int]]

# (k, axes) of np.rot90, in the predecessor's numbering of the classes; images have those of the first two axes.
_ROTATIONS = (*((k, (0, 1)) for k in range(4)), *((k, plane) for plane in ((1, 2), (0, 2)) for k in (3, 2, 1)))


def rotation_classes(shape: Sequence[int], axes: Literal["auto", "all"] = "auto") -> list[Rotation]:
    """Return the rotations by multiples of 90 degrees about one axis, the identity first.

    Args:
        shape: ``(*spatial, channels)``.
        axes: ``"all"``: 4 rotations in 2D, 10 in 3D. ``"auto"``: those of them that keep ``shape``.

    Returns:
        ``(k, (axis, axis))`` per class, with the meaning of `numpy.rot90`.
    """
    rotations = [(k, (a, b)) for k, (a, b) in _ROTATIONS if b < len(shape) - 1]
    return [(k, (a, b)) for k, (a, b) in rotations if axes == "all" or k % 2 == 0 or shape[a] == shape[b]]


def rot90(image: tf.Tensor, k: int, axes: tuple[int, int]) -> tf.Tensor:
    """Rotate as `numpy.rot90` does: exact, by a transposition and reversals."""
    if k % 2 == 1:
        order = list(range(image.shape.rank))
        order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
        image = tf.transpose(image, order)
    reversed_axes = ((), axes[:1], axes, axes[1:])[k % 4]
    return tf.reverse(image, tf.constant(reversed_axes, tf.int32))


def rotate(image: tf.Tensor, rotation_class: tf.Tensor, classes: Sequence[Rotation]) -> tf.Tensor:
    """Rotate an image by the class that a scalar tensor names.

    Args:
        image: ``(*spatial, channels)``.
        rotation_class: Integer scalar, an index into ``classes``.
        classes: From `rotation_classes`.
    """
    branches = [functools.partial(rot90, image, k, axes) for k, axes in classes]
    return tf.switch_case(tf.cast(rotation_class, tf.int32), branches)


def draw_flips(seed: tf.Tensor, number: int) -> tf.Tensor:
    """Return ``(number,)`` booleans: which axes or images to flip, each with probability 1/2."""
    return tf.random.stateless_uniform((number,), seed) < 0.5


def flip(image: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Reverse the spatial axes whose flag is set.

    Args:
        image: ``(*spatial, ...)``; axes after the flagged ones stay as they are.
        flags: ``(rank,)`` booleans from `draw_flips`.
    """
    return tf.reverse(image, tf.where(flags)[:, 0])


def translate(image: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Move an image by whole voxels; what enters is 0, what leaves is lost.

    Args:
        image: ``(*spatial, ...)`` with a static shape.
        offset: ``(rank,)`` int32; the voxel at ``x`` moves to ``x + offset``.
    """
    offset = tf.pad(offset, [[0, image.shape.rank - offset.shape[0]]])
    before, after = tf.maximum(offset, 0), tf.maximum(-offset, 0)
    padded = tf.pad(image, tf.stack([before, after], axis=1))
    return tf.ensure_shape(tf.slice(padded, after, image.shape), image.shape)


def plane_rotation(angle: tf.Tensor, rank: int, axes: tuple[int, int]) -> tf.Tensor:
    """Return the ``(rank, rank)`` matrix of a rotation by ``angle`` radians in the plane of two axes."""
    a, b = axes
    entries = {(a, a): tf.cos(angle), (b, b): tf.cos(angle), (a, b): -tf.sin(angle), (b, a): tf.sin(angle)}
    cells = [entries.get(cell, tf.constant(float(cell[0] == cell[1]))) for cell in np.ndindex(rank, rank)]
    return tf.reshape(tf.stack(cells), (rank, rank))


def draw_affine(seed: tf.Tensor, rank: int, *, scale: float, degrees: float) -> tf.Tensor:
    """Return the ``(rank, rank)`` matrix, for `affine`, of a random zoom and rotation.

    Args:
        seed: ``(2,)`` int32.
        rank: Number of spatial axes.
        scale: Each axis is magnified by U(1 ± ``scale``); in [0, 1).
        degrees: The image is turned by U(± ``degrees``) in every plane of two axes.
    """
    factors = tf.random.stateless_uniform((rank,), seeds.fold(seed, 0), 1 - scale, 1 + scale)
    planes = list(itertools.combinations(range(rank), 2))
    limit = math.radians(degrees)
    angles = tf.random.stateless_uniform((len(planes),), seeds.fold(seed, 1), -limit, limit)
    matrix = tf.linalg.diag(1 / factors)
    for angle, plane in zip(tf.unstack(angles), planes, strict=True):
        # As sums of products, see `_points`.
        matrix = tf.reduce_sum(matrix[:, :, tf.newaxis] * plane_rotation(angle, rank, plane), axis=1)
    return matrix


def affine(
    image: tf.Tensor, matrix: tf.Tensor, *, order: Literal[0, 1] = 1, fill: float | tf.Tensor = 0.0
) -> tf.Tensor:
    """Resample an image on a grid that is mapped about the image's centre.

    The output voxel at ``x`` takes the input's value at ``matrix @ (x - centre) + centre``, as in
    `scipy.ndimage.affine_transform` with mode "grid-constant".

    Args:
        image: ``(*spatial, channels)`` with a static shape.
        matrix: ``(rank, rank)`` float32.
        order: 0 takes the nearest voxel (any dtype, for masks), 1 interpolates linearly (floating point).
        fill: Value outside the image, a number or a scalar.
    """
    *spatial, channels = image.shape
    # A border of one voxel stands for all that is outside: no lookup has to ask whether it is inside.
    padded = tf.pad(image, [*[[1, 1]] * len(spatial), [0, 0]], constant_values=tf.cast(fill, image.dtype))
    strides = [math.prod(padded.shape[axis + 1 : -1]) for axis in range(len(spatial))]
    points = _points(tf.cast(matrix, tf.float32), spatial)
    voxels = tf.reshape(padded, (-1, channels))
    if order == 0:
        return tf.gather(voxels, _flat([tf.floor(point + 0.5) for point in points], strides))
    return _interpolate(voxels, points, padded.shape[:-1], strides)


def resize_box(image: tf.Tensor, origin: tf.Tensor, size: tf.Tensor, shape: Sequence[int] | None = None) -> tf.Tensor:
    """Cut a box out of an image and resize it linearly.

    The borders of the two grids coincide (half-voxel centres) and nothing outside the box is seen, as in
    `skimage.transform.resize` with order 1, mode "edge" and no smoothing before. A box that has the size already is
    cut out bit for bit.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape.
        origin: ``(rank,)`` int32, the box's first voxel.
        size: ``(rank,)`` int32, at least 1, so that the box lies in the image.
        shape: ``(*spatial)`` of the result; the image's if not given.

    Returns:
        ``(*shape, channels)``.
    """
    *spatial, channels = image.shape
    shape = spatial if shape is None else shape
    box = tf.slice(image, tf.pad(origin, [[0, 1]]), tf.concat([size, [channels]], axis=0))
    for axis, length in enumerate(shape):
        # Linear interpolation is a product of one along each axis: two looked-up planes each, rather than 2**rank.
        last = size[axis] - 1
        points = (tf.range(length, dtype=tf.float32) + 0.5) * (tf.cast(size[axis], tf.float32) / length) - 0.5
        points = tf.clip_by_value(points, 0.0, tf.cast(last, tf.float32))
        low = tf.cast(tf.floor(points), tf.int32)
        weight = tf.reshape(points - tf.floor(points), [-1, *[1] * (len(spatial) - axis)])
        first, second = (tf.gather(box, index, axis=axis) for index in (low, tf.minimum(low + 1, last)))
        box = first + weight * (second - first)
    return tf.ensure_shape(box, (*shape, channels))


def _points(matrix: tf.Tensor, spatial: Sequence[int]) -> list[tf.Tensor]:
    """Return where each output voxel of `affine` looks: per axis ``(*spatial)``, from 0 in the padded image."""
    rank = len(spatial)
    grid = [
        tf.reshape(tf.range(size, dtype=tf.float32) - (size - 1) / 2, [-1, *[1] * (rank - 1 - axis)])
        for axis, size in enumerate(spatial)
    ]
    points = []
    for row, size in zip(tf.unstack(matrix), spatial, strict=True):
        # Sums of products rather than a matmul, which may run in reduced precision on a GPU and shift voxels.
        point = sum(factor * axis for factor, axis in zip(tf.unstack(row), grid, strict=True)) + (size + 1) / 2
        points.append(tf.clip_by_value(point, 0.0, size + 1.0))
    return points


def _interpolate(
    voxels: tf.Tensor, points: Sequence[tf.Tensor], spatial: Sequence[int], strides: Sequence[int]
) -> tf.Tensor:
    """Return the multilinear interpolation ``(*places, channels)`` of ``voxels`` (number, channels).

    Args:
        voxels: All voxels of an image, in raster order.
        points: Per axis ``(*places)``, inside the image.
        spatial: ``(*spatial)`` of the image.
        strides: Distance of neighbours in ``voxels``, per axis.
    """
    low = [tf.minimum(tf.floor(point), size - 2.0) for point, size in zip(points, spatial, strict=True)]
    weights = [(1 - (point - start), point - start) for point, start in zip(points, low, strict=True)]
    first = _flat(low, strides)
    result = tf.constant(0, voxels.dtype)
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        weight = tf.cast(math.prod(pair[side] for pair, side in zip(weights, corner, strict=True)), voxels.dtype)
        step = sum(side * stride for side, stride in zip(corner, strides, strict=True))
        result += weight[..., tf.newaxis] * tf.gather(voxels, first + step)
    return result


def _flat(index: Sequence[tf.Tensor], strides: Sequence[int]) -> tf.Tensor:
    """Return the numbers in raster order, int32, of voxels at whole coordinates given per axis."""
    return sum(tf.cast(axis, tf.int32) * stride for axis, stride in zip(index, strides, strict=True))
