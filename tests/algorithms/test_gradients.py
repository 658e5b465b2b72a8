"""What reaches the encoder: a head that normalizes over the batch, or a mean of what was just normalized, lets nothing
through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.unet import unet

SHAPES = {2: (24, 24, 1), 3: (24, 24, 24, 1)}


def normalizing_encoder(shape):
    """A convolution, each channel of which is normalized over the voxels of its map: their mean is the shift."""
    image = keras.Input(shape)
    x = layers.convolution(len(shape) - 1, 8, 3, activation="relu", seed=0, name="conv")(image)
    shift = keras.initializers.Constant(0.1)  # of 0, tcpc would compare the directions of rounding errors
    norm = keras.layers.GroupNormalization(8, beta_initializer=shift, name="norm")
    return keras.Model(image, norm(x), name="encoder")


def plain_unet(shape, normalization):
    """The default encoder, with as many levels as small scans have."""
    return unet(shape, num_layers=1, normalization=normalization)


def gradients(name, rank, number, normalization=None, encoder=None):
    """The largest gradient of each of the encoder's trainable tensors, in one step of a task under its default keys.

    But relative patch location asks for one place: each question is a row of its head's batch.
    """
    task = registry.algorithm(name)
    keys = {"normalization": normalization, "queries_per_image": 1}
    keys = {key: keys[key] for key in keys.keys() & registry.options(task)}
    task = task(SHAPES[rank], **keys)
    images = np.random.default_rng(0).uniform(0.1, 1, (number, *SHAPES[rank])).astype(np.float32)
    pairs = [task.make_example(tf.constant(image), tf.constant([i, 0])) for i, image in enumerate(images)]
    inputs, targets = (tf.stack(values) for values in zip(*pairs, strict=True))
    model = task.make_model(encoder or plain_unet(task.encoder_shape, normalization), seed=1)
    with tf.GradientTape() as tape:
        loss = task.loss(targets, model(inputs, training=True))
    weights = model.get_layer("encoder").trainable_weights
    found = tape.gradient(loss, [weight.value for weight in weights])
    return {weight.path: np.abs(value).max() for weight, value in zip(weights, found, strict=True)}


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("name", ["rotation", "jigsaw", "rubiks_cube", "relative_patch_location"])
def test_a_single_scan_trains_the_encoder(name, rank):
    found = gradients(name, rank, 1)
    dead = [path for path, value in found.items() if not value > 1e-7]
    assert len(found) == 4 * 4  # kernel, bias, scale and shift of four convolutions
    assert dead == []


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "rubiks_cube", "relative_patch_location"])
def test_a_head_that_normalizes_over_a_batch_of_one_lets_nothing_through(name):
    """Which is why it is refused."""
    assert max(gradients(name, 2, 1, "batch").values()) == 0
    assert max(gradients(name, 2, 3, "batch").values()) > 1e-6


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize(("name", "number"), [("rubiks_cube", 1), ("tcpc", 2)])
def test_a_pooled_map_trains_every_tensor_of_the_encoder(name, number, normalization, rank):
    found = gradients(name, rank, number, normalization)
    assert len(found) == 4 * 4
    assert [path for path, value in found.items() if not value > 1e-6] == []


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize(("name", "number"), [("rubiks_cube", 1), ("tcpc", 2)])
def test_a_map_of_which_no_channels_mean_tells_anything_trains_its_encoder(name, number, rank):
    """The mean of such a map is the same whatever it shows; that of its positive part is not."""
    shape = registry.algorithm(name)(SHAPES[rank]).encoder_shape
    found = gradients(name, rank, number, encoder=normalizing_encoder(shape))
    assert {path: value > 1e-5 for path, value in found.items()} == {
        "conv/kernel": True,
        "conv/bias": True,
        "norm/gamma": True,
        "norm/beta": True,
    }
