"""Several examples of the same crop: how an analysis asks whether they have anything in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds


def keep_crop(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return its arguments: the ``make_example`` of a stream of crops that `repeated_examples` takes."""
    return image, seed


def repeated_examples(
    crops: tf.data.Dataset, make_example: Callable[[tf.Tensor, tf.Tensor], Any], number: int
) -> tf.data.Dataset:
    """Return ``number`` different examples of each crop, one after the other, not batched.

    They are made one by one, so that no more than a few of them are in memory.

    Args:
        crops: Batches from `pipeline.pretraining_dataset` with `keep_crop`.
        make_example: ``(image, seed)`` to ``(inputs, targets)``; runs in the graph of the dataset.
        number: Number of examples per crop; the seed of each is folded from the crop's.
    """

    def copies(image: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.range(number).map(lambda copy: (image, seeds.fold(seed, copy)))

    as_written = tf.autograph.experimental.do_not_convert  # as in the stream of a training
    return crops.unbatch().flat_map(copies).map(as_written(make_example), tf.data.AUTOTUNE)
