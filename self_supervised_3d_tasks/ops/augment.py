"""Random changes of an image, and of its mask for segmentation.

Drawing the parameters is apart from applying them, so that image and mask cannot be given different geometry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import geometry, intensity, patches, seeds

ROTATION_PROBABILITY = 0.5
ZOOM_RANGE = (0.85, 1.15)
COLOUR_PROBABILITY = 0.7
BRIGHTNESS_RANGE = (-0.125, 0.125)
CONTRAST_RANGE = (0.5, 1.5)

# Of another view of a scan.
Transformation = Literal["flip", "translation", "brightness", "contrast", "rotation", "zoom"]
VIEW_PROBABILITY = 0.5
VIEW_ZOOM_PROBABILITY = 0.15
VIEW_ZOOM_RANGE = (0.8, 1.2)


@dataclass(frozen=True)
class Rules:
    """What the changes of a scan may be; by default those of the predecessor.

    Args:
        flip_axes: Spatial axes that may be flipped; None: all.
        degrees: Largest angle of a turn, in [0, 180]; None: any angle in 3D, no turn in 2D.
        swap_labels: Pairs of labels that are exchanged in a mask whose left-right axis is flipped: of paired organs. No
            label is in two pairs.
        left_right_axis: The axis from left to right.
        zoom_only: No flip, no turn and no change of colours; each axis is zoomed by U(0.85, 1.15), in 2D and in 3D.
    """

    flip_axes: tuple[int, ...] | None = None
    degrees: float | None = None
    swap_labels: tuple[tuple[int, int], ...] = ()
    left_right_axis: int = 0
    zoom_only: bool = False

    def axes(self, rank: int) -> tuple[int, ...]:
        """Return the axes that may be flipped."""
        return tuple(range(rank)) if self.flip_axes is None else self.flip_axes

    def largest_angle(self, rank: int) -> float:
        """Return the largest angle of a turn in degrees."""
        return (180.0 if rank == 3 else 0.0) if self.degrees is None else self.degrees

    def can_turn(self, rank: int) -> bool:
        """Return whether a scan can come out as if it were turned by right angles: two flips are a half turn."""
        return not self.zoom_only and (len(self.axes(rank)) > 1 or self.largest_angle(rank) >= 45)


AS_PREDECESSOR = Rules()


class Augmentation(NamedTuple):
    """What is done to one example, in the order of the attributes.

    Attributes:
        flips: ``(rank,)`` booleans.
        offset: ``(rank,)`` int32, in voxels, see `geometry.translate`.
        resample: Scalar boolean: whether ``matrix`` is applied at all.
        matrix: ``(rank, rank)``, see `geometry.affine`.
        brightness: Added to the intensities, which are in [0, 1].
        contrast: Factor about each channel's mean.
    """

    flips: tf.Tensor
    offset: tf.Tensor
    resample: tf.Tensor
    matrix: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor

    @classmethod
    def none(cls, rank: int) -> Augmentation:
        """Return the parameters that change nothing."""
        flips, offset = tf.zeros(rank, tf.bool), tf.zeros(rank, tf.int32)
        return cls(flips, offset, tf.constant(False), tf.eye(rank), tf.constant(0.0), tf.constant(1.0))


def augment_segmentation(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, rules: Rules = AS_PREDECESSOR
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a randomly changed copy of an image and its mask, the same for the same seed.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape, about [0, 1].
        mask: ``(*spatial,)`` integers.
        seed: ``(2,)`` int32.
        rules: What the changes may be.
    """
    change = draw(seed, len(mask.shape), rules)
    return apply(image, change), apply_to_mask(mask, change, rules)


def augment_image(image: tf.Tensor, seed: tf.Tensor, rules: Rules = AS_PREDECESSOR) -> tf.Tensor:
    """Return a randomly changed copy of an image without a mask, the same for the same seed.

    As `augment_segmentation`, but a 2D image keeps its brightness and contrast.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape, about [0, 1].
        seed: ``(2,)`` int32.
        rules: What the changes may be.
    """
    rank = image.shape.rank - 1
    plain = Augmentation.none(rank)
    if rules.zoom_only:
        return apply(image, plain._replace(resample=tf.constant(True), matrix=_zoom(seed, rank)))
    change = draw(seed, rank, rules)
    if rank == 2:
        change = change._replace(brightness=plain.brightness, contrast=plain.contrast)
    return apply(image, change)


def draw(seed: tf.Tensor, rank: int, rules: Rules = AS_PREDECESSOR) -> Augmentation:
    """Draw the parameters as in the predecessor's loaders, within the rules.

    Every axis that may be is flipped with probability 1/2. The scan is turned with probability 1/2, in a random plane
    of two axes and by a uniform angle of either sign; in 2D each axis is zoomed by U(0.85, 1.15) before. With
    probability 0.7 brightness changes by U(-0.125, 0.125) and contrast by a factor U(0.5, 1.5).
    """
    resample, matrix = _turn(seed, rank, rules.largest_angle(rank))
    if rank == 2:
        # Turned and zoomed in one resampling: every further one would blur more.
        matrix = tf.where(resample, matrix, tf.eye(rank)) * tf.linalg.diag_part(_zoom(seed, rank))[tf.newaxis, :]
        resample = tf.constant(True)
    colour = _uniform(seed, 4) < COLOUR_PROBABILITY
    brightness = tf.where(colour, _uniform(seed, 5, *BRIGHTNESS_RANGE), 0.0)
    contrast = tf.where(colour, _uniform(seed, 6, *CONTRAST_RANGE), 1.0)
    flips = geometry.draw_flips(seeds.fold(seed, 0), rank) & [axis in rules.axes(rank) for axis in range(rank)]
    offset = tf.zeros(rank, tf.int32)
    return Augmentation(flips, offset, resample, matrix, brightness, contrast)


