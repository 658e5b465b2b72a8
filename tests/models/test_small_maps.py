"""Convolutions of small maps in bfloat16, which oneDNN gets wrong on a CPU, against float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.models import layers


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def rounded(*shape):
    """Return normal numbers that bfloat16 can hold."""
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def passes(layer, image, weights):
    """Return the map, and the gradients of image and kernel, float32."""
    layer.build(image.shape)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        tape.watch(image)
        output = tf.cast(layer(image), tf.float32)
        loss = tf.reduce_sum(output * rounded(*output.shape))
    return [output, *tape.gradient(loss, [image, layer.kernel.value])]


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize(
    "spatial",
    [(1,) * 3, (2,) * 3, (3,) * 3, (4,) * 3, (8,) * 3, (1, 8, 8), (2, 8, 8), (8, 2, 2), (1, 1), (2, 2), (8, 8)],
)
def test_maps_and_gradients_are_those_of_float32(spatial, channels, bfloat16):
    image, kernel = rounded(2, *spatial, channels), rounded(*[3] * len(spatial), channels, 8)
    weights = [kernel / 8, rounded(8)]
    options = {"map_shape": image.shape, "seed": 0, "name": "conv"}
    found = passes(layers.convolution(len(spatial), 8, 3, **options), image, weights)
    keras.config.set_dtype_policy("float32")
    expected = passes(layers.convolution(len(spatial), 8, 3, **options), image, weights)
    for ours, exact in zip(found, expected, strict=True):
        error = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
        assert error < 0.02  # 8 bits of a number; NaN is an error too


@pytest.mark.parametrize(
    ("rank", "kernel", "shape", "precise"),
    [
        *((3, 3, (None, 2, 8, 8, 4), True), (3, 3, (None, 3, 2, 2, 4), False), (3, 1, (None, 1, 1, 1, 4), False)),
        *((3, 3, (None, None, None, None, 4), True), (3, 7, (None, 6, 6, 6, 4), True)),
        *((2, 3, (None, 1, 1, 4), False), (3, 3, (), False)),
    ],
)
def test_which_layers_compute_in_float32(rank, kernel, shape, precise, bfloat16):
    layer = layers.convolution(rank, 2, kernel, map_shape=shape, seed=0, name="conv")
    assert layer.compute_dtype == ("float32" if precise else "bfloat16")
