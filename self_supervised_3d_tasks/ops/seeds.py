"""Stateless seeds: an int32 tensor of shape ``(2,)`` decides every random number that is drawn from it."""

from __future__ import annotations

from self_supervised_3d_tasks.lazy import tf


def fold(seed: tf.Tensor, *numbers: int | tf.Tensor) -> tf.Tensor:
    """Return a new seed from ``seed`` and integers, as if each number named a branch of a tree of seeds.

    Args:
        seed: ``(2,)`` int32.
        numbers: Integers or integer scalars, such as the number of a draw or the index of an axis.
    """
    seed = tf.cast(seed, tf.int32)
    for number in numbers:
        seed = tf.random.fold_in(seed, tf.cast(number, tf.int32))
    return seed
