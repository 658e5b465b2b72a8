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
