"""Batches for training: an endless stream in which every example is addressed by its position.

Position p belongs to epoch p // N; a permutation keyed by (seed, epoch) says which crop it is, and every
random number of that crop comes from (seed, epoch, crop). Nothing is remembered between examples: a stream
that starts at step k is, bit for bit, the rest of a stream that started at 0, which is how a stopped run
resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.exit_guard import stop_iterators_at_exit
from self_supervised_3d_tasks.data.store import VolumeStore
from self_supervised_3d_tasks.data.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops.seeds import fold

tf = lazy.load("tensorflow")

__all__ = ["VolumeStore", "WaitClock", "crop_origin", "pretraining_dataset", "segmentation_dataset"]

_ORDER, _CROP, _EXAMPLE, _BATCH = range(4)  # branches of the tree of seeds


def pretraining_dataset(
    store: VolumeStore,
    *,
    make_example: Callable[[tf.Tensor, tf.Tensor], tuple[Any, Any]],
    make_batch: Callable[[Any, Any, tf.Tensor], tuple[Any, Any]] | None = None,
    batch_size: int,
    crop_shape: Sequence[int] | None = None,
    crops_per_scan: int = 1,
    seed: int,
    first_step: int = 0,
    training: bool = True,
) -> tf.data.Dataset:
    """Return batches ``(inputs, targets)`` of a pretext task.

    Args:
        store: the scans.
        make_example: ``(image, seed)`` to ``(inputs, targets)``; image ``(*crop_shape, channels)`` float32,
            seed ``(2,)`` int32; structures of tensors.
        make_batch: ``(inputs, targets, seed)`` to ``(inputs, targets)`` on batched tensors, for tasks that
            mix images.
        batch_size: scans (crops) per step; every one is visited once per epoch.
        crop_shape: ``(*spatial)``, voxels; None takes whole scans, which must then have one shape.
        crops_per_scan: crops of each scan per epoch.
        seed: of order, crops, examples and batches.
        first_step: number of the first batch.
        training: True: endless, shuffled, full batches, which may straddle epochs. False: one pass in order,
            the same every time, with a smaller last batch.

    Raises:
        UserError: ``crop_shape`` is larger than a scan, or None and the scans have several shapes.
    """
    source = _Source.of(store, crop_shape, crops_per_scan, seed)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[Any, Any]:
        (image,), example_seed = source.load(epoch, item)
        return make_example(image, example_seed)

    dataset = source.batches(example, batch_size, first_step=first_step, training=training)
    if make_batch is not None:
        dataset = dataset.enumerate(first_step).map(
            lambda step, batch: make_batch(*batch, fold(source.root, _BATCH, step)), tf.data.AUTOTUNE
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
    source = _Source.of(store, crop_shape, crops_per_scan, seed, foreground_fraction, labelled=True)

    def example(epoch: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        (image, mask), example_seed = source.load(epoch, item)
        mask = tf.cast(mask, tf.int32)
        return augment(image, mask, example_seed) if augment is not None and training else (image, mask)

    return _finished(source.batches(example, batch_size, first_step=first_step, training=training))


def crop_origin(
    shape: Sequence[int],
    crop_shape: Sequence[int],
    uniforms: np.ndarray,
    centre: np.ndarray | None = None,
) -> tuple[int, ...]:
    """Return the first voxel of a crop.

    Args:
        shape: ``(*spatial)`` of the scan, nowhere below ``crop_shape``.
        crop_shape: ``(*spatial)`` of the crop.
        uniforms: ``(rank,)`` in [0, 1): every origin from 0 to the last that fits is equally likely.
        centre: ``(rank,)``: the crop is centred there instead, moved into the scan where it would stick out.
    """
    last = np.subtract(shape, crop_shape)
    if centre is None:
        return tuple(np.floor(uniforms * (last + 1)).astype(int).tolist())
    return tuple(np.clip(centre - np.array(crop_shape) // 2, 0, last).tolist())


@dataclass(frozen=True)
class _Source:
    """Crops of a store, each addressed by (epoch, item); item i is a crop of scan i modulo their number."""

    store: VolumeStore
    crop_shape: tuple[int, ...]
    num_items: int
    root: tuple[int, int]
    foreground_fraction: float
    labelled: bool

    @classmethod
    def of(
        cls,
        store: VolumeStore,
        crop_shape: Sequence[int] | None,
        crops_per_scan: int,
        seed: int,
        foreground_fraction: float = 0.0,
        *,
        labelled: bool = False,
    ) -> _Source:
        root = (seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF)
        crop_shape = _checked_crop_shape(store, crop_shape)
        return cls(store, crop_shape, len(store) * crops_per_scan, root, foreground_fraction, labelled)

    def batches(
        self, example: Callable[..., tuple[Any, Any]], batch_size: int, *, first_step: int, training: bool
    ) -> tf.data.Dataset:
        addresses = self._shuffled(first_step * batch_size) if training else self._in_order(first_step * batch_size)
        return addresses.map(example, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=training)

    def _shuffled(self, first_position: int) -> tf.data.Dataset:
        def address(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            epoch = position // self.num_items
            order = fold(self.root, _ORDER, epoch)
            last = tf.constant(self.num_items - 1, tf.int64)
            return epoch, tf.random.experimental.index_shuffle(position % self.num_items, order, last)

        return tf.data.Dataset.counter(first_position).map(address)

    def _in_order(self, first_position: int) -> tf.data.Dataset:
        items = tf.data.Dataset.range(first_position, self.num_items)
        return items.map(lambda item: (tf.zeros_like(item), item))

    def load(self, epoch: tf.Tensor, item: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return ``[image]`` or ``[image, mask]`` and the seed of the example."""
        rank = len(self.crop_shape)
        crop_seed, example_seed = (fold(self.root, branch, epoch, item) for branch in (_CROP, _EXAMPLE))
        # float64: a float32 cannot tell the origins of a scan from each other beyond 2^24.
        uniforms = tf.random.stateless_uniform((rank + 2,), crop_seed, dtype=tf.float64)
        types = [tf.float32, tf.uint8][: 1 + self.labelled]
        # Not stateful: the same arguments read the same crop, so determinism keeps the reading parallel.
        arrays = tf.numpy_function(self._read, [item % len(self.store), uniforms], types, stateful=False)
        channels = self.store.preprocessing.number_channels
        for array, shape in zip(arrays, ((*self.crop_shape, channels), self.crop_shape), strict=False):
            array.set_shape(shape)
        return list(arrays), example_seed

    def _read(self, index: int, uniforms: np.ndarray) -> list[np.ndarray]:
        """Read a crop; through a memory map nothing else is read from the disk."""
        use_foreground, voxel, *place = uniforms
        centre = self.store.foreground_voxel(index, voxel) if use_foreground < self.foreground_fraction else None
        origin = crop_origin(self.store.shape(index)[:-1], self.crop_shape, np.array(place), centre)
        inside = tuple(slice(first, first + size) for first, size in zip(origin, self.crop_shape, strict=True))
        sources = [self.store.image(index), *([self.store.mask(index)] if self.labelled else [])]
        # A copy each time: TensorFlow may take over the memory of an array that it is given.
        return [np.array(source[inside], order="C", subok=False) for source in sources]


def _checked_crop_shape(store: VolumeStore, crop_shape: Sequence[int] | None) -> tuple[int, ...]:
    shapes = {store.shape(index)[:-1]: case for index, case in enumerate(store.cases)}
    if crop_shape is None:
        if len(shapes) > 1:
            (one, case), (other, other_case), *_ = shapes.items()
            raise UserError(
                f"{case.image} has shape {one}, {other_case.image} has {other}: expected one shape, or "
                'crops. Set volume_fitting to "resize" or "crop".'
            )
        return next(iter(shapes))
    crop_shape = tuple(crop_shape)
    for shape, case in shapes.items():
        if len(shape) != len(crop_shape) or np.any(np.less(shape, crop_shape)):
            raise UserError(f"{case.image}: has shape {shape}, expected at least the crop's {crop_shape}.")
    return crop_shape


def _finished(dataset: tf.data.Dataset) -> tf.data.Dataset:
    stop_iterators_at_exit()
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
