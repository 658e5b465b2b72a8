"""Rematerialization, against the same network that keeps all of its maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.models import rematerialization
from self_supervised_3d_tasks.models.decoders.unet import unet
from self_supervised_3d_tasks.models.rematerialization import rematerialize

NETWORKS = {
    "unet": {"num_layers": 1, "enc_filters": 4},
    "unet_with_state": {"num_layers": 1, "enc_filters": 4, "normalization": "batch", "dropout": 0.5},
    "residual": {"unet_preset": "paper", "num_layers": 1, "enc_filters": 4, "dropout": 0.3},
    "resnet18": {"width_multiplier": 0.1, "normalization": "batch"},
    "vgg11": {"width_multiplier": 0.1},
}


def make_encoder(name, rank=2, side=8):
    family = name if name in registry.known("encoder") else "unet"
    return registry.encoder(family)((*[side] * rank, 1), **NETWORKS[name], seed=3)


def make_pair(name, decoder, rank=2, side=8):
    """The same network twice, the second one rematerialized."""
    models = []
    for _ in range(2):
        encoder = make_encoder(name, rank, side)
        models.append(unet(encoder, num_classes=2, dropout=0.2, seed=5) if decoder else encoder)
    rematerialize(models[1], encoder)
    return models


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def step_of(model):
    """Outputs and gradients of one pass of training, as a graph."""

    @tf.function
    def run(image):
        with tf.GradientTape() as tape:
            output = model(image, training=True)
            loss = tf.reduce_mean(tf.sin(3.0 * output))
        return output, tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    return run


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("unet_with_state", True),
        ("residual", False),
        pytest.param("unet", True, marks=pytest.mark.slow),
        pytest.param("resnet18", False, marks=pytest.mark.slow),
        pytest.param("vgg11", False, marks=pytest.mark.slow),
    ],
)
def test_outputs_gradients_and_state_are_those_of_the_whole_network(name, decoder):
    """Twice, so that seeds of dropout and running statistics have moved."""
    image = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    plain, model = make_pair(name, decoder)
    before = values(plain.non_trainable_variables)
    steps = step_of(plain), step_of(model)
    for _ in range(2):
        (output, slopes), (output_again, slopes_again) = (step(image) for step in steps)
        np.testing.assert_allclose(output_again, output, atol=1e-6)
        assert len(slopes) == len(slopes_again) > 5
        for slope, again in zip(slopes, slopes_again, strict=True):
            np.testing.assert_allclose(again, slope, atol=1e-6)
    for state, again, old in zip(
        values(plain.non_trainable_variables), values(model.non_trainable_variables), before, strict=True
    ):
        np.testing.assert_allclose(again, state, rtol=1e-6)
        assert not np.array_equal(state, old)


def test_a_frozen_encoder_stays_as_it_is():
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    encoder = make_encoder("unet_with_state")
    model = unet(encoder, num_classes=2, seed=5)
    rematerialize(model, encoder)
    encoder.trainable = False
    model.compile("sgd", "mse")
    before = values(encoder.weights)
    model.train_on_batch(image, np.zeros((2, 8, 8, 2), "float32"))
    np.testing.assert_equal(values(encoder.weights), before)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("unet", "level_0_norm_1 pyramid_0 level_1_norm_1 pyramid_1 final_pool"),
        ("residual", "pyramid_0 pyramid_1 final_pool"),
    ],
)
def test_kept_are_inputs_of_convolutions_and_the_pyramid(name, kept):
    assert [layer.name for layer in rematerialization._cuts(make_encoder(name))] == kept.split()


def test_the_graph_of_a_step_computes_convolutions_again():
    def count(model):
        def run(image):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(image, training=True))
            return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

        graph = tf.function(run).get_concrete_function(tf.TensorSpec((1, 8, 8, 1))).graph
        return sum(operation.type == "Conv2D" for operation in graph.get_operations())

    plain, model = make_pair("unet", decoder=False)
    assert (count(plain), count(model)) == (4, 8)


def test_what_is_saved_is_the_plain_network(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    plain, model = make_pair("unet_with_state", decoder=False)
    outer = keras.Input((8, 8, 1))
    nested = keras.Model(outer, model(outer))
    for number, network in enumerate((model, nested)):
        save_model(network, tmp_path / f"{number}.keras")
        again = load_model(tmp_path / f"{number}.keras")
        np.testing.assert_allclose(again.predict_on_batch(image), plain.predict_on_batch(image), atol=1e-6)
    model.save_weights(tmp_path / "one.weights.h5")
    plain.save_weights(tmp_path / "other.weights.h5")
    plain.load_weights(tmp_path / "one.weights.h5")
    assert (tmp_path / "one.weights.h5").stat().st_size == (tmp_path / "other.weights.h5").stat().st_size
