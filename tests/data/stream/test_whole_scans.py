from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.data.stream.streams import whole_scan_dataset


def numbered(count: int, shape=(4, 4, 4, 1)) -> list[np.ndarray]:
    """Scan i is everywhere i / 100."""
    return [np.full(shape, index / 100, np.float32) for index in range(count)]


def dataset_of(store, kind, **options):
    return whole_scan_dataset(store, np.array([case.label for case in store.cases], kind), **options)


def take(dataset, steps: int) -> list:
    return list(itertools.islice(dataset.as_numpy_iterator(), steps))


def assert_equal(one, other) -> None:
    for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def labelled(make_store):
    """Scan i is everywhere i / 100 and has the label that a function gives for i."""

    def make(count: int, label, **options):
        store = make_store(numbered(count, **options))
        entries = {replace(case, label=label(index)): case for index, case in enumerate(store.cases)}
        store._entries = {relabelled: store._entries[case] for relabelled, case in entries.items()}
        return store.subset(entries)

    return make


@pytest.fixture
def graded(labelled):
    """Scan i is everywhere i / 100 and has grade i modulo 3."""
    return lambda count, **options: labelled(count, lambda index: index % 3, **options)


@pytest.mark.parametrize("training", [False, True])
def test_scans_come_with_their_class(graded, training: bool) -> None:
    options = {"batch_size": 4, "seed": 0, "training": training}
    for images, labels in take(dataset_of(graded(8), np.int32, **options), 2):
        assert images.shape == (4, 4, 4, 4, 1) and images.dtype == np.float32
        assert labels.shape == (4,) and labels.dtype == np.int32
        np.testing.assert_array_equal(np.rint(100 * images[:, 0, 0, 0, 0]) % 3, labels)


@pytest.mark.parametrize("first_step", [1, 3, 8])
def test_classification_continues_bit_for_bit(graded, first_step: int) -> None:
    store = graded(5, shape=(4, 3, 3))

    def stream(**where):
        return dataset_of(
            store,
            np.int32,
            batch_size=2,
            augment=lambda image, seed: image + tf.random.stateless_uniform((), seed),
            seed=5,
            **where,
        )

    assert_equal(take(stream(first_step=first_step), 4), take(stream().skip(first_step), 4))


def test_classification_augments_only_in_training(graded) -> None:
    options = {"batch_size": 3, "seed": 0, "augment": lambda image, seed: image + 7}
    store = graded(3)
    assert take(dataset_of(store, np.int32, **options), 1)[0][0].min() >= 7
    assert take(dataset_of(store, np.int32, training=False, **options), 1)[0][0].max() < 1


def test_repeated_cases_are_visited_as_often_and_augmented_apart(graded) -> None:
    store = graded(3)
    part = store.subset([store.cases[0], store.cases[1], store.cases[1], store.cases[2]])
    dataset = dataset_of(
        part,
        np.int32,
        batch_size=4,
        augment=lambda image, seed: image + tf.random.stateless_uniform((), seed, 0, 0.004),
        seed=0,
    )
    for batch in take(dataset, 5):
        assert sorted(np.rint(100 * batch[0][:, 0, 0, 0, 0]).tolist()) == [0, 1, 1, 2]
        assert sorted(batch[1]) == [0, 1, 1, 2]
        assert len(np.unique(batch[0])) == 4


def bits(index: int) -> tuple[int, ...]:
    return (index & 1, index >> 1 & 1, index >> 2 & 1)


@pytest.mark.parametrize("training", [False, True])
def test_scans_come_with_their_findings(labelled, training: bool) -> None:
    options = {"batch_size": 4, "seed": 0, "training": training}
    dataset = dataset_of(labelled(8, bits), np.float32, **options)
    assert dataset.element_spec[1].shape.as_list() == [4 if training else None, 3]
    for images, targets in take(dataset, 2):
        assert images.shape == (4, 4, 4, 4, 1) and targets.dtype == np.float32
        numbers = np.rint(100 * images[:, 0, 0, 0, 0]).astype(int)
        np.testing.assert_array_equal(targets, [bits(number) for number in numbers])
