"""Random boxes for two overlapping views of an image, and for small views inside the box around those."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds
from self_supervised_3d_tasks.ops.boxes import draw_integers

NUM_CANDIDATES = 64

Size = tuple[int, ...]


@dataclass(frozen=True)
class OverlappingBoxes:
    """Two boxes of given sizes whose intersection over union is large enough.

    The pair of sizes is uniform among those that can reach it, the first box at a uniform place. The second one's
    place is uniform among those that reach it: places where no single axis rules it out are drawn, and the first that
    does is taken. Should none of `NUM_CANDIDATES` do, the second box overlaps the first as far as their sizes allow,
    which is possible wherever the first one lies.

    Args:
        spatial_shape: ``(*spatial)`` of the image, in voxels.
        sizes: Sizes ``(*spatial)`` of a box, in voxels.
        min_iou: Least intersection over union, in (0, 1].

    Raises:
        UserError: A size does not fit into the image or no two can overlap enough; names the keys of the task.
    """

    spatial_shape: Size
    sizes: tuple[Size, ...]
    min_iou: float

    def __post_init__(self) -> None:
        """Check that there are two boxes."""
        for size in self.sizes:
            if any(map(operator.gt, size, self.spatial_shape)):
                raise UserError(
                    f"global_sizes, data_dim: a view of {list(size)} voxels is no box in {list(self.spatial_shape)}; "
                    "leave it out or enlarge data_dim"
                )
        if not self.pairs:
            raise UserError(
                f"global_sizes, min_iou: no two views of {_listed(self.sizes)} voxels can have an intersection over "
                f"union of {self.min_iou:g}; add sizes or reduce min_iou"
            )

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Ordered pairs of indices of sizes that can overlap enough, a size with itself among them."""
        return tuple(
            (i, j)
            for i, j in itertools.product(range(len(self.sizes)), repeat=2)
            if math.prod(map(min, self.sizes[i], self.sizes[j])) >= self._least_overlap(i, j)
        )

    def draw(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return origins and sizes of the boxes, each ``(2, rank)`` int32, the same for the same seed.

        Args:
            seed: ``(2,)`` int32.
        """
        pair = tf.random.stateless_uniform((), seeds.fold(seed, 0), 0, len(self.pairs), tf.int32)
        sizes = tf.gather(tf.constant(self.sizes), tf.constant(self.pairs)[pair])
        first, second = tf.unstack(sizes)
        origin = draw_integers(seeds.fold(seed, 1), 1, tf.zeros_like(first), self.spatial_shape - first)[0]

        least = tf.constant([self._least_overlap(i, j) for i, j in self.pairs], tf.int64)[pair]
        most = tf.minimum(first, second)
        # What an axis has to contribute even if the boxes overlap as far as they can along all the others.
        sides = tf.cast(most, tf.int64)
        least_sides = tf.cast(-(-least * sides // tf.reduce_prod(sides)), tf.int32)
        candidates = self._places(seeds.fold(seed, 2), NUM_CANDIDATES, origin, sizes, least_sides)
        fallback = self._places(seeds.fold(seed, 3), 1, origin, sizes, most)
        places = tf.concat([candidates, fallback], axis=0)
        reaches = _overlap(origin, first, places, second) >= least
        place = places[tf.argmax(tf.cast(reaches, tf.int32))]  # the first that reaches it; the last one always does
        return tf.stack([origin, place]), sizes

    def _least_overlap(self, i: int, j: int) -> int:
        """Return the voxels that two boxes have to share: V∩ / (V1 + V2 - V∩) is at least the bound."""
        total = math.prod(self.sizes[i]) + math.prod(self.sizes[j])
        # The product may be rounded either way.
        return math.ceil(total * self.min_iou / (1 + self.min_iou) - 1e-6)

    def _places(self, seed: tf.Tensor, number: int, origin: tf.Tensor, sizes: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        """Return places ``(number, rank)`` of a second box that shares ``sides`` (rank,) or more with the first."""
        first, second = tf.unstack(sizes)
        low = tf.maximum(origin + sides - second, 0)
        high = tf.minimum(origin + first - sides, self.spatial_shape - second)
        return draw_integers(seed, number, low, high)


@dataclass(frozen=True)
class InnerBoxes:
    """Boxes inside another one; the size of each is uniform among those that fit, and so is its place.

    Args:
        sizes: Sizes ``(*spatial)`` of a box, in voxels.
        count: Number of boxes.
    """

    sizes: tuple[Size, ...]
    count: int

    def check(self, least_outer: Size) -> None:
        """Check that there is a box in each that is as large as ``least_outer`` ``(*spatial)`` or larger.

        Raises:
            UserError: There may be none; names the keys of the task.
        """
        if all(any(map(operator.gt, size, least_outer)) for size in self.sizes):
            raise UserError(
                f"local_sizes: none of {_listed(self.sizes)} voxels is a box in the smallest region that local views "
                f"may have to lie in, {list(least_outer)}; add a smaller local size"
            )

    def draw(self, seed: tf.Tensor, origin: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return origins and sizes of the boxes, each ``(count, rank)`` int32, the same for the same seed.

        Args:
            seed: ``(2,)`` int32.
            origin: ``(rank,)`` int32 of the outer box.
            size: ``(rank,)`` int32 of the outer box, into which one of the sizes fits.
        """
        fitting = tf.where(tf.reduce_all(tf.constant(self.sizes) <= size, axis=1))[:, 0]
        last = tf.size(fitting)[tf.newaxis] - 1
        choices = draw_integers(seeds.fold(seed, 0), self.count, tf.zeros_like(last), last)[:, 0]
        sizes = tf.gather(tf.constant(self.sizes), tf.gather(fitting, choices))
        return draw_integers(seeds.fold(seed, 1), self.count, origin, origin + size - sizes), sizes


def bounding_box(origins: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return origin and size, each ``(rank,)``, of the smallest box that contains all boxes.

    Args:
        origins: ``(number, rank)`` int32.
        sizes: ``(number, rank)`` int32.
    """
    origin = tf.reduce_min(origins, axis=0)
    return origin, tf.reduce_max(origins + sizes, axis=0) - origin


def _overlap(origin: tf.Tensor, size: tf.Tensor, origins: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Return the voxels, int64, that a box shares with each of others; the arguments are broadcast."""
    sides = tf.minimum(origin + size, origins + sizes) - tf.maximum(origin, origins)
    return tf.reduce_prod(tf.cast(tf.maximum(sides, 0), tf.int64), axis=-1)


def _listed(sizes: tuple[Size, ...]) -> str:
    return ", ".join(str(list(size)) for size in sizes)
