"""Random changes of a view ``(*spatial, channels)``: those that what is to be restored shares, and those it does not.

Zhou et al. 2023, "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
Image Analysis" (PCRLv2): its t and t'. Each is the same for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import geometry, intensity, patches, seeds


@dataclass(frozen=True)
class Deformation:
    """A flip from left to right and a linear map about the centre; what comes from outside has the view's minimum.

    Args:
        flip: Whether every second view is flipped: the first axis of a volume, the second of an image.
        scale: Each axis is magnified by U(1 ± ``scale``), in [0, 1).
        degrees: Rotation by U(± ``degrees``) in each plane.
    """

    flip: bool
    scale: float
    degrees: float

    def cut_out(
        self, image: tf.Tensor, origins: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, ...], seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the views of some boxes, each deformed in its own way: ``(number, *shape, channels)``.

        Args:
            image: ``(*spatial, channels)``.
            origins: ``(number, rank)`` int32, the first voxels of the boxes; static number.
            sizes: ``(number, rank)`` int32, in voxels.
            shape: ``(*spatial)`` that each view is resized to.
            seed: ``(2,)`` int32.
        """

        def view(box: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            number, origin, size = box
            return self.apply(geometry.resize_box(image, origin, size, shape), seeds.fold(seed, number))

        return _each(view, (tf.range(sizes.shape[0]), origins, sizes), (*shape, image.shape[-1]))

    def apply(self, view: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the view in another pose."""
        rank = view.shape.rank - 1
        if self.flip:
            # The files of volumes begin with the axis from left to right, those of photographs with the rows.
            left_right = tf.constant([rank == 3, rank == 2])
            view = geometry.flip(view, geometry.draw_flips(seeds.fold(seed, 0), 1) & left_right)
        if self.scale == self.degrees == 0:
            return view
        matrix = geometry.draw_affine(seeds.fold(seed, 1), rank, scale=self.scale, degrees=self.degrees)
        return geometry.affine(view, matrix, fill=tf.reduce_min(view))


@dataclass(frozen=True)
class Corruption:
    """Blur, noise, a bent contrast and cells that trade places, in this order; 0 leaves one of them out.

    Args:
        blur_sigma: Largest width of the Gaussian in voxels, drawn from U(0, ``blur_sigma``).
        noise_sigma: Largest standard deviation of the noise, in the view's units, drawn from U(0,
            ``noise_sigma``). The sum is clipped to [0, 1].
        gamma: Intensities, clipped to [0, 1], become x^g with log g from U(± ``gamma``).
        swap_share: Share of the cells that trade places, in [0, 1].
        swap_cell: ``(*spatial)`` of a cell in voxels.
        standardize: Whether `apply_to_each` gives each channel mean 0 and standard deviation 1 at last.
    """

    blur_sigma: float
    noise_sigma: float
    gamma: float
    swap_share: float
    swap_cell: Sequence[int]
    standardize: bool = False

    def apply(self, view: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the view with its shapes where they were, but for the cells."""
        own = [seeds.fold(seed, draw) for draw in range(5)]
        if self.blur_sigma > 0:
            sigma = tf.random.stateless_uniform((), own[0], 0.0, self.blur_sigma)
            view = intensity.gaussian_blur(view, sigma, max_sigma=self.blur_sigma)
        if self.noise_sigma > 0:
            sigma = tf.random.stateless_uniform((), own[1], 0.0, self.noise_sigma)
            view = tf.clip_by_value(view + sigma * tf.random.stateless_normal(view.shape, own[2]), 0.0, 1.0)
        if self.gamma > 0:
            exponent = tf.exp(tf.random.stateless_uniform((), own[3], -self.gamma, self.gamma))
            view = tf.clip_by_value(view, 0.0, 1.0) ** exponent
        return swap_cells(view, own[4], cell=self.swap_cell, share=self.swap_share)

    def apply_to_each(self, views: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return views ``(number, *spatial, channels)``, each corrupted in its own way."""

        def corrupt(view: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            number, image = view
            image = self.apply(image, seeds.fold(seed, number))
            return patches.standardize(image[tf.newaxis])[0] if self.standardize else image

        return _each(corrupt, (tf.range(views.shape[0]), views), tuple(views.shape[1:]))


def _each(function: Callable[[Any], tf.Tensor], elements: Any, shape: tuple[int, ...]) -> tf.Tensor:
    """Map a function over the first axis of some tensors; its graph is built once for all views of that shape."""
    mapped = tf.map_fn(function, elements, fn_output_signature=tf.TensorSpec(shape, tf.float32))
    return tf.ensure_shape(mapped, (elements[0].shape[0], *shape))


def swap_cells(image: tf.Tensor, seed: tf.Tensor, *, cell: Sequence[int], share: float) -> tf.Tensor:
    """Let pairs of cells of a grid trade places; the grid begins at a random voxel.

    Unlike blocks anywhere, exchanged one after the other, cells cannot overlap: all move in one gather. Voxels that do
    not fill a cell stay.

    Args:
        image: ``(*spatial, channels)`` with a static shape, of any dtype.
        seed: ``(2,)`` int32.
        cell: ``(*spatial)`` of a cell, in voxels; the image has two of them or more.
        share: Share of the cells that move, in [0, 1], rounded to whole pairs but at least one; 0 changes nothing.
    """
    if share == 0:
        return image
    *spatial, channels = image.shape
    # A late start costs a cell, but never the second one of an axis: there is always a pair.
    limits = np.minimum(np.subtract(cell, 1), spatial - cell * np.minimum(np.floor_divide(spatial, cell), 2))
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
    moved = tf.reshape(tf.transpose(moved, np.argsort(order)), tf.shape(grid))

    around = tf.stack([offset, spatial - offset - extent], axis=1)
    inside = tf.ensure_shape(tf.pad(tf.ones(extent, tf.bool), around), spatial)
    moved = tf.ensure_shape(tf.pad(moved, tf.pad(around, [[0, 1], [0, 0]])), image.shape)
    return tf.where(inside[..., tf.newaxis], moved, image)


def _draw_pairs(seed: tf.Tensor, number: tf.Tensor, share: float) -> tf.Tensor:
    """Return a permutation of ``number`` cells, at least two, that exchanges random pairs of them."""
    wanted = tf.cast(tf.round(share * tf.cast(number, tf.float32) / 2), tf.int32)
    chosen = tf.argsort(tf.random.stateless_uniform([number], seed))[: 2 * tf.clip_by_value(wanted, 1, number // 2)]
    return tf.tensor_scatter_nd_update(tf.range(number), chosen[:, tf.newaxis], chosen[::-1])
