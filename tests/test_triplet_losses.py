"""Triplet losses: by hand, and by slow loops over every triplet."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.losses import triplet as triplet_losses
from self_supervised_3d_tasks.losses.triplet import triplet_hard_loss, triplet_loss, triplet_semihard_loss

METRICS = ("L2", "squared-L2", "angular")
# One class at 0 and 1, the other at 3 and 7.
LINE = np.array([[0], [1], [3], [7]], np.float32), np.array([0, 0, 1, 1])


def draws(count=25):
    """Codes with labels of which every class occurs, sometimes once."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(4, 9))
        labels = rng.permutation([0, 0, 1, *rng.integers(0, 3, number - 3)]).astype(np.int32)
        yield labels, rng.normal(size=(number, 3)).astype(np.float32)


def slow_distance(a, b, metric):
    a, b = a.astype(float), b.astype(float)
    if metric == "angular":
        return 1 - a @ b / math.sqrt((a @ a) * (b @ b))
    squared = float(((a - b) ** 2).sum())
    return squared if metric == "squared-L2" else math.sqrt(squared)


def triplets(labels, codes, metric):
    """Yield per anchor its distances to its positives and to its negatives."""
    everyone = range(len(labels))
    for i in everyone:
        distances = [slow_distance(codes[i], codes[j], metric) for j in everyone]
        positives = [distances[j] for j in everyone if j != i and labels[j] == labels[i]]
        yield positives, [distances[j] for j in everyone if labels[j] != labels[i]]


def slow_hard(labels, codes, metric, margin):
    return [max(0, max(p, default=0) - min(n) + margin) for p, n in triplets(labels, codes, metric)]


def slow_semihard(labels, codes, metric, margin):
    """The sum of each anchor's pairs and the number of pairs."""
    sums, count = [], 0
    for positives, negatives in triplets(labels, codes, metric):
        chosen = [min((n for n in negatives if n > p), default=max(negatives)) for p in positives]
        sums.append(sum(max(0, p - n + margin) for p, n in zip(positives, chosen, strict=True)))
        count += len(positives)
    return np.array(sums), count


@pytest.mark.parametrize(
    ("positive", "negative", "margin", "expected"),
    [(0.0, 4.0, 1.0, 0.0), (0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.3, 0.3), (2.0, 0.5, 1.0, 2.5), (1.0, 1.5, 1.0, 0.5)],
)
def test_triplet_loss_by_hand(positive, negative, margin, expected):
    value = triplet_loss(np.float32([positive]), np.float32([negative]), margin=margin)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_soft_triplet_loss_by_hand_and_without_overflow():
    value = triplet_loss(np.float32([1, 1, 1000]), np.float32([1, 3, 0]), soft=True)
    np.testing.assert_allclose(value, [math.log(2), math.log1p(math.exp(-2)), 1000], rtol=1e-6)


def test_mined_losses_by_hand():
    codes, labels = LINE
    # Anchor 3: the positive is 4 away, the nearest negative 2, and both negatives (2, 3) are nearer than it.
    np.testing.assert_allclose(triplet_hard_loss(labels, codes), [0, 0, 4 - 2 + 1, 0], rtol=1e-6)
    np.testing.assert_allclose(triplet_semihard_loss(labels, codes), [0, 0, 4 - 3 + 1, 0], rtol=1e-6)
    squared = {"distance_metric": "squared-L2", "margin": 2.0}
    np.testing.assert_allclose(triplet_hard_loss(labels, codes, **squared), [0, 0, 16 - 4 + 2, 0], rtol=1e-6)
    np.testing.assert_allclose(triplet_semihard_loss(labels, codes, **squared), [0, 0, 16 - 9 + 2, 0], rtol=1e-6)


