"""Random boxes in an image, of a given share of its volume and of moderate aspect."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds

NUM_CANDIDATES = 32
NUM_FALLBACKS = 1001  # shares that are tried for a box that always fits


@dataclass(frozen=True)
class RandomBox:
    """Boxes whose share of an image's voxels is uniform in a range, at a uniform place.

    The sides of a box are L · s^(1/rank) · r, rounded to voxels: L are the image's sides, s is the share, and r are
    factors exp(U(±log max_aspect)) divided by their geometric mean. What counts is the share after rounding: a
    draw out of range, or with a side longer than the image's, is repeated.

    Args:
        spatial_shape: ``(*spatial)`` of the image, in voxels.
        volume: Least and largest share, bounds included, in (0, 1]. The whole image is no box.
        max_aspect: Largest factor before the division, at least 1.

    Raises:
        UserError: No box of about the image's aspect has such a share; names the keys of the task.
    """

    spatial_shape: tuple[int, ...]
    volume: tuple[float, float]
    max_aspect: float

    def __post_init__(self) -> None:
        """Check that there is a box."""
        low, high = self.volume
        if low > high:
            raise UserError(f"part_volume: expected [least, largest], received [{low:g}, {high:g}]; swap them")
        if not self._fallbacks().size:
            raise UserError(
                f"part_volume, data_dim: no box of whole voxels and about the aspect of {list(self.spatial_shape)} has "
                f"a share of {low:g} to {high:g} of its voxels; widen the range or enlarge data_dim"
            )

    @property
    def voxels(self) -> tuple[int, int]:
        """Least and largest number of voxels of a box."""
        total = math.prod(self.spatial_shape)
        low, high = self.volume
        # Of a share such as 0.1 the product may be rounded either way.
        return math.ceil(low * total - 1e-6), min(math.floor(high * total + 1e-6), total - 1)

    @property
    def fallback(self) -> tuple[int, ...]:
        """A size in range, about the middle of those with the image's aspect: where every draw is out of range."""
        fallbacks = self._fallbacks()
        return tuple(fallbacks[len(fallbacks) // 2].tolist())

    def draw(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return origin and size of a box, each ``(rank,)`` int32, the same for the same seed.

        Args:
            seed: ``(2,)`` int32.
        """
        sizes = tf.concat([self._candidates(seeds.fold(seed, 0)), [self.fallback]], axis=0)
        least, largest = self.voxels
        voxels = tf.reduce_prod(tf.cast(sizes, tf.int64), axis=1)
        fits = (voxels >= least) & (voxels <= largest) & tf.reduce_all(sizes <= self.spatial_shape, axis=1)
        size = sizes[tf.argmax(tf.cast(fits, tf.int32))]  # the first that fits; the last one always does
        return draw_integers(seeds.fold(seed, 1), 1, tf.zeros_like(size), self.spatial_shape - size)[0], size

    def _candidates(self, seed: tf.Tensor) -> tf.Tensor:
        """Return sizes ``(NUM_CANDIDATES, rank)`` int32, in range or not."""
        rank = len(self.spatial_shape)
        share = tf.random.stateless_uniform((NUM_CANDIDATES, 1), seeds.fold(seed, 0), *self.volume)
        limit = math.log(self.max_aspect)
        aspect = (2 * tf.random.stateless_uniform((NUM_CANDIDATES, rank), seeds.fold(seed, 1)) - 1) * limit
        aspect -= tf.reduce_mean(aspect, axis=1, keepdims=True)
        sizes = tf.cast(self.spatial_shape, tf.float32) * tf.exp(tf.math.log(share) / rank + aspect)
        return tf.maximum(tf.cast(tf.round(sizes), tf.int32), 1)

    def _fallbacks(self) -> np.ndarray:
        """Return sizes in range with the image's aspect, each axis rounded either way, ``(number, rank)``."""
        rank = len(self.spatial_shape)
        edges = np.linspace(*self.volume, NUM_FALLBACKS)[:, None, None] ** (1 / rank) * self.spatial_shape
        either_way = list(itertools.product((0, 1), repeat=rank))
        sizes = np.clip(np.floor(edges) + either_way, 1, self.spatial_shape).astype(np.int64).reshape(-1, rank)
        least, largest = self.voxels
        voxels = sizes.prod(axis=1)
        return sizes[(voxels >= least) & (voxels <= largest)]


def draw_integers(seed: tf.Tensor, number: int, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Return ``(number, axes)`` int32, uniform in ``low .. high`` (inclusive), which are broadcast to it.

    Integer draws accept only a scalar bound, hence a product.
    """
    count = high - low + 1
    draws = tf.random.stateless_uniform((number, count.shape[-1]), seed) * tf.cast(count, tf.float32)
    return low + tf.minimum(tf.cast(draws, tf.int32), count - 1)
