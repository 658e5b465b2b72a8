"""Which labelled voxels a crop is centred on: every class of the mask alike, then every voxel of the class alike."""

from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.data.store import foreground
from self_supervised_3d_tasks.data.store.foreground import Foreground

POSITIONS = (np.arange(3000) + 0.5) / 3000


def drawn(mask: np.ndarray) -> np.ndarray:
    """The flat index at each of evenly spread positions."""
    voxels = Foreground.of(mask)
    return np.array([voxels.at(position) for position in POSITIONS])


def test_classes_are_drawn_alike_whatever_their_size() -> None:
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[:20, :20, :20] = 1
    mask[28:, 28:, 28:] = 5
    mask[25, 0, :3] = 2
    voxels = drawn(mask)
    labels, counts = np.unique(mask.ravel()[voxels], return_counts=True)
    assert labels.tolist() == [1, 2, 5] and counts.tolist() == [1000, 1000, 1000]
    for label, size in ((2, 3), (5, 8)):
        of_class, counts = np.unique(voxels[mask.ravel()[voxels] == label], return_counts=True)
        assert of_class.tolist() == np.flatnonzero(mask == label).tolist()
        assert np.ptp(counts) <= 1 and counts.sum() == 1000 and len(counts) == size


def test_a_mask_of_one_class_is_drawn_from_as_a_whole() -> None:
    mask = np.zeros((9, 8, 7), np.uint8)
    mask[2:5, 3:6, 1] = 3
    flat = np.flatnonzero(mask)
    assert drawn(mask).tolist() == [flat[int(position * 9)] for position in POSITIONS]


def test_a_mask_without_labels_has_no_voxel() -> None:
    assert Foreground.of(np.zeros((3, 4), np.uint8)).at(0.5) is None


@pytest.mark.parametrize("cut", [1, 2])
def test_memory_is_bounded_and_a_small_class_keeps_all_its_voxels(monkeypatch, cut: int) -> None:
    monkeypatch.setattr(foreground, "MAX_VOXELS", 40)
    mask = np.ones((10, 10, 10), np.uint8)
    mask[0, 0, :8] = 2
    mask[5:] = cut
    voxels = Foreground.of(mask)
    assert len(voxels.flat) == 20 + {1: 8, 2: 20}[cut]
    assert np.array_equal(voxels.flat, Foreground.of(mask).flat), "the same voxels every time"
    assert set(np.flatnonzero(mask == 2)[:8] if cut == 1 else []) <= set(voxels.flat)
    assert np.bincount(mask.ravel()[drawn(mask)]).tolist() == [0, 1500, 1500]


def test_positions_at_the_ends_of_classes() -> None:
    mask = np.array([[0, 1, 2, 3, 1, 2, 3, 3]], np.uint8)
    voxels = Foreground.of(mask)
    ends = [0.0, np.nextafter(1 / 3, 0), 1 / 3, np.nextafter(2 / 3, 0), np.nextafter(2 / 3, 1), np.nextafter(1, 0)]
    assert [int(voxels.at(position)) for position in ends] == [1, 4, 2, 5, 3, 7]
