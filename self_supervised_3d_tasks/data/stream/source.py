"""The crops of a store, each addressed by its position in an endless stream.

Position p belongs to epoch p // N; a permutation keyed by (seed, epoch) says which crop it is, and every
random number of that crop comes from (seed, epoch, crop). Nothing is remembered between examples: a stream
that starts at step k is, bit for bit, the rest of a stream that started at 0, which is how a stopped run
resumes. Where no batch may hold a scan twice, an epoch is one crop each of as many scans as fill whole batches.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream.background import TRIES, Background
from self_supervised_3d_tasks.data.stream.exit_guard import stop_iterators_at_exit
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.ops.seeds import fold

ONE_SCAN = Sampling()
PREFETCHED = 2  # batches that are ready while the network computes


class Branch(enum.IntEnum):
    """Branches of the tree of seeds: a new one at the end leaves the numbers of the others as they are."""

    ORDER, CROP, EXAMPLE, BATCH, AUGMENTATION, COMPANION = range(6)


@dataclass(frozen=True)
class Crops:
    """How crops are drawn from the scans of a store.

    Args:
        shape: ``(*spatial)`` in voxels; None takes whole scans, which must then have one shape.
        per_scan: Crops of each scan per epoch.
        centres: ``(number, rank)`` voxels of each scan of the store, at least one: its crops are centred on one of
            them, uniformly drawn, as far as the border of the scan allows. None: crops come from anywhere.
        background: Crops are drawn again (from anywhere, or around another centre) while their share of background is
            not in its range; after ten the one with the nearest share is taken.
        foreground_fraction: Share of the crops, in [0, 1], that are centred on a labelled voxel, as far as the border
            of the scan allows: of a class that is uniformly drawn among those of the scan, a voxel that is uniformly
            drawn. A scan without labels, or ``centres``, make no difference to it.
    """

    shape: Sequence[int] | None = None
    per_scan: int = 1
    centres: Sequence[np.ndarray] | None = None
    background: Background | None = None
    foreground_fraction: float = 0.0


@dataclass(frozen=True)
class Position:
    """Where a stream of batches begins, and which one it is.

    Args:
        seed: Seed of order, crops, augmentation, examples, companions and batches.
        first_step: Number of the first batch, at least 0.
        training: True: endless, shuffled, full batches, which may straddle epochs. False: one pass in order, the same
            every time, with a smaller last batch.
        share: (i, n): of every batch of a training, the i-th of n equal parts, in order. n processes that train
            together read each its own, and together what one alone would.
    """

    seed: int
    first_step: int = 0
    training: bool = True
    share: tuple[int, int] = (0, 1)


class Source:
    """Crops of a store, each addressed by (epoch, item); item i is a crop of scan i modulo their number.

    Args:
        store: The scans.
        crops: How crops are drawn from them.
        position: Where the stream of its crops begins.
        labelled: Whether crops of the masks are read too.

    Raises:
        UserError: A scan does not have the shape of the others, or is smaller than the crop.
        ValueError: ``crops.centres`` are not those of the scans of the store.
    """

    def __init__(self, store: VolumeStore, crops: Crops, position: Position, *, labelled: bool = False) -> None:
        if crops.centres is not None:
            _check_centres(store, crops.centres)
        self.store = store
        self.crops = crops
        self.crop_shape = _checked_crop_shape(store, crops.shape)
        self.position = position
        self.root = (position.seed & 0x7FFFFFFF, position.seed >> 31 & 0x7FFFFFFF)
        self.labelled = labelled

    def seed(self, branch: Branch, *numbers: int | tf.Tensor) -> tf.Tensor:
        """Return the seed ``(2,)`` of one purpose, such as the example at (epoch, item)."""
        return fold(self.root, branch, *numbers)

    def batches(
        self, example: Callable[..., tuple[Any, Any]], batch_size: int, sampling: Sampling = ONE_SCAN
    ) -> tf.data.Dataset:
        """Return batches of ``example(epoch, item)``, put together as ``sampling`` says."""
        stop_iterators_at_exit()
        position = self.position
        # Where no batch may hold a scan twice, an epoch has one crop of each.
        items = len(self.store) * (1 if sampling.distinct_scans else self.crops.per_scan)
        in_whole_batches = items - items % batch_size
        number, shares = position.share if position.training else (0, 1)
        size = batch_size // shares
        if position.training:
            own = tf.data.Dataset.counter(position.first_step * size)
            positions = own.map(lambda index: index // size * batch_size + number * size + index % size)
            addresses = self._shuffled(positions, items, in_whole_batches if sampling.distinct_scans else items)
        else:
            keep_rest = items - in_whole_batches >= sampling.min_batch
            addresses = tf.data.Dataset.range(position.first_step * size, items if keep_rest else in_whole_batches)
            addresses = addresses.map(lambda item: (tf.zeros_like(item), item))
        # Rewriting their source first, for Python's `if` of tensors, takes TensorFlow longer than tracing them.
        as_written = tf.autograph.experimental.do_not_convert
        batches = addresses.map(as_written(example), tf.data.AUTOTUNE).batch(size, drop_remainder=position.training)
        if sampling.make_batch is not None:
            make_batch = as_written(lambda step, batch: sampling.make_batch(*batch, self.seed(Branch.BATCH, step)))
            batches = batches.enumerate(position.first_step).map(make_batch, tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.deterministic = True
        # The thread that tunes may sleep, for up to a minute, through the end of its iterator, which waits for it: a
        # training of a minute then ends seconds late. Without it AUTOTUNE is as many calls as there are threads.
        options.autotune.enabled = False
        return batches.prefetch(PREFETCHED).with_options(options)

    def _shuffled(self, positions: tf.data.Dataset, num_items: int, per_epoch: int) -> tf.data.Dataset:
        """Return the addresses at some positions; an epoch is the first ``per_epoch`` of the shuffled items."""

        def address(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            epoch = position // per_epoch
            order = self.seed(Branch.ORDER, epoch)
            last = tf.constant(num_items - 1, tf.int64)
            return epoch, tf.random.experimental.index_shuffle(position % per_epoch, order, last)

        return positions.map(address)

    def load(self, epoch: tf.Tensor, item: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return ``[image]`` or ``[image, mask]`` and the seed of the example."""
        arrays = self._crop(self.index(item), self.seed(Branch.CROP, epoch, item))
        return arrays, self.seed(Branch.EXAMPLE, epoch, item)

    def companions(self, epoch: tf.Tensor, item: tf.Tensor, count: int) -> list[tf.Tensor]:
        """Return crops of ``count`` other scans than that of ``item``, all different, uniformly drawn."""
        taken = [self.index(item)]
        images = []
        for number in range(count):
            seed = self.seed(Branch.COMPANION, epoch, item, number)
            free = len(self.store) - len(taken)
            index = tf.random.stateless_uniform((), fold(seed, 0), 0, free, tf.int64)
            # The index-th of the scans that are not taken: no list of them is made, however many there are.
            for other in tf.unstack(tf.sort(tf.stack(taken))):
                index += tf.cast(index >= other, tf.int64)
            taken.append(index)
            images.append(self._crop(index, fold(seed, 1))[0])
        return images

    def index(self, item: tf.Tensor) -> tf.Tensor:
        """Return which scan an item is a crop of."""
        return item % len(self.store)

    def _crop(self, index: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        tries = 1 if self.crops.background is None else TRIES
        # float64: a float32 cannot tell the origins of a scan from each other beyond 2^24.
        uniforms = tf.random.stateless_uniform((tries, len(self.crop_shape) + 2), seed, dtype=tf.float64)
        types = [tf.float32, tf.uint8][: 1 + self.labelled]
        # Not stateful: the same arguments read the same crop, so determinism keeps the reading parallel.
        arrays = tf.numpy_function(self._read, [index, uniforms], types, stateful=False)
        channels = self.store.preprocessing.number_channels
        for array, shape in zip(arrays, ((*self.crop_shape, channels), self.crop_shape), strict=False):
            array.set_shape(shape)
        return list(arrays)

    def _read(self, index: int, uniforms: np.ndarray) -> list[np.ndarray]:
        """Read the crop at the first place of ``uniforms (tries, rank + 2)`` that the background allows.

        Nothing but the crops that are looked at is read from the disk. They are new arrays: TensorFlow may take over
        their memory.
        """
        places = (self._place(index, row) for row in uniforms)
        read, background = functools.partial(self.store.crop, index), self.crops.background
        if background is None:
            place = next(places)
            image = read(place)
        else:
            place, image = background.choose(read, places, self.store.cases[index].name)
        return [image, *([self.store.mask_crop(index, place)] if self.labelled else [])]

    def _place(self, index: int, uniforms: np.ndarray) -> tuple[slice, ...]:
        centre = self._centre(index, *uniforms[:2])
        origin = crop_origin(self.store.shape(index)[:-1], self.crop_shape, uniforms[2:], centre)
        return tuple(slice(first, first + size) for first, size in zip(origin, self.crop_shape, strict=True))

    def _centre(self, index: int, first: float, second: float) -> np.ndarray | None:
        """Return a voxel ``(rank,)`` of a scan, chosen by two numbers in [0, 1); None: its crop lies anywhere."""
        if self.crops.centres is not None:
            voxels = self.crops.centres[index]
            return voxels[int(first * len(voxels))]
        return self.store.foreground_voxel(index, second) if first < self.crops.foreground_fraction else None


def _check_centres(store: VolumeStore, centres: Sequence[np.ndarray]) -> None:
    rank = store.preprocessing.rank
    if len(centres) != len(store) or any(rows.shape != (max(1, len(rows)), rank) for rows in centres):
        raise ValueError(
            f"centres: expected one or more rows of {rank} numbers for each of {len(store)} scans, received arrays of "
            f"shapes {[rows.shape for rows in centres]}."
        )


def _checked_crop_shape(store: VolumeStore, crop_shape: Sequence[int] | None) -> tuple[int, ...]:
    shapes = {store.shape(index)[:-1]: case for index, case in enumerate(store.cases)}
    if crop_shape is None:
        if len(shapes) > 1:
            (one, case), (other, other_case), *_ = shapes.items()
            raise UserError(
                f"{case.image} has shape {one}, {other_case.image} has {other}: expected one shape, or "
                'crops. Set volume_fitting to "resize", or to "crop" where a crop will do.'
            )
        return next(iter(shapes))
    crop_shape = tuple(crop_shape)
    for shape, case in shapes.items():
        if len(shape) != len(crop_shape) or np.any(np.less(shape, crop_shape)):
            raise UserError(f"{case.image}: has shape {shape}, expected at least the crop's {crop_shape}.")
    return crop_shape


def crop_origin(
    shape: Sequence[int], crop_shape: Sequence[int], uniforms: np.ndarray, centre: np.ndarray | None = None
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
