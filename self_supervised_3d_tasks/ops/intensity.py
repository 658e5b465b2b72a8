"""Changes of the intensities of an image ``(*spatial, channels)``; geometry stays as it is."""

from __future__ import annotations

import math

import numpy as np

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds


def brightness_contrast(image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """Add ``brightness`` and scale the distance to each channel's mean by ``contrast``, without clipping.

    Args:
        image: ``(*spatial, channels)`` float32.
        brightness: Scalar in units of the image's intensities.
        contrast: Scalar factor; 1 changes nothing.
    """
    mean = tf.reduce_mean(image, axis=range(image.shape.rank - 1), keepdims=True)
    return (image - mean) * contrast + mean + brightness


def jitter(images: tf.Tensor, seed: tf.Tensor, amount: float) -> tf.Tensor:
    """Change brightness and contrast of each image in its own way: + U(± ``amount``), times U(1 ± ``amount``).

    Args:
        images: ``(number, *spatial, channels)`` float32; static number.
        seed: ``(2,)`` int32.
        amount: Number in [0, 1); 0 changes nothing.
    """
    if amount == 0:
        return images
    number = images.shape[0]
    brightness = tf.random.stateless_uniform((number,), seeds.fold(seed, 1), -amount, amount)
    contrast = tf.random.stateless_uniform((number,), seeds.fold(seed, 2), 1 - amount, 1 + amount)
    changes = zip(*map(tf.unstack, (images, brightness, contrast)), strict=True)
    return tf.stack([brightness_contrast(*change) for change in changes])


def centre_scale(image: tf.Tensor) -> tf.Tensor:
    """Return (x − mean) / max |x − mean| of each channel, in [-1, 1]; a constant channel becomes zeros.

    Args:
        image: ``(*spatial, channels)`` float32.
    """
    axes = list(range(image.shape.rank - 1))
    # From the minimum, since the mean of a constant channel is rounded and the rest would be blown up.
    shifted = image - tf.reduce_min(image, axes, keepdims=True)
    centred = shifted - tf.reduce_mean(shifted, axes, keepdims=True)
    return tf.math.divide_no_nan(centred, tf.reduce_max(tf.abs(centred), axes, keepdims=True))


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor, *, max_sigma: float) -> tf.Tensor:
    """Convolve an image with a Gaussian along each axis; what lies outside is like the nearest voxel inside.

    As `scipy.ndimage.gaussian_filter` with mode "nearest" and the radius that it takes for ``max_sigma``.

    Args:
        image: ``(*spatial, channels)`` float32 with a static shape.
        sigma: Scalar, standard deviation in voxels; 0 changes nothing.
        max_sigma: The largest ``sigma``, which alone decides how far the Gaussian reaches.
    """
    radius = int(4 * max_sigma + 0.5)  # a Gaussian ends at four standard deviations, as in scipy
    steps = np.arange(-radius, radius + 1)
    # Below a thousandth of a voxel every other weight is exactly 0 and the image stays as it is.
    weights = tf.exp(-0.5 * tf.square(tf.constant(steps, tf.float32) / tf.maximum(sigma, 1e-3)))
    weights /= tf.reduce_sum(weights)
    for axis, length in enumerate(image.shape[:-1]):
        rows = np.arange(length).repeat(steps.size)
        columns = np.clip(np.add.outer(np.arange(length), steps), 0, length - 1).ravel()
        # One product with a matrix per axis; steps beyond the border add up in its first and last column.
        matrix = tf.scatter_nd(np.stack([rows, columns], axis=1), tf.tile(weights, [length]), (length, length))
        lines = tf.reshape(image, (-1, length, math.prod(image.shape[axis + 1 :])))
        image = tf.reshape(tf.matmul(matrix, lines), image.shape)
    return image
