"""Augmentation of an image and its mask for segmentation, as in the predecessor's loaders.

Drawing the parameters is apart from applying them, so that image and mask cannot be given different geometry.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.ops import geometry, intensity, seeds

tf = lazy.load("tensorflow")

ROTATION_PROBABILITY = 0.5
ZOOM_RANGE = (0.85, 1.15)
COLOUR_PROBABILITY = 0.7
BRIGHTNESS_RANGE = (-0.125, 0.125)
CONTRAST_RANGE = (0.5, 1.5)


class Augmentation(NamedTuple):
    """What is done to one example.

    Attributes:
        flips: ``(rank,)`` booleans.
        resample: Scalar boolean: whether ``matrix`` is applied at all.
        matrix: ``(rank, rank)``, see `geometry.affine`.
        brightness: Added to the intensities, which are in [0, 1].
        contrast: Factor about each channel's mean.
    """

    flips: tf.Tensor
    resample: tf.Tensor
    matrix: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor


def augment_segmentation(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a randomly changed copy of an image and its mask, the same for the same seed.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape, about [0, 1].
        mask: ``(*spatial,)`` integers.
        seed: ``(2,)`` int32.
    """
    return apply(image, mask, draw(seed, mask.shape.rank))


def draw(seed: tf.Tensor, rank: int) -> Augmentation:
    """Draw the parameters.

    Every axis is flipped with probability 1/2. In 3D the volume is turned by any angle in a random plane with
    probability 1/2; in 2D each axis is zoomed by U(0.85, 1.15). With probability 0.7 brightness changes by
    U(-0.125, 0.125) and contrast by a factor U(0.5, 1.5).
    """

    def uniform(number: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, seeds.fold(seed, number), low, high)

    if rank == 2:
        resample, matrix = tf.constant(True), tf.linalg.diag(uniform(1, *ZOOM_RANGE, shape=(rank,)))
    else:
        resample = uniform(1) < ROTATION_PROBABILITY
        planes = list(itertools.combinations(range(rank), 2))
        rotations = [geometry.plane_rotation(uniform(2, 0.0, 2 * math.pi), rank, plane) for plane in planes]
        plane = tf.random.stateless_uniform((), seeds.fold(seed, 3), 0, len(planes), tf.int32)
        matrix = tf.stack(rotations)[plane]
    colour = uniform(4) < COLOUR_PROBABILITY
    return Augmentation(
        flips=geometry.draw_flips(seeds.fold(seed, 0), rank),
        resample=resample,
        matrix=matrix,
        brightness=tf.where(colour, uniform(5, *BRIGHTNESS_RANGE), 0.0),
        contrast=tf.where(colour, uniform(6, *CONTRAST_RANGE), 1.0),
    )


def apply(image: tf.Tensor, mask: tf.Tensor, change: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply drawn parameters: the mask gets the same geometry by nearest neighbour, and no colour."""
    image, mask = geometry.flip(image, change.flips), geometry.flip(mask, change.flips)
    image, mask = tf.cond(
        change.resample,
        lambda: (
            geometry.affine(image, change.matrix, order=1),
            geometry.affine(mask[..., tf.newaxis], change.matrix, order=0)[..., 0],
        ),
        lambda: (image, mask),
    )
    return intensity.brightness_contrast(image, change.brightness, change.contrast), mask
