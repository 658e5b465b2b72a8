"""Changes of intensities against numpy and scipy."""

import keras  # noqa: F401
import numpy as np
import pytest
import scipy.ndimage
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


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 5, 2)])
def test_centred_and_scaled_channels_lie_in_minus_one_to_one(shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32) ** 3
    image[..., 1] = 100 * image[..., 1] - 7
    axes = tuple(range(len(shape) - 1))
    scaled = intensity.centre_scale(tf.constant(image)).numpy()
    centred = image - image.mean(axes)
    np.testing.assert_allclose(scaled, centred / np.abs(centred).max(axes), atol=1e-5)
    np.testing.assert_allclose(np.abs(scaled).max(axes), 1, rtol=1e-6)
    np.testing.assert_allclose(scaled.mean(axes), 0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_centred_and_scaled_constant_channels_are_zeros(value):
    image = np.full((21, 21, 21, 2), value, np.float32)
    image[:7, ..., 1] = 0.5
    scaled = intensity.centre_scale(tf.constant(image)).numpy()
    np.testing.assert_array_equal(scaled[..., 0], 0)
    assert np.abs(scaled[..., 1]).max() == pytest.approx(1)


SHAPES = [(9, 12, 2), (9, 7, 5, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_that_of_scipy(shape, sigma):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    blur = tf.function(lambda sigma: intensity.gaussian_blur(tf.constant(image), sigma, max_sigma=2.0))
    result = blur(tf.constant(sigma))
    expected = scipy.ndimage.gaussian_filter(
        image, (*[sigma] * (len(shape) - 1), 0), mode="nearest", radius=(*[8] * (len(shape) - 1), 0)
    )
    assert result.shape == shape
    np.testing.assert_allclose(result, expected, atol=1e-5)
    if sigma == 2.0:  # the radius is scipy's own
        expected = scipy.ndimage.gaussian_filter(image, sigma, mode="nearest", axes=range(len(shape) - 1))
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("max_sigma", [2.0, 0.0])
def test_blur_of_no_width_changes_nothing(shape, max_sigma):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(
        intensity.gaussian_blur(tf.constant(image), tf.constant(0.0), max_sigma=max_sigma), image
    )


def test_a_blurred_constant_image_is_the_same():
    image = np.full((6, 5, 4, 1), 0.7, np.float32)
    np.testing.assert_allclose(intensity.gaussian_blur(image, tf.constant(1.5), max_sigma=2.0), image, rtol=1e-6)