def draw_view(
    seed: tf.Tensor, spatial_shape: tuple[int, ...], transformations: Collection[Transformation], max_translation: float
) -> Augmentation:
    """Draw the parameters of another view of a scan: the same content, looking different.

    A transformation draws the same numbers whether or not others are asked for.

    Args:
        seed: ``(2,)`` int32.
        spatial_shape: ``(*spatial)`` of the image.
        transformations: "flip": each axis, probability 1/2. "translation": each axis by a whole number of
            voxels, uniform. "brightness": U(-0.125, 0.125), probability 1/2. "contrast": a factor
            U(0.5, 1.5), probability 1/2. "rotation": in every plane of two axes with probability 1/2; one
            half of them by a multiple of 90 degrees, the other by any angle. "zoom": each axis magnified by
            U(0.8, 1.2), probability 0.15.
        max_translation: Largest translation, as a share of each axis.
    """
    rank = len(spatial_shape)
    change = Augmentation.none(rank)
    if "flip" in transformations:
        change = change._replace(flips=geometry.draw_flips(seeds.fold(seed, 0), rank))
    if "translation" in transformations:
        limits = [int(max_translation * size) for size in spatial_shape]
        offset = patches.draw_offsets(seeds.fold(seed, 1), 1, [2 * limit for limit in limits])[0]
        change = change._replace(offset=offset - tf.constant(limits))
    colours = ("brightness", 2, BRIGHTNESS_RANGE, 0.0), ("contrast", 4, CONTRAST_RANGE, 1.0)
    for name, number, limits, neutral in colours:
        if name in transformations:
            drawn = _uniform(seed, number) < VIEW_PROBABILITY
            change = change._replace(**{name: tf.where(drawn, _uniform(seed, number + 1, *limits), neutral)})
    if "rotation" in transformations:
        drawn, matrix = _rotations(seeds.fold(seed, 6), rank)
        change = change._replace(resample=drawn, matrix=matrix)
    if "zoom" in transformations:
        drawn = _uniform(seed, 7) < VIEW_ZOOM_PROBABILITY
        factors = tf.random.stateless_uniform((rank,), seeds.fold(seed, 8), *VIEW_ZOOM_RANGE)
        # Rotated and zoomed in one resampling: every further one would blur more.
        scale = tf.where(drawn, 1 / factors, 1.0)
        change = change._replace(resample=change.resample | drawn, matrix=change.matrix * scale[tf.newaxis, :])
    return change


def apply(image: tf.Tensor, change: Augmentation) -> tf.Tensor:
    """Apply drawn parameters to an image ``(*spatial, channels)``; what comes from outside is 0."""
    image = _move(image, change, order=1)
    return intensity.brightness_contrast(image, change.brightness, change.contrast)


def apply_to_mask(mask: tf.Tensor, change: Augmentation, rules: Rules = AS_PREDECESSOR) -> tf.Tensor:
    """Apply the same geometry to a mask ``(*spatial,)`` by nearest neighbour, and no colour.

    Where left and right are exchanged, so are the labels of the rules.
    """
    moved = _move(mask[..., tf.newaxis], change, order=0)[..., 0]
    exchanged = moved
    for pair in rules.swap_labels:
        for label, other in (pair, reversed(pair)):
            exchanged = tf.where(moved == label, tf.constant(other, moved.dtype), exchanged)
    return tf.where(change.flips[rules.left_right_axis], exchanged, moved) if rules.swap_labels else moved


def _move(image: tf.Tensor, change: Augmentation, *, order: Literal[0, 1]) -> tf.Tensor:
    image = geometry.translate(geometry.flip(image, change.flips), change.offset)
    return tf.cond(change.resample, lambda: geometry.affine(image, change.matrix, order=order), lambda: image)


def _uniform(seed: tf.Tensor, number: int, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    return tf.random.stateless_uniform((), seeds.fold(seed, number), low, high)


def _zoom(seed: tf.Tensor, rank: int) -> tf.Tensor:
    return tf.linalg.diag(tf.random.stateless_uniform((rank,), seeds.fold(seed, 1), *ZOOM_RANGE))


def _turn(seed: tf.Tensor, rank: int, degrees: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return whether a scan is turned, and the rotation by at most ``degrees`` in one plane."""
    drawn = _uniform(seed, 7) < (ROTATION_PROBABILITY if degrees else 0.0)
    limit = math.radians(degrees)
    angle = _uniform(seed, 2, -limit, limit)
    planes = list(itertools.combinations(range(rank), 2))
    plane = tf.random.stateless_uniform((), seeds.fold(seed, 3), 0, len(planes), tf.int32)
    return drawn, tf.stack([geometry.plane_rotation(angle, rank, axes) for axes in planes])[plane]


def _rotations(seed: tf.Tensor, rank: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return whether any plane is turned, and the product of the rotations in all planes."""
    matrix, any_drawn = tf.eye(rank), tf.constant(False)
    for number, plane in enumerate(itertools.combinations(range(rank), 2)):
        plane_seed = seeds.fold(seed, number)
        drawn = _uniform(plane_seed, 0) < VIEW_PROBABILITY
        quarters = _uniform(plane_seed, 1, 0.0, 4.0)
        right = _uniform(plane_seed, 2) < VIEW_PROBABILITY
        angle = tf.where(right, tf.floor(quarters), quarters) * (math.pi / 2)
        rotation = geometry.plane_rotation(tf.where(drawn, angle, 0.0), rank, plane)
        # As sums of products, see `geometry.affine`.
        matrix = tf.reduce_sum(matrix[:, :, tf.newaxis] * rotation[tf.newaxis], axis=1)
        any_drawn |= drawn
    return any_drawn, matrix
