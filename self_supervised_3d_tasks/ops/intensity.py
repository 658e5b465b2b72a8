"""Changes of the intensities of an image ``(*spatial, channels)``; geometry stays as it is."""

from __future__ import annotations

from self_supervised_3d_tasks import lazy

tf = lazy.load("tensorflow")


def brightness_contrast(image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """Add ``brightness`` and scale the distance to each channel's mean by ``contrast``, without clipping.

    Args:
        image: ``(*spatial, channels)`` float32.
        brightness: Scalar in units of the image's intensities.
        contrast: Scalar factor; 1 changes nothing.
    """
    mean = tf.reduce_mean(image, axis=range(image.shape.rank - 1), keepdims=True)
    return (image - mean) * contrast + mean + brightness


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
