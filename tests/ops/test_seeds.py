"""Folding numbers into a seed."""

import itertools

import keras  # noqa: F401
import tensorflow as tf

from self_supervised_3d_tasks.ops import seeds


def test_fold_gives_distinct_reproducible_seeds():
    seed = tf.constant([1, 2], tf.int32)
    folded = {tuple(seeds.fold(seed, a, b).numpy()) for a, b in itertools.product(range(8), repeat=2)}
    assert len(folded) == 64
    assert tuple(seeds.fold(seed, 3, 5).numpy()) in folded


def test_fold_is_nested_and_keeps_the_form_of_a_seed():
    seed = tf.constant([-7, 2**31 - 1], tf.int32)
    twice = seeds.fold(seeds.fold(seed, 3), tf.constant(5, tf.int64))
    assert tuple(twice.numpy()) == tuple(seeds.fold(seed, 3, 5).numpy())
    assert twice.dtype == tf.int32
    assert twice.shape == (2,)


def test_both_halves_of_the_seed_matter():
    draws = {float(tf.random.stateless_uniform((), seeds.fold([a, b], 0))) for a in range(4) for b in range(4)}
    assert len(draws) == 16
