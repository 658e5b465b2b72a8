"""Contrastive losses: by hand, by a slow formula, and how negatives are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.losses import contrastive as losses


def probabilities(logits):
    exponentials = np.exp(logits.astype("float64"))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_info_nce_by_hand_and_by_the_slow_formula():
    uniform = losses.info_nce(np.zeros((2, 3, 16), "float32"), np.zeros((2, 3), "int32"))
    np.testing.assert_allclose(uniform, [math.log(16)] * 2, rtol=1e-6)
    generator = np.random.default_rng(1)
    logits, positives = generator.normal(size=(2, 3, 5)).astype("float32"), generator.integers(0, 5, (2, 3))
    slow = [
        np.mean([-math.log(probabilities(row)[positive]) for row, positive in zip(*sample, strict=True)])
        for sample in zip(logits, positives, strict=True)
    ]
    np.testing.assert_allclose(losses.info_nce(logits, positives), slow, rtol=1e-5)


def test_negative_cosine_by_hand_and_its_gradient():
    prediction = tf.constant([[3.0, 4.0], [1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
    code = tf.constant([[4.0, 3.0], [0.0, 5.0], [1.0, 0.0], [1.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch([prediction, code])
        values = losses.negative_cosine(prediction, code)
    np.testing.assert_allclose(values, [-24 / 25, 0, 1, 0], atol=1e-6)
    to_prediction, to_code = tape.gradient(values, [prediction, code])
    assert to_code is None
    # -(c - (p·c) p) / |p| of unit codes c and directions p
    np.testing.assert_allclose(to_prediction[0], [-(0.8 - 0.96 * 0.6) / 5, -(0.6 - 0.96 * 0.8) / 5], rtol=1e-4)
    assert np.isfinite(to_prediction).all()
    assert losses.negative_cosine(tf.cast(prediction, "bfloat16"), tf.cast(code, "bfloat16")).dtype == "float32"
    assert losses.negative_cosine(prediction[:, None], code[None]).shape == (4, 4)


@pytest.mark.parametrize("number", [2, 3, 7, 1000])
def test_other_index_is_never_the_own_and_hits_every_other(number):
    edges = [0.0, 1e-8, 0.5, 1 - 1e-7, np.nextafter(np.float32(1), np.float32(0))]
    for own in {0, 1, number // 2, number - 1}:
        others = np.delete(np.arange(number), own)
        centres = ((np.arange(number - 1) + 0.5) / (number - 1)).astype("float32")
        np.testing.assert_array_equal(losses.other_index(centres, np.full(number - 1, own, "int32"), number), others)
        indices = losses.other_index(np.float32(edges), np.full(len(edges), own, "int32"), number).numpy()
        assert own not in indices
        assert indices.min() == others[0]
        assert indices.max() == others[-1]


def test_other_index_is_uniform_and_takes_a_number_known_at_run_time():
    own = np.repeat(np.arange(4, dtype="int32"), 3000)
    quantiles = tf.random.stateless_uniform(own.shape, [0, 1])
    indices = tf.function(losses.other_index)(quantiles, own, tf.constant(4)).numpy()
    counts = np.zeros((4, 4))
    np.add.at(counts, (own, indices), 1)
    np.testing.assert_allclose(counts, 1000 * (1 - np.eye(4)), atol=120)
