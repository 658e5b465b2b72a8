"""Brightness and contrast."""

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import intensity


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 2)])
def test_moves_the_mean_and_scales_the_deviation_of_each_channel(shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    image[..., 1] *= 100
    changed = intensity.brightness_contrast(tf.constant(image), tf.constant(0.1), tf.constant(1.5)).numpy()
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(changed.mean(axes), image.mean(axes) + 0.1, rtol=1e-4)
    np.testing.assert_allclose(changed.std(axes), 1.5 * image.std(axes), rtol=1e-4)


def test_neutral_parameters_change_nothing():
    image = tf.random.stateless_uniform((4, 4, 1), [0, 1])
    np.testing.assert_allclose(intensity.brightness_contrast(image, 0.0, 1.0), image, atol=1e-6)
