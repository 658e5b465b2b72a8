"""Heads."""

from __future__ import annotations

import functools
import inspect

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.ops.sampling import Sampling


def encoder_of(*shape, filters=8):
    """An encoder whose output is ``shape`` with as many channels as ``filters``; without ``shape``, a vector."""
    image = x = keras.Input((*shape, 1) if shape else (5,))
    convolution = {0: keras.layers.Dense, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[len(shape)]
    x = convolution(filters, *([1] if shape else []), name="code")(x)
    return keras.Model(image, x, name="encoder")


def build(head, shape, *arguments, **options):
    x = keras.Input(shape)
    return keras.Model(x, head(x, *arguments, seed=0, **options))


@pytest.mark.parametrize(
    ("head", "arguments", "parameters", "normalized"),
    [
        # 16384 -> 2048 -> 1024 -> 10, a normalization after both hidden layers
        (heads.big_fully, (10,), 16385 * 2048 + 2049 * 1024 + 1025 * 10, 2048 + 1024),
        (heads.simple_multiclass, (), 16385 * 1024 + 1025 * 5, 1024),
    ],
)
def test_parameters_are_the_predecessors_with_batch_normalization(head, arguments, parameters, normalized):
    """Which has a running mean and variance beside scale and shift."""
    numbers = {
        kind: build(head, (4, 4, 4, 256), *arguments, normalization=kind).count_params()
        for kind in ("batch", "group", "layer", None, "none")
    }
    assert numbers["batch"] == parameters + 4 * normalized
    assert numbers["group"] == numbers["layer"] == numbers[None] == parameters + 2 * normalized
    assert numbers["none"] == parameters


@pytest.mark.parametrize("normalization", [None, "group", "layer", "none"])
def test_codes_are_told_apart_by_what_the_patches_of_a_scan_do_not_share(normalization):
    codes = np.random.default_rng(0).normal(5, [[[0.1]], [[3]]], size=(2, 4, 3)).astype("float32")
    x = keras.Input((4, 3))
    model = keras.Model(x, heads.told_apart(x, normalization))
    expected = (codes - codes.mean(axis=1, keepdims=True)) / np.sqrt(codes.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(model(codes), expected, atol=1e-4)
    np.testing.assert_allclose(model(codes + [[[100, -20, 3]]]), expected, atol=1e-2)  # what they share is gone
    assert model.count_params() == 0


def test_codes_stay_as_they_are_for_a_head_that_normalizes_over_the_batch():
    x = keras.Input((4, 3))
    assert heads.told_apart(x, "batch") is x


def test_parameters_of_one_dense_layer_are_the_predecessors():
    assert build(heads.softmax, (4, 4, 4, 256), 4).count_params() == 16385 * 4


@pytest.mark.parametrize("head", [heads.big_fully, heads.simple_multiclass])
def test_hidden_layers_are_normalized_in_groups_unless_told(head):
    def norms(**options):
        return [layer for layer in build(head, (4,), 3, **options).layers if "norm" in layer.name]

    for layer in norms():
        assert (type(layer), layer.groups) == (keras.layers.GroupNormalization, 8)
    for layer in norms(normalization="layer"):
        assert (type(layer), layer.groups) == (keras.layers.GroupNormalization, 1)
    for layer in norms(normalization="batch"):
        assert (type(layer), layer.momentum) == (keras.layers.BatchNormalization, 0.9)
    assert norms(normalization="none") == []


def test_group_normalization_of_a_hidden_layer_by_hand():
    """32 units are 8 groups of 4, each of mean 0 and variance 1 in every scan by itself."""
    model = build(heads.big_fully, (6,), 2, head_units=(32,), dropout_rate=0.0)
    hidden = keras.Model(model.input, [model.get_layer(name).output for name in ("head_dense_1", "head_norm_1")])
    before, after = hidden(np.random.default_rng(0).normal(size=(3, 6)).astype("float32"))
    groups = before.numpy().reshape(3, 8, 4)
    expected = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-3)
    np.testing.assert_allclose(after, expected.reshape(3, 32), atol=1e-4)


@pytest.mark.parametrize(("kind", "passes"), [(None, True), ("group", True), ("layer", True), ("batch", False)])
def test_only_a_batch_normalization_keeps_the_gradient_of_a_single_scan_to_itself(kind, passes):
    import tensorflow as tf

    model = build(heads.big_fully, (6,), 3, head_units=(32, 16), normalization=kind, dropout_rate=0.0)
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 6)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(np.array([1]), model(x, training=True))
    gradient = tape.gradient(loss, x).numpy()
    assert (np.abs(gradient).max() > 0) == passes


