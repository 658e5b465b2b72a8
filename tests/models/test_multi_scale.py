"""The network that restores views and compares their codes at every scale."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.models import multi_scale, siamese
from self_supervised_3d_tasks.models.encoders.unet import unet

CHANNELS = {2: 2, 3: 1}


def build(rank, normalization="batch", filters=2):
    shapes = ((*[size] * rank, CHANNELS[rank]) for size in (8, 4))
    network = multi_scale.MultiScaleNetwork(*shapes, 2, "paper", normalization, 0.0)
    options = {"enc_filters": filters, "num_layers": 2, "pooling": "none", "dropout": 0.0}
    encoder = unet((*[None] * rank, CHANNELS[rank]), **options, normalization=normalization, seed=1)
    return network.build(encoder, seed=2, name="views")


def some_views(rank):
    generator, size = np.random.default_rng(0), {"global_views": 8, "targets": 8, "local_views": 4}
    shapes = {name: (3, 2, *[side] * rank, CHANNELS[rank]) for name, side in size.items()}
    return {name: tf.constant(generator.uniform(size=shape), "float32") for name, shape in shapes.items()}


def pyramids(model, inputs):
    """Return the maps of both global views and the local views, from passes of their own, in training mode."""
    network = keras.Sequential([model.get_layer("encoder"), model.get_layer("decoder")])
    local = tf.reshape(inputs["local_views"], (-1, *inputs["local_views"].shape[2:]))
    return [network(x, training=True) for x in (*tf.unstack(inputs["global_views"], axis=1), local)]


@pytest.mark.parametrize("rank", [2, 3])
def test_the_terms_are_those_of_the_views(rank):
    model, inputs = build(rank, filters=3), some_views(rank)
    maps = pyramids(model, inputs)
    terms = model(inputs, training=True).numpy()
    assert terms.shape == (3, 2, 4 + 4)
    assert np.abs(terms[:, :, 2:-1]).max() <= 1 + 1e-6
    for scale, features in enumerate(zip(*maps, strict=True)):
        head = model.get_layer(f"restoration_{scale + 1}")
        for view in range(2):
            errors = (head(features[view], training=True) - inputs["targets"][:, view]) ** 2
            np.testing.assert_allclose(
                terms[:, scale, view], np.mean(errors, axis=tuple(range(1, rank + 2))), rtol=1e-3
            )
        branches = []
        for x in features:
            pooled = np.mean(np.maximum(x, 0), axis=tuple(range(1, rank + 1)))
            code = model.get_layer(f"scale_{scale + 1}_norm")(pooled, training=True)
            prediction = model.get_layer(f"scale_{scale + 1}_predictor")(code, training=True)
            branches.append(siamese.Branch(pooled, code, prediction))
        first, second, local = branches
        np.testing.assert_allclose(terms[:, scale, 2], siamese.comparison(first, second), atol=1e-3)
        for number in range(2):
            one = siamese.Branch(*(tf.reshape(x, (3, 2, -1))[:, number] for x in local))
            for view, other in enumerate((first, second)):
                column = terms[:, scale, 3 + 2 * number + view]
                np.testing.assert_allclose(column, siamese.comparison(one, other), atol=1e-3)


def test_all_that_leaves_the_encoder_is_its_last_map():
    """With that map fixed, the view makes no difference to any map of the decoder, nor to its restoration."""
    model = build(3, "none")
    pyramid = keras.Sequential([model.get_layer("encoder"), model.get_layer("decoder")])
    networks, two_views = [pyramid, multi_scale.restorer(model)], some_views(3)["targets"][0]

    def outputs():
        return [output.numpy() for output in tf.nest.flatten([network(two_views) for network in networks])]

    before = outputs()
    assert len(before) == 3
    assert not any(np.array_equal(*output) for output in before)
    bottom = model.get_layer("encoder").get_layer("level_2_conv_2")
    bottom.set_weights([np.zeros_like(bottom.kernel), np.ones_like(bottom.bias)])
    for output in outputs():
        np.testing.assert_array_equal(*output)


@pytest.mark.parametrize("rank", [2, 3])
def test_codes_of_the_global_views_before_and_after_their_normalization(rank):
    model, inputs = build(rank), some_views(rank)
    codes = keras.Model(model.inputs, multi_scale.codes(model))(inputs, training=True)
    assert list(codes) == ["scale_1", "scale_1_pooled", "scale_2", "scale_2_pooled"]
    maps = pyramids(model, inputs)[:2]
    for scale in range(2):
        pooled = np.stack([np.mean(tf.nn.relu(x[scale]), axis=tuple(range(1, rank + 1))) for x in maps], axis=1)
        np.testing.assert_allclose(codes[f"scale_{scale + 1}_pooled"], pooled, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(np.mean(codes[f"scale_{scale + 1}"], axis=0), 0, atol=1e-4)


def test_codes_differ_under_group_normalization_with_few_filters():
    """Where each channel is a group of its own, whose plain mean is the same for all scans."""
    model = build(2, "group", filters=4)
    pooled = keras.Model(model.inputs, multi_scale.codes(model)["scale_2_pooled"])(some_views(2))
    assert np.std(pooled, axis=0).min() > 1e-3
