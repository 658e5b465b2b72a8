"""Rotations by right angles, flips, enlarged boxes and affine resampling of an image ``(*spatial, channels)``."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from self_supervised_3d_tasks import lazy

tf = lazy.load("tensorflow")

Rotation = tuple[int, tuple[int, int]]

# (k, axes) of np.rot90, in the predecessor's numbering of the classes.
_ROTATIONS: dict[int, tuple[Rotation, ...]] = {
    2: tuple((k, (0, 1)) for k in range(4)),
    3: (
        *((k, (0, 1)) for k in (0, 1, 2, 3)),
        *((k, (1, 2)) for k in (3, 2, 1)),
        *((k, (0, 2)) for k in (3, 2, 1)),
    ),
}


def rotation_classes(shape: Sequence[int], axes: Literal["auto", "all"] = "auto") -> list[Rotation]:
    """Return the rotations by multiples of 90 degrees about one axis, the identity first.

    Args:
        shape: ``(*spatial, channels)``.
        axes: ``"all"``: 4 rotations in 2D, 10 in 3D. ``"auto"``: those of them that keep ``shape``.

    Returns:
        ``(k, (axis, axis))`` per class, with the meaning of `numpy.rot90`.
    """
    rotations = _ROTATIONS[len(shape) - 1]
    return [(k, (a, b)) for k, (a, b) in rotations if axes == "all" or k % 2 == 0 or shape[a] == shape[b]]


def rot90(image: tf.Tensor, k: int, axes: tuple[int, int]) -> tf.Tensor:
    """Rotate as `numpy.rot90` does: exact, by a transposition and reversals."""
    order = list(range(image.shape.rank))
    order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
    if k % 4 == 0:
        return image
    if k % 4 == 1:
        return tf.transpose(tf.reverse(image, [axes[1]]), order)
    if k % 4 == 2:
        return tf.reverse(image, list(axes))
    return tf.reverse(tf.transpose(image, order), [axes[1]])


def rotate(image: tf.Tensor, rotation_class: tf.Tensor, classes: Sequence[Rotation]) -> tf.Tensor:
    """Rotate an image by the class that a scalar tensor names.

    Args:
        image: ``(*spatial, channels)``.
        rotation_class: Integer scalar, an index into ``classes``.
        classes: From `rotation_classes`.
    """
    branches = [functools.partial(rot90, image, k, axes) for k, axes in classes]
    return tf.switch_case(tf.cast(rotation_class, tf.int32), branches)


def draw_flips(seed: tf.Tensor, rank: int, probability: float = 0.5) -> tf.Tensor:
    """Return ``(rank,)`` booleans: which spatial axes to flip, each with ``probability``."""
    return tf.random.stateless_uniform((rank,), seed) < probability


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


def affine(image: tf.Tensor, matrix: tf.Tensor, *, order: Literal[0, 1] = 1, fill: float = 0.0) -> tf.Tensor:
    """Resample an image on a grid that is mapped about the image's centre.

    The output voxel at ``x`` takes the input's value at ``matrix @ (x - centre) + centre``, as in
    `scipy.ndimage.affine_transform` with mode "grid-constant".

    Args:
        image: ``(*spatial, channels)`` with a static shape.
        matrix: ``(rank, rank)`` float32.
        order: 0 takes the nearest voxel (any dtype, for masks), 1 interpolates linearly (floating point).
        fill: Value outside the image.
    """
    *spatial, channels = image.shape
    rank = len(spatial)
    axes = [tf.range(size, dtype=tf.float32) - (size - 1) / 2 for size in spatial]
    grid = tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1), (-1, rank))
    # Sums of products rather than a matmul, which may run in reduced precision on a GPU and shift voxels.
    points = tf.reduce_sum(grid[:, tf.newaxis, :] * tf.cast(matrix, tf.float32), axis=-1)
    points += tf.constant([(size - 1) / 2 for size in spatial])
    voxels = tf.reshape(image, (-1, channels))
    if order == 0:
        sampled = _lookup(voxels, tf.cast(tf.floor(points + 0.5), tf.int32), spatial, fill)
    else:
        sampled = _interpolate(voxels, points, spatial, fill)
    return tf.reshape(sampled, image.shape)


def enlarge_box(image: tf.Tensor, origin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Cut a box out of an image and resize it linearly to the image's size.

    The borders of the two grids coincide (half-voxel centres) and nothing outside the box is seen, as in
    `skimage.transform.resize` with order 1 and mode "edge". A box as large as the image is the image, bit for bit.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape.
        origin: ``(rank,)`` int32, the box's first voxel.
        size: ``(rank,)`` int32, at least 1, so that the box lies in the image.
    """
    *spatial, channels = image.shape
    box = tf.slice(image, tf.pad(origin, [[0, 1]]), tf.concat([size, [channels]], axis=0))
    for axis, length in enumerate(spatial):
        # Linear interpolation is a product of one along each axis: two looked-up planes each, rather than 2**rank.
        last = size[axis] - 1
        points = (tf.range(length, dtype=tf.float32) + 0.5) * (tf.cast(size[axis], tf.float32) / length) - 0.5
        points = tf.clip_by_value(points, 0.0, tf.cast(last, tf.float32))
        low = tf.cast(tf.floor(points), tf.int32)
        weight = tf.reshape(points - tf.floor(points), [-1, *[1] * (len(spatial) - axis)])
        first, second = (tf.gather(box, index, axis=axis) for index in (low, tf.minimum(low + 1, last)))
        box = first + weight * (second - first)
    return tf.ensure_shape(box, image.shape)


def _interpolate(voxels: tf.Tensor, points: tf.Tensor, spatial: Sequence[int], fill: float) -> tf.Tensor:
    """Return the multilinear interpolation of ``voxels`` (number, channels) at ``points`` (number, rank)."""
    low = tf.floor(points)
    high_weight = points - low
    low = tf.cast(low, tf.int32)
    result = tf.zeros_like(voxels)
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        corner = tf.constant(corner)
        weight = tf.reduce_prod(tf.where(corner == 1, high_weight, 1 - high_weight), axis=-1, keepdims=True)
        result += tf.cast(weight, voxels.dtype) * _lookup(voxels, low + corner, spatial, fill)
    return result


def _lookup(voxels: tf.Tensor, index: tf.Tensor, spatial: Sequence[int], fill: float) -> tf.Tensor:
    """Return ``voxels`` (number, channels) at integer positions (number, rank), ``fill`` outside."""
    limits = tf.constant(list(spatial))
    inside = tf.reduce_all((index >= 0) & (index < limits), axis=-1, keepdims=True)
    strides = tf.constant([math.prod(spatial[axis + 1 :]) for axis in range(len(spatial))])
    flat = tf.reduce_sum(tf.clip_by_value(index, 0, limits - 1) * strides, axis=-1)
    return tf.where(inside, tf.gather(voxels, flat), tf.cast(fill, voxels.dtype))