def test_a_head_with_batch_normalization_asks_for_three_scans():
    before = Sampling(examples_per_scan=4)
    assert heads.sampling(before, None) is before
    assert heads.sampling(before, "group") is before
    after = heads.sampling(before, "batch")
    assert (after.min_batch, after.examples_per_scan) == (3, 4)
    assert after.min_batch_because == "normalizes codes over the batch in its head"


def test_layer_order():
    model = build(heads.big_fully, (3, 3, 2), 6, head_units=(8, 4), name="top")
    names = [layer.name for layer in model.layers[1:]]
    assert names == [
        "top_flatten",
        *("top_dense_1", "top_norm_1", "top_dropout_1"),
        *("top_dense_2", "top_norm_2", "top_dropout_2"),
        "top_logits",
    ]


def test_a_code_is_not_flattened_and_dropout_can_be_left_out():
    model = build(heads.big_fully, (5,), 6, head_units=(8,), dropout_rate=0.0)
    assert [layer.name for layer in model.layers[1:]] == ["head_dense_1", "head_norm_1", "head_logits"]


@pytest.mark.parametrize("head", heads.HEADS.values())
def test_untrained_logits_say_that_every_class_is_equally_likely(head):
    model = build(head, (32,), 10)
    x = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    y = np.arange(64) % 10
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x, training=False))
    assert abs(float(loss) - np.log(10)) < 0.05 * np.log(10)


def test_logits_have_no_activation():
    model = build(heads.softmax, (4,), 3)
    x = np.full((1, 4), -100.0, "float32")
    kernel = model.get_layer("head_logits").get_weights()[0]
    np.testing.assert_allclose(model(x), x @ kernel, rtol=1e-5)


def test_names_lead_to_heads():
    assert heads.HEADS["big_fully"] is heads.big_fully
    assert list(heads.HEADS) == ["big_fully", "simple_multiclass", "softmax"]
    assert all("seed" in inspect.signature(head).parameters for head in heads.HEADS.values())


@pytest.mark.parametrize(
    ("shape", "pooling", "code"),
    [
        ((4, 3), "avg", 8),
        ((4, 3), "max", 8),
        ((4, 3), "none", 4 * 3 * 8),
        ((2, 3, 2), "avg", 8),
        ((2, 3, 2), "none", 2 * 3 * 2 * 8),
        ((), "avg", 8),  # a vector has nothing to pool
        ((), "none", 8),
    ],
)
@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        (heads.softmax, lambda code: (code + 1) * 6),
        (heads.simple_multiclass, lambda code: (code + 1) * 1024 + 2 * 1024 + 1025 * 6),
        (
            functools.partial(heads.big_fully, head_units=(10, 7)),
            lambda code: (code + 1) * 10 + 2 * 10 + 11 * 7 + 2 * 7 + 8 * 6,
        ),
        (
            functools.partial(heads.big_fully, head_units=(10, 7), normalization="batch"),
            lambda code: (code + 1) * 10 + 4 * 10 + 11 * 7 + 4 * 7 + 8 * 6,
        ),
    ],
)
def test_parameters_of_a_classifier(shape, pooling, code, head, parameters):
    encoder = encoder_of(*shape)
    model = heads.classifier(encoder, head, 6, global_pooling=pooling, seed=0)
    assert model.input_shape == encoder.input_shape
    assert model.output_shape == (None, 6)
    assert model.count_params() - encoder.count_params() == parameters(code)


def positive_mean(x, axis):
    """The mean of a map with all that is below 0 at 0."""
    return np.maximum(x, 0).mean(axis=axis)


