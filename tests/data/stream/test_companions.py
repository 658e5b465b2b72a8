from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.errors import UserError
from tests.data.stream.streams import pretraining_dataset

DRAWS = np.random.default_rng(4)


def numbered(count: int, shape=(4, 4, 4, 1)) -> list[np.ndarray]:
    """Scan i is everywhere i / 100."""
    return [np.full(shape, index / 100, np.float32) for index in range(count)]


def take(dataset, steps: int) -> list:
    return list(itertools.islice(dataset.as_numpy_iterator(), steps))


def assert_equal(one, other) -> None:
    for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(left, right)


def with_others(image, seed, *others):
    """The images' numbers, and the seed."""
    return tf.stack([image[0, 0, 0, 0], *(other[0, 0, 0, 0] for other in others)]), seed


@pytest.mark.parametrize(
    ("num_scans", "companions", "training"), [(2, 1, True), (3, 2, False), (5, 1, True), (5, 3, False)]
)
def test_companions_are_other_scans_uniformly(make_store, num_scans: int, companions: int, training: bool) -> None:
    dataset = pretraining_dataset(
        make_store(numbered(num_scans)),
        make_example=with_others,
        companions=companions,
        batch_size=100,
        crop_shape=(4, 4, 4),
        crops_per_scan=400,
        seed=0,
        training=training,
    )
    rows = np.concatenate([numbers for numbers, _ in take(dataset, 4 * num_scans)])
    rows = np.rint(100 * rows).astype(int)
    assert all(len(set(row)) == companions + 1 for row in rows.tolist())
    pairs = Counter(zip(rows[:, 0].tolist(), rows[:, -1].tolist(), strict=True))
    assert len(pairs) == num_scans * (num_scans - 1)
    expected = 400 / (num_scans - 1)
    assert all(abs(count - expected) < 4 * np.sqrt(expected) for count in pairs.values())  # 4 standard deviations


def test_companions_change_with_the_epoch_and_stay_in_validation(make_store) -> None:
    store = make_store(numbered(6))
    options = {"make_example": with_others, "companions": 1, "batch_size": 6, "seed": 3}
    epochs = take(pretraining_dataset(store, **options), 5)
    assert len({tuple(sorted(map(tuple, numbers.tolist()))) for numbers, _ in epochs}) == 5
    validation = pretraining_dataset(store, training=False, **options)
    assert_equal(take(validation, 1), take(validation, 1))


def test_companions_leave_scans_and_seeds_as_they_are(make_store) -> None:
    store = make_store(numbered(6))
    options = {"batch_size": 4, "crop_shape": (2, 2, 2), "seed": 3}
    plain = take(pretraining_dataset(store, make_example=lambda image, seed: (image, seed), **options), 6)
    companions = pretraining_dataset(
        store, make_example=lambda image, seed, other: (image, seed), companions=1, **options
    )
    assert_equal(plain, take(companions, 6))


def test_companions_are_random_crops_of_their_scan(make_store) -> None:
    # Voxel x of scan i holds i / 10 + x / 100.
    steps = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1) / 100
    images = [np.full((8, 2, 2, 1), i / 10, np.float32) + steps for i in range(3)]
    dataset = pretraining_dataset(
        make_store(images),
        make_example=lambda image, seed, other: (other, image),
        companions=1,
        batch_size=3,
        crop_shape=(3, 2, 2),
        seed=0,
    )
    origins = Counter()
    for others, own in take(dataset, 60):
        for other, image in zip(others, own, strict=True):
            scan, first = divmod(round(100 * float(other[0, 0, 0, 0])), 10)
            np.testing.assert_array_equal(other, images[scan][first : first + 3])
            assert scan != round(100 * float(image[0, 0, 0, 0])) // 10
            origins[scan, first] += 1
    assert set(origins) == set(itertools.product(range(3), range(6)))


def test_companions_and_augmentation_continue_bit_for_bit(make_store) -> None:
    images = [DRAWS.uniform(size=(5 + i, 6, 7, 1)).astype(np.float32) for i in range(4)]
    store = make_store(images, data_dim=(4, 4, 4))

    def stream(**where):
        return pretraining_dataset(
            store,
            make_example=lambda image, seed, *others: (tf.stack([image, *others]), seed),
            augment=lambda image, seed: image + tf.random.stateless_uniform((), seed),
            companions=2,
            batch_size=3,
            crop_shape=(4, 4, 4),
            seed=9,
            **where,
        )

    for first_step in (1, 7):
        assert_equal(take(stream(first_step=first_step), 4), take(stream().skip(first_step), 4))


@pytest.mark.parametrize(("num_scans", "batch_size", "crops_per_scan"), [(10, 4, 1), (9, 8, 1), (7, 2, 3), (6, 6, 2)])
def test_no_batch_of_compared_scans_holds_one_twice(make_store, num_scans, batch_size, crops_per_scan) -> None:
    options = {"batch_size": batch_size, "crop_shape": (4, 4, 4), "crops_per_scan": crops_per_scan, "seed": 5}
    store, options = make_store(numbered(num_scans)), options | {"make_example": with_others, "distinct_scans": True}
    batches = take(pretraining_dataset(store, **options), 60)
    for numbers, _ in batches:
        assert len(set(np.rint(100 * numbers).astype(int).ravel())) == batch_size
    seen = Counter(np.rint(100 * np.concatenate([numbers for numbers, _ in batches])).astype(int).ravel().tolist())
    assert len(seen) == num_scans and min(seen.values()) > 0.6 * 60 * batch_size / num_scans
    rest = take(pretraining_dataset(store, **options, first_step=17), 43)
    assert_equal(batches[17:], rest)


def test_more_compared_scans_per_batch_than_there_are(make_store) -> None:
    with pytest.raises(UserError, match="batch_size: .* at most the 3 scans"):
        pretraining_dataset(
            make_store(numbered(3)), make_example=with_others, min_batch=2, distinct_scans=True, batch_size=4, seed=0
        )
