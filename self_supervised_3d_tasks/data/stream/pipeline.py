"""Batches for training: an endless stream in which every example is addressed by its position (see `source`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream.source import ONE_SCAN, Branch, Crops, Position, Source
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops.sampling import Sampling

WHOLE_SCANS = Crops()


def pretraining_dataset(
    store: VolumeStore,
    *,
    make_example: Callable[..., tuple[Any, Any]],
    batch_size: int,
    position: Position,
    crops: Crops = WHOLE_SCANS,
    sampling: Sampling = ONE_SCAN,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Return batches ``(inputs, targets)`` of a pretext task.

    Args:
        store: The scans.
        make_example: ``(image, seed, *companions)`` to ``(inputs, targets)``; images ``(*crop_shape, channels)``
            float32, seed ``(2,)`` int32; structures of tensors.
        batch_size: Scans (crops) per step; every one is visited once per epoch.
        position: Where the stream begins.
        crops: How crops are drawn, those that are companions too.
        sampling: How the task wants scans put together. Without training, a last batch below ``min_batch`` is left out;
            with ``distinct_scans``, training visits whole batches of scans per epoch.
        augment: ``(image, seed)`` to an image of the same shape; only in training, for each image by itself, before
            ``make_example``.

    Raises:
        UserError: ``crops.shape`` is larger than a scan, or None and the scans have several shapes; or the store or the
            batches are too small for the task.
        ValueError: ``crops.centres`` are not those of the scans of the store.
    """
    _check_counts(store, batch_size, sampling, training=position.training)
    source = Source(store, crops, position)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[Any, Any]:
        (image,), example_seed = source.load(epoch, item)
        images = [image, *source.companions(epoch, item, sampling.companions)]
        if augment is not None and position.training:
            seeds = [source.seed(Branch.AUGMENTATION, epoch, item, number) for number in range(len(images))]
            images = [augment(*pair) for pair in zip(images, seeds, strict=True)]
        return make_example(images[0], example_seed, *images[1:])

    return source.batches(example, batch_size, sampling)


def segmentation_dataset(
    store: VolumeStore,
    *,
    batch_size: int,
    crops: Crops = WHOLE_SCANS,
    augment: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    position: Position,
) -> tf.data.Dataset:
    """Return batches of images ``(batch, *spatial, channels)`` float32 and masks ``(batch, *spatial)`` int32.

    Args:
        store: Scans with masks.
        batch_size: Crops per step.
        crops: How crops are drawn.
        augment: ``(image, mask, seed)`` to ``(image, mask)``; only used in training.
        position: Where the stream begins.

    Raises:
        UserError: As `pretraining_dataset`, or the store holds no masks.
    """
    if store.num_classes is None:
        raise UserError("These scans were read without masks: expected labelled scans for a segmentation.")
    source = Source(store, crops, position, labelled=True)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        (image, mask), example_seed = source.load(epoch, item)
        mask = tf.cast(mask, tf.int32)
        return augment(image, mask, example_seed) if augment is not None and position.training else (image, mask)

    return source.batches(example, batch_size)


def whole_scan_dataset(
    store: VolumeStore,
    targets: np.ndarray,
    *,
    batch_size: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    position: Position,
) -> tf.data.Dataset:
    """Return batches of whole scans ``(batch, *spatial, channels)`` float32, each with its row of ``targets``.

    Args:
        store: Scans of one shape; a case that is listed twice is visited twice.
        targets: The encoded label of each case of the store, ``(n, ...)``.
        batch_size: Scans per step.
        augment: ``(image, seed)`` to an image of the same shape; only used in training.
        position: Where the stream begins.

    Raises:
        UserError: The scans have several shapes.
    """
    source = Source(store, WHOLE_SCANS, position)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        (image,), example_seed = source.load(epoch, item)
        target = tf.gather(targets, source.index(item))
        return augment(image, example_seed) if augment is not None and position.training else image, target

    return source.batches(example, batch_size)


def _check_counts(store: VolumeStore, batch_size: int, sampling: Sampling, *, training: bool) -> None:
    distinct = sampling.min_batch if sampling.distinct_scans else 1
    needed = max(sampling.companions + 1, distinct)
    if len(store) < needed:
        raise UserError(
            f"This task compares scans: expected at least {needed} in each part of the split, received {len(store)} "
            f"({', '.join(case.name for case in store.cases)}). Add scans, or change the split."
        )
    if training and distinct > 1 and batch_size > len(store):
        raise UserError(
            f"batch_size: this task compares scans of a batch: expected at most the {len(store)} scans that there are."
        )
    if batch_size < sampling.min_batch:
        raise UserError(
            f"batch_size: this task compares scans of a batch: expected at least {sampling.min_batch} scans."
        )
