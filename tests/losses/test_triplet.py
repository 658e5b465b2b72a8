"""Triplet losses: by hand, and mining by slow loops over every triplet."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.losses import triplet as triplet_losses
from self_supervised_3d_tasks.losses.triplet import hard_negative, semihard_negative, triplet_loss


def draws(count=25):
    """Distances of anchors to candidates, of which each anchor has at least one negative."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(3, 9))
        is_negative = rng.random((number, number)) < 0.6
        is_negative[np.arange(number), rng.integers(0, number, number)] = True
        yield rng.random((number, number)).astype(np.float32), is_negative


def test_mining_agrees_with_slow_loops():
    fell_back = 0
    for distances, is_negative in draws():
        negatives = [row[mask] for row, mask in zip(distances, is_negative, strict=True)]
        np.testing.assert_array_equal(hard_negative(distances, is_negative), [row.min() for row in negatives])
        expected = [
            [min((n for n in row if n > p), default=max(row)) for p in positive]
            for row, positive in zip(negatives, distances, strict=True)
        ]
        np.testing.assert_array_equal(semihard_negative(distances, distances, is_negative), expected)
        fell_back += any(p > row.max() for row, positive in zip(negatives, distances, strict=True) for p in positive)
    assert fell_back > 3


@pytest.mark.parametrize(
    ("positive", "negative", "margin", "expected"),
    [(0.0, 4.0, 1.0, 0.0), (0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.3, 0.3), (2.0, 0.5, 1.0, 2.5), (1.0, 1.5, 1.0, 0.5)],
)
def test_triplet_loss_by_hand(positive, negative, margin, expected):
    value = triplet_loss(np.float32([positive]), np.float32([negative]), margin=margin)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


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


def test_half_precision_distances_give_float32():
    distances = tf.constant([1.0, 2.0], tf.float16)
    assert triplet_loss(distances, distances).dtype == "float32"
    assert triplet_losses.squared_distance(distances, distances).dtype == "float32"


def test_equal_codes_cost_the_margin_and_have_finite_gradients():
    for codes in (tf.ones((4, 3)), tf.zeros((4, 3))):
        with tf.GradientTape() as tape:
            tape.watch(codes)
            distances = triplet_losses.squared_distance(codes[:, None], codes[None])
            values = triplet_loss(tf.linalg.diag_part(distances), hard_negative(distances, ~np.eye(4, dtype=bool)))
        np.testing.assert_allclose(values, 1.0)
        assert np.isfinite(tape.gradient(values, codes)).all()
