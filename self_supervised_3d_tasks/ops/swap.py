"""Blocks of an image that trade places: a change of what lies where that keeps every intensity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import patches, seeds


def swap_cells(image: tf.Tensor, seed: tf.Tensor, *, cell: Sequence[int], share: float) -> tf.Tensor:
    """Let pairs of cells of a grid trade places; the grid begins at a random voxel.

    Unlike blocks anywhere, exchanged one after the other, cells cannot overlap: all move in one gather. Voxels that do
    not fill a cell stay.

    Args:
        image: ``(*spatial, channels)`` with a static shape, of any dtype.
        seed: ``(2,)`` int32.
        cell: ``(*spatial)`` of a cell, in voxels.
        share: Share of the cells that move, in [0, 1], rounded to whole pairs but at least one; 0 changes nothing.

    Raises:
        ValueError: The image has fewer than two cells.
    """
    *spatial, channels = image.shape
    most = [length // side for length, side in zip(spatial, cell, strict=True)]
    if min(most) < 1 or max(most) < 2:
        raise ValueError(f"an image of {spatial} voxels has fewer than two cells of {list(cell)}")
    if share <= 0:
        return image
    # A late start costs a cell, but never the second one of an axis: there is always a pair.
    limits = [
        min(side - 1, length - side * min(number, 2)) for length, side, number in zip(spatial, cell, most, strict=True)
    ]
    offset = patches.draw_offsets(seeds.fold(seed, 0), 1, limits)[0]
    numbers = (spatial - offset) // cell
    extent = numbers * cell
    grid = tf.slice(image, tf.pad(offset, [[0, 1]]), tf.concat([extent, [channels]], axis=0))

    # (numbers[0], cell[0], numbers[1], cell[1], ...): an even axis tells the cell, an odd one the place inside.
    split = tf.concat([tf.reshape(tf.stack([numbers, cell], axis=1), [-1]), [channels]], axis=0)
    rank = len(spatial)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank]
    cells = tf.transpose(tf.reshape(grid, split), order)
    sources = _draw_pairs(seeds.fold(seed, 1), tf.reduce_prod(numbers), share)
    moved = tf.reshape(tf.gather(tf.reshape(cells, [-1, *cell, channels]), sources), tf.gather(split, order))
    back = list(itertools.chain.from_iterable((axis, rank + axis) for axis in range(rank)))
    moved = tf.reshape(tf.transpose(moved, [*back, 2 * rank]), tf.shape(grid))

    around = tf.stack([offset, spatial - offset - extent], axis=1)
    inside = tf.ensure_shape(tf.pad(tf.ones(extent, tf.bool), around), spatial)
    moved = tf.ensure_shape(tf.pad(moved, tf.pad(around, [[0, 1], [0, 0]])), image.shape)
    return tf.where(inside[..., tf.newaxis], moved, image)


def _draw_pairs(seed: tf.Tensor, number: tf.Tensor, share: float) -> tf.Tensor:
    """Return a permutation of ``number`` cells, at least two, that exchanges random pairs of them."""
    wanted = tf.cast(tf.round(share * tf.cast(number, tf.float32) / 2), tf.int32)
    chosen = tf.argsort(tf.random.stateless_uniform([number], seed))[: 2 * tf.clip_by_value(wanted, 1, number // 2)]
    return tf.tensor_scatter_nd_update(tf.range(number), chosen[:, tf.newaxis], chosen[::-1])
