from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from skimage.transform import resize

from self_supervised_3d_tasks.data.resampling import linear_taps, resize_linear, resize_nearest

DRAWS = np.random.default_rng(0)


def test_doubling_by_hand() -> None:
    array = np.array([[0.0], [4.0]], np.float32)
    np.testing.assert_array_equal(resize_linear(array, (4,))[:, 0], [0, 1, 3, 4])


def test_halving_by_hand() -> None:
    # Filter of half-width 2 around 0.5: voxels 0, 1, 2 weigh 0.75, 0.75, 0.25, divided by their sum.
    array = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    np.testing.assert_allclose(
        resize_linear(array, (2,))[:, 0], [(3 + 6 + 3) / 7, (2 + 9 + 12) / 7], rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(9, 8, 12), (5, 16, 7), (10, 7, 13)])
def test_enlarging_equals_skimage(shape: tuple) -> None:
    array = DRAWS.normal(size=(5, 7, 6, 2)).astype(np.float32)
    expected = resize(array, (*shape, 2), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(resize_linear(array, shape), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (11, 2), (1, 1), (20, 21), (4, 40)])
def test_any_size_equals_tensorflow(shape: tuple) -> None:
    array = DRAWS.normal(size=(11, 13, 3)).astype(np.float32)
    expected = tf.image.resize(array, shape, "bilinear", antialias=True)
    np.testing.assert_allclose(resize_linear(array, shape), expected, atol=1e-5)


@pytest.mark.parametrize(("length", "new_length"), [(1, 5), (5, 1), (7, 7), (35, 32), (32, 35), (100, 3)])
def test_weights_sum_to_one_and_stay_inside(length: int, new_length: int) -> None:
    indices, weights = linear_taps(length, new_length)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert indices.min() >= 0 and indices.max() < length and weights.min() >= 0


def test_linear_stays_in_range_and_keeps_constants() -> None:
    array = DRAWS.uniform(size=(9, 10, 11, 1)).astype(np.float32)
    resized = resize_linear(array, (4, 25, 11))
    assert resized.dtype == np.float32
    assert array.min() - 1e-6 <= resized.min() and resized.max() <= array.max() + 1e-6
    np.testing.assert_allclose(resize_linear(np.ones_like(array), (4, 25, 7)), 1, rtol=1e-6)


def test_nearest_by_hand() -> None:
    np.testing.assert_array_equal(resize_nearest(np.array([1, 2]), (6,)), [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(resize_nearest(np.array([1, 2, 3]), (1,)), [2])
    np.testing.assert_array_equal(resize_nearest(np.array([[0, 2]]), (2, 3)), [[0, 2, 2], [0, 2, 2]])


def test_nearest_invents_no_label() -> None:
    for _ in range(50):
        mask = DRAWS.choice([0, 2, 7], size=DRAWS.integers(1, 9, size=3)).astype(np.uint8)
        resized = resize_nearest(mask, tuple(DRAWS.integers(1, 17, size=3)))
        assert set(np.unique(resized)) <= set(np.unique(mask)) and resized.dtype == np.uint8


@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_enlarging_is_undone_exactly(factor: int) -> None:
    mask = DRAWS.integers(0, 3, size=(4, 5, 6))
    enlarged = resize_nearest(mask, tuple(factor * size for size in mask.shape))
    np.testing.assert_array_equal(enlarged, mask.repeat(factor, 0).repeat(factor, 1).repeat(factor, 2))
    np.testing.assert_array_equal(resize_nearest(enlarged, mask.shape), mask)