@pytest.mark.parametrize(("pooling", "reduce"), [("avg", positive_mean), ("max", np.max)])
def test_a_classifier_pools_over_space(pooling, reduce):
    encoder = encoder_of(4, 2, 3)
    model = heads.classifier(encoder, heads.softmax, 5, global_pooling=pooling, seed=0)
    x = np.random.default_rng(0).normal(size=(2, 4, 2, 3, 1)).astype("float32")
    kernel, bias = model.get_layer("head_logits").get_weights()
    expected = reduce(encoder(x).numpy(), axis=(1, 2, 3)) @ kernel + bias
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


@pytest.mark.parametrize("bins", [2, 3])
def test_a_classifier_pools_to_bins(bins):
    """Bins of 6 voxels do not overlap, so they are the means of blocks, of what is positive in them."""
    encoder = encoder_of(6, 6)
    model = heads.classifier(encoder, heads.softmax, 5, pool_bins=bins, seed=0)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype("float32")
    kernel, bias = model.get_layer("head_logits").get_weights()
    assert kernel.shape == (bins**2 * 8, 5)
    width = 6 // bins
    means = positive_mean(encoder(x).numpy().reshape(2, bins, width, bins, width, 8), axis=(2, 4))
    np.testing.assert_allclose(model(x), means.reshape(2, -1) @ kernel + bias, atol=1e-6)
    added = model.layers[len(encoder.layers) :]
    assert all(layer.name.startswith("head_") for layer in added)


def test_one_bin_is_the_global_average():
    names = [
        [layer.name for layer in heads.classifier(encoder_of(4, 4), heads.softmax, 3, **options).layers[-3:]]
        for options in ({}, {"pool_bins": 1})
    ]
    assert names == [["head_relu", "head_pool", "head_logits"]] * 2


def test_the_mean_of_a_normalized_map_tells_what_it_shows():
    """A map whose channels are normalized over its voxels has a mean of 0; its positive part tells how it is spread."""
    image = keras.Input((8, 8, 1))
    encoder = keras.Model(image, keras.layers.GroupNormalization(1, name="norm")(image), name="encoder")
    model = heads.classifier(encoder, heads.softmax, 2, seed=0)
    codes = keras.Model(model.input, model.get_layer("head_pool").output)
    x = np.zeros((2, 8, 8, 1), "float32")
    x[0, 0, 0], x[1, :4] = 1, 1  # a single voxel, and half of them
    np.testing.assert_allclose(encoder(x).numpy().mean(axis=(1, 2, 3)), 0, atol=1e-5)
    # Of a share p of ones: sqrt(p (1 - p)), but for the epsilon.
    shares = np.array([1 / 64, 1 / 2])
    expected = shares * (1 - shares) / np.sqrt(shares * (1 - shares) + 1e-3)
    np.testing.assert_allclose(codes(x)[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_bins_are_of_the_average(pooling):
    with pytest.raises(
        ValueError, match=f"pool_bins: 2 bins per axis need global_pooling \"avg\", received '{pooling}'"
    ):
        heads.classifier(encoder_of(4, 4), heads.softmax, 3, global_pooling=pooling, pool_bins=2)


def test_a_vector_has_no_bins():
    with pytest.raises(UserError, match='pool_bins: 2 bins per axis need a map.*"pooling": "none"'):
        heads.classifier(encoder_of(), heads.softmax, 3, pool_bins=2)


def test_a_classifier_is_one_flat_graph_around_the_encoders_layers():
    encoder = encoder_of(4, 4)
    model = heads.classifier(encoder, heads.simple_multiclass, 3, seed=0)
    shared, added = model.layers[: len(encoder.layers)], model.layers[len(encoder.layers) :]
    assert all(one is other for one, other in zip(shared, encoder.layers, strict=True))
    assert added and all(layer.name.startswith("head_") for layer in added)
    encoder.trainable = False
    assert [weight.path for weight in model.trainable_variables if "code" in weight.path] == []
    assert len(model.trainable_variables) == 2 + 2 + 2  # dense, normalization, logits


def test_a_classifiers_logits_are_float32_and_seeded():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        models = [heads.classifier(encoder_of(4, 4), heads.softmax, 3, seed=seed) for seed in (0, 0, 1)]
    finally:
        keras.config.set_dtype_policy(policy)
    assert models[0].output.dtype == "float32"
    first, again, other = (model.get_layer("head_logits").kernel.numpy() for model in models)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
