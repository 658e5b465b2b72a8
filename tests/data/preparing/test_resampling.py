from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from self_supervised_3d_tasks.data.preparing.resampling import resize, resize_labels
from self_supervised_3d_tasks.scores.segmentation import dice

DRAWS = np.random.default_rng(0)


def test_doubling_by_hand() -> None:
    array = np.array([[0.0], [4.0]], np.float32)
    np.testing.assert_allclose(resize(array, (4,))[:, 0], [0, 1, 3, 4], atol=1e-6)


@pytest.mark.parametrize("shape", [(11, 26), (20, 21), (33, 13)])
def test_enlarging_equals_tensorflow(shape: tuple) -> None:
    array = DRAWS.normal(size=(11, 13, 3)).astype(np.float32)
    expected = tf.image.resize(array, shape, "bilinear")
    np.testing.assert_allclose(resize(array, shape), expected, atol=1e-5)


def test_shrinking_is_smoothed_first() -> None:
    """The finest checkerboard has no representation on half the grid: without smoothing it would alias to 0 or 1."""
    checkerboard = (np.indices((16, 16)).sum(axis=0) % 2).astype(np.float32)[..., None]
    shrunk = resize(checkerboard, (5, 5))
    np.testing.assert_allclose(shrunk, 0.5, atol=0.05)


def test_enlarging_and_shrinking_does_not_shift() -> None:
    ramp = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    back = resize(resize(ramp, (31,)), (12,))
    np.testing.assert_allclose(back[2:-2], ramp[2:-2], atol=2e-3)


def test_linear_stays_in_range_and_keeps_constants() -> None:
    array = DRAWS.uniform(size=(9, 10, 11, 1)).astype(np.float32)
    resized = resize(array, (4, 25, 11))
    assert resized.dtype == np.float32
    assert array.min() - 1e-6 <= resized.min() and resized.max() <= array.max() + 1e-6
    np.testing.assert_allclose(resize(np.ones_like(array), (4, 25, 7)), 1, rtol=1e-6)
    assert resize(array, (9, 10, 11)) is array


def test_labels_by_hand() -> None:
    """The largest share wins, of equal ones the lowest label."""
    np.testing.assert_array_equal(resize_labels(np.array([1, 2], np.uint8), (6,)), [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(resize_labels(np.array([0, 0, 2, 2], np.uint8), (2,)), [0, 2])
    np.testing.assert_array_equal(resize_labels(np.array([3, 1], np.uint8), (1,)), [1])
    np.testing.assert_array_equal(
        resize_labels(np.array([[0, 2], [5, 5]], np.uint8), (4, 4)), [[0, 0, 2, 2], [0, 0, 2, 2], [5] * 4, [5] * 4]
    )


def test_labels_invents_no_label_and_keeps_a_constant() -> None:
    for _ in range(50):
        mask = DRAWS.choice([0, 2, 7], size=DRAWS.integers(1, 9, size=3)).astype(np.uint8)
        shape = tuple(DRAWS.integers(1, 17, size=3))
        resized = resize_labels(mask, shape)
        assert set(np.unique(resized)) <= set(np.unique(mask)) and resized.dtype == np.uint8
        np.testing.assert_array_equal(resize_labels(np.full_like(mask, 7), shape), 7)
    assert resize_labels(mask, mask.shape) is mask


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 4, 4), (3, 5, 7), (11, 4, 16)])
def test_labels_know_no_first_and_last(shape: tuple[int, ...]) -> None:
    """Shrunk by an even factor, the nearest neighbour took voxels 1 3 5 7 of eight: half a voxel off to one side."""
    for _ in range(20):
        mask = DRAWS.integers(0, 3, size=(8, 8, 8)).astype(np.uint8)
        resized = resize_labels(mask, shape)
        for axis in range(3):
            np.testing.assert_array_equal(resize_labels(np.flip(mask, axis), shape), np.flip(resized, axis))


def test_a_mask_stays_aligned_with_its_image() -> None:
    ball = np.square(np.indices((24, 24, 24)) - 11.5).sum(axis=0) < 64
    image = resize(ball.astype(np.float32)[..., None], (12, 12, 12))[..., 0]
    np.testing.assert_array_equal(resize_labels(ball.astype(np.uint8), (12, 12, 12)) == 1, image > 0.5)


def test_half_a_grid_and_back_loses_less_than_the_nearest_neighbour() -> None:
    """Of blobs in blobs, as of the regions of a tumour; the nearest neighbour shrinks 8 voxels to 1 3 5 7."""
    rng, lost = np.random.default_rng(3), []
    for _ in range(5):
        field = gaussian_filter(rng.normal(size=(48, 48, 32)), 4)
        mask = np.digitize(field, np.quantile(field, [0.7, 0.85, 0.95])).astype(np.uint8)
        ours = resize(np.eye(4, dtype=np.float32)[resize_labels(mask, (24, 24, 16))], mask.shape).argmax(axis=-1)
        nearest = mask[1::2, 1::2, 1::2].repeat(2, 0).repeat(2, 1).repeat(2, 2)
        pairs = [[dice(mask == label, back == label) for back in (ours, nearest)] for label in (1, 2, 3)]
        lost.append(1 - np.array(pairs))
    by_label = np.mean(lost, axis=0)
    np.testing.assert_allclose(by_label[:, 1], [0.30, 0.26, 0.16], atol=0.01)
    assert (by_label[:, 0] < 0.75 * by_label[:, 1]).all()


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarging_of_labels_is_undone_exactly(factor: int) -> None:
    mask = DRAWS.integers(0, 3, size=(4, 5, 6)).astype(np.uint8).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    enlarged = resize_labels(mask, tuple(factor * size for size in mask.shape))
    assert np.mean(resize_labels(enlarged, mask.shape) == mask) > 0.98