def test_angular_distance_is_one_minus_the_cosine():
    codes = np.array([[2, 0], [0, 5], [-1, 0], [3, 3]], np.float32)
    values = triplet_hard_loss(np.array([0, 0, 1, 1]), codes, margin=3.0, distance_metric="angular")
    near, far = 1 - math.sqrt(0.5), 1 + math.sqrt(0.5)
    np.testing.assert_allclose(values, [1 - near + 3, 1 - near + 3, far - 1 + 3, far - near + 3], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_mined_losses_agree_with_slow_loops(metric, margin):
    fell_back = 0
    for labels, codes in draws():
        hard = triplet_hard_loss(labels, codes, margin=margin, distance_metric=metric)
        np.testing.assert_allclose(hard, slow_hard(labels, codes, metric, margin), rtol=1e-4, atol=1e-5)
        semihard = triplet_semihard_loss(labels, codes, margin=margin, distance_metric=metric)
        sums, count = slow_semihard(labels, codes, metric, margin)
        np.testing.assert_allclose(semihard, sums * len(labels) / count, rtol=1e-4, atol=1e-5)
        assert float(tf.reduce_mean(semihard)) == pytest.approx(sums.sum() / count, rel=1e-4, abs=1e-5)
        fell_back += any(max(p, default=0) > max(n) for p, n in triplets(labels, codes, metric))
    assert fell_back > 3


def test_soft_hard_loss_agrees_with_slow_loops():
    for labels, codes in draws(10):
        differences = [max(p, default=0) - min(n) for p, n in triplets(labels, codes, "L2")]
        values = triplet_hard_loss(labels, codes, soft=True)
        np.testing.assert_allclose(values, np.log1p(np.exp(differences)), rtol=1e-5, atol=1e-6)


def test_labels_may_be_a_column():
    codes, labels = LINE
    for loss in (triplet_hard_loss, triplet_semihard_loss):
        np.testing.assert_array_equal(loss(labels[:, None], codes), loss(labels, codes))


def test_without_positives():
    codes, labels = np.array([[0], [0.5]], np.float32), np.array([0, 1])
    np.testing.assert_allclose(triplet_hard_loss(labels, codes), [0.5, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(triplet_semihard_loss(labels, codes), [0, 0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("loss", [triplet_hard_loss, triplet_semihard_loss])
def test_equal_and_zero_codes_cost_the_margin_and_have_finite_gradients(loss, metric):
    labels = np.array([0, 0, 1, 1])
    for codes in (tf.ones((4, 3)), tf.zeros((4, 3))):
        with tf.GradientTape() as tape:
            tape.watch(codes)
            values = loss(labels, codes, margin=0.7, distance_metric=metric)
        np.testing.assert_allclose(values, 0.7, rtol=1e-6)
        assert np.isfinite(tape.gradient(values, codes)).all()


@pytest.mark.parametrize("loss", [triplet_hard_loss, triplet_semihard_loss])
def test_half_precision_codes_give_float32(loss):
    codes, labels = LINE
    assert loss(labels, tf.cast(codes, tf.float16)).dtype == tf.float32


def test_unknown_metric():
    codes, labels = LINE
    with pytest.raises(ValueError, match="distance_metric.*'angular'.*received 'cosine'"):
        triplet_hard_loss(labels, codes, distance_metric="cosine")


@pytest.mark.parametrize("loss", [triplet_hard_loss, triplet_semihard_loss])
def test_keras_trains_with_it(loss):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 8)
    points = (rng.normal(size=(16, 4)) + labels[:, None]).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=keras.initializers.Ones())])
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    history = [model.train_on_batch(points, labels) for _ in range(40)]
    assert history[-1] < 0.8 * history[0]


def test_unit_length():
    codes = tf.constant([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(codes)
        units = triplet_losses.unit_length(codes)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0, -1], [0, 0]], rtol=1e-6)
    assert np.isfinite(tape.gradient(units, codes)).all()


def test_semihard_negative_for_one_positive_each():
    distances = np.array([[0.5, 1.0, 2.0], [3.0, 0.2, 4.0], [1.0, 2.0, 9.0]], np.float32)
    positive = np.diag(distances)[:, None]
    negative = triplet_losses.semihard_negative(positive, tf.constant(distances), tf.constant(~np.eye(3, dtype=bool)))
    # The third scan's positive is farther than every negative: the farthest of them.
    np.testing.assert_array_equal(negative, [[1.0], [3.0], [2.0]])
