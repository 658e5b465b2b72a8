"""Siamese heads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.analysis import collapse
from self_supervised_3d_tasks.models import siamese


def build(*shapes, seed=0):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, siamese.branches(inputs, seed=seed, name="head"))


def random_maps(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(generator.normal(), 2, shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("training", [True, False])
def test_each_batch_is_pooled_and_normalized_by_itself(training):
    model = build((4, 4, 3), (4, 4, 3), (2, 2, 3))
    maps = random_maps((5, 4, 4, 3), (5, 4, 4, 3), (15, 2, 2, 3))
    for branch, x in zip(model(maps, training=training), maps, strict=True):
        pooled = np.maximum(x, 0).mean(axis=(1, 2))
        np.testing.assert_allclose(branch.pooled, pooled, atol=1e-5)
        expected = (pooled - pooled.mean(axis=0)) / np.sqrt(pooled.var(axis=0) + 1e-5)
        np.testing.assert_allclose(branch.code, expected, atol=1e-4)
        assert branch.prediction.shape == branch.code.shape


def test_codes_of_group_normalized_maps_differ():
    image = keras.Input((4, 4, 4, 8))
    maps = keras.layers.GroupNormalization(8)(image)  # one channel per group: the mean over a map is always 0
    (branch,) = siamese.branches([maps], seed=0, name="head")
    pooled = keras.Model(image, branch.pooled)(random_maps((5, 4, 4, 4, 8))[0] ** 3)
    assert np.ptp(pooled, axis=0).min() > 1e-2


def test_the_branches_share_their_weights_and_pooled_maps_and_codes_are_found_by_name():
    one, three = build((4, 4, 4, 3)), build((4, 4, 4, 3), (4, 4, 4, 3), (2, 2, 2, 3))
    assert one.count_params() == three.count_params()
    maps = random_maps((2, 4, 4, 4, 3), (2, 4, 4, 4, 3), (6, 2, 2, 2, 3))
    names = [f"head_{name}_{number}" for number in (1, 2, 3) for name in ("pooled", "code")]
    found = keras.Model(three.inputs, [three.get_layer(name).output for name in names])(maps)
    expected = [value for branch in three(maps) for value in (branch.pooled, branch.code)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_predictor_has_two_layers_and_seeds_decide_its_weights():
    model = siamese.predictor(4, seed=1, name="predictor")
    assert model.count_params() == (4 * 8 + 8) + 2 * 8 + (8 * 4 + 4)
    first, again, other = (
        siamese.predictor(4, seed=seed, name="predictor").get_layer("predictor_dense_1").kernel.numpy()
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_predictor_by_hand():
    model, x = siamese.predictor(3, seed=0, name="predictor"), np.random.default_rng(0).normal(size=(5, 3))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    first, offset_1, scale, shift, second, offset_2 = model.get_weights()
    hidden = x @ first + offset_1
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    expected = np.maximum(hidden * scale + shift, 0) @ second + offset_2
    np.testing.assert_allclose(model(x.astype("float32")), expected, rtol=1e-4, atol=1e-4)


def test_codes_of_a_batch_of_one_are_zeros():
    for branch in build((4, 4, 3), (2, 2, 3))(random_maps((1, 4, 4, 3), (1, 2, 2, 3))):
        np.testing.assert_array_equal(branch.code, np.zeros((1, 3)))


def branch(seed, shape=(5, 8)):
    generator = np.random.default_rng(seed)
    return siamese.Branch(*(tf.constant(generator.normal(size=shape), "float32") for _ in range(3)))


def cosine(a, b):
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_comparison_is_symmetric_in_range_and_least_for_equal_codes():
    for seed in range(20):
        a, b = branch(2 * seed), branch(2 * seed + 1)
        value = siamese.comparison(a, b).numpy()
        np.testing.assert_allclose(value, -(cosine(a.prediction, b.code) + cosine(b.prediction, a.code)) / 2, rtol=1e-4)
        np.testing.assert_array_equal(value, siamese.comparison(b, a))
        assert np.abs(value).max() <= 1 + 1e-6
    same = siamese.Branch(a.pooled, a.code, 3 * a.code)
    np.testing.assert_allclose(siamese.comparison(same, same), -np.ones(5), rtol=1e-5)


def test_only_predictions_get_a_gradient():
    a, b = branch(0), branch(1)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        value = siamese.comparison(a, b)
    (_, *from_a), (_, *from_b) = tape.gradient(value, [tuple(a), tuple(b)])
    for code, prediction in (from_a, from_b):
        assert code is None
        assert np.abs(prediction).min() > 0


def test_comparison_broadcasts_pairs():
    many, two = branch(0, (3, 6, 1, 4)), branch(1, (3, 1, 2, 4))
    values = siamese.comparison(many, two).numpy()
    assert values.shape == (3, 6, 2)
    for i, j in np.ndindex(6, 2):
        one = siamese.Branch(*(x[:, i, 0] for x in many)), siamese.Branch(*(x[:, 0, j] for x in two))
        np.testing.assert_allclose(values[:, i, j], siamese.comparison(*one), rtol=1e-5, atol=1e-6)


def toy_widths(steps=1000, every=100, size=32):
    """Rank and spread of the codes of a two-layer network in SimSiam's training: before it, and every 100 steps.

    The points have 16 directions in a space of 64; each view is a point with noise.
    """
    generator = np.random.default_rng(0)
    points = tf.constant(generator.normal(size=(512, 16)) @ generator.normal(size=(16, 64)) / 4, "float32")
    inputs = [keras.Input((1, 1, 64)) for _ in range(2)]
    first = keras.layers.Dense(64, "relu", kernel_initializer=keras.initializers.HeNormal(seed=1))
    second = keras.layers.Dense(size, kernel_initializer=keras.initializers.HeNormal(seed=2))
    a, b = siamese.branches([second(first(x)) for x in inputs], seed=0, name="toy")
    model = keras.Model(inputs, [siamese.comparison(a, b), a.code])
    optimizer = keras.optimizers.SGD(0.3, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train(start):
        for number in tf.range(start, start + every):
            seed = tf.stack([number, 0])
            chosen = tf.gather(points, tf.random.stateless_uniform((128,), seed, 0, 512, tf.int32))
            noise = tf.random.stateless_normal((2, 128, 64), seed + [0, 1], stddev=0.6)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(tf.unstack((chosen + noise)[:, :, None, None]), training=True)[0])
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)

    def width():
        codes = model([points[:, None, None]] * 2, training=True)[1].numpy()
        return collapse.Width(collapse.effective_rank(codes), collapse.spread(codes))

    found = [width()]
    for start in range(0, steps, every):
        train(tf.constant(start))
        found.append(width())
    return found


@pytest.mark.parametrize("affine", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_stop_gradient_keeps_the_codes_from_collapse(affine, monkeypatch):
    """The lesson of SimSiam: without it few directions are left, or where an offset can be learned, none."""
    if affine:
        ours = siamese._over_the_batch

        def normalization(name):
            return keras.layers.BatchNormalization(epsilon=1e-5) if name == "toy_norm" else ours(name)

        monkeypatch.setattr(siamese, "_over_the_batch", normalization)
    possible = 31
    healthy = toy_widths()
    assert healthy[-1].spread > 0.8
    assert healthy[-1].rank > 10
    assert not any(collapse.is_collapse(healthy[:number], possible) for number in range(1, len(healthy) + 1))
    monkeypatch.setattr(keras.ops, "stop_gradient", lambda x: x)
    collapsed = toy_widths()
    assert collapsed[-1].rank < healthy[-1].rank / 2
    assert collapsed[-1].spread < 0.3 if affine else collapsed[-1].spread > 0.8  # which alone would be blind
    assert collapse.is_collapse(collapsed, possible)
