"""Batches for training: an endless stream in which every example is addressed by its position (see `source`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream.background import Background
from self_supervised_3d_tasks.data.stream.exit_guard import stop_iterators_at_exit
from self_supervised_3d_tasks.data.stream.source import Branch, Foreground, Listed, Source
from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.scores.classification import ordinal_encode

__all__ = [
    "VolumeStore",
    "WaitClock",
    "classification_dataset",
    "findings_dataset",
    "pretraining_dataset",
    "segmentation_dataset",
]


def pretraining_dataset(
    store: VolumeStore,
    *,
    make_example: Callable[..., tuple[Any, Any]],
    make_batch: Callable[[Any, Any, tf.Tensor], tuple[Any, Any]] | None = None,
    batch_size: int,
    crop_shape: Sequence[int] | None = None,
    crops_per_scan: int = 1,
    centres: Sequence[np.ndarray] | None = None,
    background: Background | None = None,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    companions: int = 0,
    min_batch: int = 1,
    distinct_scans: bool = False,
    seed: int,
    first_step: int = 0,
    training: bool = True,
) -> tf.data.Dataset:
    """Return batches ``(inputs, targets)`` of a pretext task.

    Args:
        store: the scans.
        make_example: ``(image, seed, *companions)`` to ``(inputs, targets)``; images ``(*crop_shape, channels)``
            float32, seed ``(2,)`` int32; structures of tensors.
        make_batch: ``(inputs, targets, seed)`` to ``(inputs, targets)`` on batched tensors, for tasks that
            mix images.
        batch_size: scans (crops) per step; every one is visited once per epoch.
        crop_shape: ``(*spatial)``, voxels; None takes whole scans, which must then have one shape.
        crops_per_scan: crops of each scan per epoch.
        centres: ``(number, rank)`` voxels of each scan of the store, at least one: its crops, those that are companions
            too, are centred on one of them, uniformly drawn, as far as the border of the scan allows. None: crops come
            from anywhere.
        background: crops are drawn again (from anywhere, or around another centre) while their share of background is
            not in its range; after ten the one with the nearest share is taken. Companions too.
        augment: ``(image, seed)`` to an image of the same shape; only in training, for each image by itself, before
            ``make_example``.
        companions: number of other scans of the store, all different, that come with each; random crops of them.
        min_batch: examples that a batch needs: without training, a smaller last batch is left out.
        distinct_scans: no batch holds a scan twice; training then visits whole batches of scans per epoch.
        seed: of order, crops, augmentation, examples, companions and batches.
        first_step: number of the first batch.
        training: True: endless, shuffled, full batches, which may straddle epochs. False: one pass in order,
            the same every time, with a smaller last batch.

    Raises:
        UserError: ``crop_shape`` is larger than a scan, or None and the scans have several shapes; or the store or the
            batches are too small for the task.
        ValueError: ``centres`` are not those of the scans of the store.
    """
    _check_counts(store, batch_size, companions, min_batch if distinct_scans else 1, training=training)
    if batch_size < min_batch:
        raise UserError(f"batch_size: this task compares scans of a batch: expected at least {min_batch} scans.")
    centre = None if centres is None else Listed(_checked_centres(store, centres))
    source = Source.of(store, crop_shape, crops_per_scan, seed, centre=centre, background=background)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[Any, Any]:
        (image,), example_seed = source.load(epoch, item)
        images = [image, *source.companions(epoch, item, companions)]
        if augment is not None and training:
            seeds = [source.seed(Branch.AUGMENTATION, epoch, item, number) for number in range(len(images))]
            images = [augment(*pair) for pair in zip(images, seeds, strict=True)]
        return make_example(images[0], example_seed, *images[1:])

    batching = {"training": training, "min_batch": min_batch, "distinct_scans": distinct_scans}
    dataset = source.batches(example, batch_size, first_step=first_step, **batching)
    if make_batch is not None:
        dataset = dataset.enumerate(first_step).map(
            lambda step, batch: make_batch(*batch, source.seed(Branch.BATCH, step)), tf.data.AUTOTUNE
        )
    return _finished(dataset)


def segmentation_dataset(
    store: VolumeStore,
    *,
    batch_size: int,
    crop_shape: Sequence[int] | None = None,
    crops_per_scan: int = 1,
    foreground_fraction: float = 0.0,
    augment: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    seed: int,
    first_step: int = 0,
    training: bool = True,
) -> tf.data.Dataset:
    """Return batches of images ``(batch, *spatial, channels)`` float32 and masks ``(batch, *spatial)`` int32.

    Args:
        store: scans with masks.
        batch_size: crops per step.
        crop_shape: see `pretraining_dataset`.
        crops_per_scan: see `pretraining_dataset`.
        foreground_fraction: share of the crops that are centred on a random foreground voxel, as far as the
            border of the scan allows, in [0, 1]. A scan without foreground gives crops from anywhere.
        augment: ``(image, mask, seed)`` to ``(image, mask)``; only used in training.
        seed: see `pretraining_dataset`.
        first_step: see `pretraining_dataset`.
        training: see `pretraining_dataset`.

    Raises:
        UserError: As `pretraining_dataset`, or the store holds no masks.
    """
    if store.num_classes is None:
        raise UserError("These scans were read without masks: expected labelled scans for a segmentation.")
    centre = Foreground(store, foreground_fraction)
    source = Source.of(store, crop_shape, crops_per_scan, seed, centre=centre, labelled=True)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        (image, mask), example_seed = source.load(epoch, item)
        mask = tf.cast(mask, tf.int32)
        return augment(image, mask, example_seed) if augment is not None and training else (image, mask)

    return _finished(source.batches(example, batch_size, first_step=first_step, training=training))


def classification_dataset(
    store: VolumeStore,
    *,
    batch_size: int,
    num_classes: int,
    multilabel: bool = False,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    seed: int,
    first_step: int = 0,
    training: bool = True,
) -> tf.data.Dataset:
    """Return batches of whole scans ``(batch, *spatial, channels)`` float32 and their classes.

    Args:
        store: scans of one shape, whose cases have a class; a case that is listed twice is visited twice.
        batch_size: scans per step.
        num_classes: every class is below it.
        multilabel: False: the class, ``(batch,)`` int32. True: grades as the predecessor has them, ``(batch,
            num_classes)`` float32: grade 2 of 5 is ``[1, 1, 1, 0, 0]``.
        augment: ``(image, seed)`` to an image of the same shape; only used in training.
        seed: see `pretraining_dataset`.
        first_step: see `pretraining_dataset`.
        training: see `pretraining_dataset`.

    Raises:
        UserError: A scan has no class or one out of range, or the scans have several shapes.
    """
    for case in store.cases:
        if case.label is None or isinstance(case.label, tuple) or not 0 <= case.label < num_classes:
            raise UserError(f"{case.image}: has class {case.label}, expected 0 to {num_classes - 1}. Check its label.")
    classes = np.array([case.label for case in store.cases], np.int32)
    return _whole_scans(
        store,
        ordinal_encode(classes, num_classes) if multilabel else classes,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        first_step=first_step,
        training=training,
    )


def findings_dataset(
    store: VolumeStore,
    *,
    batch_size: int,
    num_findings: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    seed: int,
    first_step: int = 0,
    training: bool = True,
) -> tf.data.Dataset:
    """Return batches of whole scans ``(batch, *spatial, channels)`` and their findings ``(batch, num_findings)``.

    Both are float32; a finding is 1 where the scan has it, else 0.

    Args:
        store: scans of one shape, whose cases have findings.
        batch_size: scans per step.
        num_findings: length of every label.
        augment: see `classification_dataset`.
        seed: see `pretraining_dataset`.
        first_step: see `pretraining_dataset`.
        training: see `pretraining_dataset`.

    Raises:
        UserError: A scan has no findings, or the scans have several shapes.
    """
    for case in store.cases:
        if not isinstance(case.label, tuple) or len(case.label) != num_findings:
            raise UserError(f"{case.image}: has label {case.label}, expected {num_findings} findings. Check its row.")
    return _whole_scans(
        store,
        np.array([case.label for case in store.cases], np.float32),
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        first_step=first_step,
        training=training,
    )


def _whole_scans(
    store: VolumeStore,
    targets: np.ndarray,
    *,
    batch_size: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None,
    seed: int,
    first_step: int,
    training: bool,
) -> tf.data.Dataset:
    """Return batches of whole scans, each with its row of ``targets``."""
    source = Source.of(store, None, 1, seed)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        (image,), example_seed = source.load(epoch, item)
        target = tf.gather(targets, source.index(item))
        return augment(image, example_seed) if augment is not None and training else image, target

    return _finished(source.batches(example, batch_size, first_step=first_step, training=training))


def _check_counts(store: VolumeStore, batch_size: int, companions: int, distinct: int, *, training: bool) -> None:
    needed = max(companions + 1, distinct)
    if len(store) < needed:
        raise UserError(
            f"This task compares scans: expected at least {needed} in each part of the split, received {len(store)} "
            f"({', '.join(case.name for case in store.cases)}). Add scans, or change the split."
        )
    if training and distinct > 1 and batch_size > len(store):
        raise UserError(
            f"batch_size: this task compares scans of a batch: expected at most the {len(store)} scans that there are."
        )


def _checked_centres(store: VolumeStore, centres: Sequence[np.ndarray]) -> list[np.ndarray]:
    rank = store.preprocessing.rank
    if len(centres) != len(store) or any(rows.shape != (max(1, len(rows)), rank) for rows in centres):
        raise ValueError(
            f"centres: expected one or more rows of {rank} numbers for each of {len(store)} scans, received arrays of "
            f"shapes {[rows.shape for rows in centres]}."
        )
    return list(centres)


def _finished(dataset: tf.data.Dataset) -> tf.data.Dataset:
    stop_iterators_at_exit()
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
