"""Random changes of a view."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops.view_changes import Corruption, Deformation

SHAPES = [(8, 6, 2), (8, 6, 4, 1)]
NOTHING = Corruption(blur_sigma=0, noise_sigma=0, gamma=0, swap_share=0, swap_cell=(2, 2, 2))


def image_of(shape):
    return tf.constant(np.random.default_rng(0).uniform(size=shape), "float32")


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_zero_changes_nothing(shape):
    view = image_of(shape)
    np.testing.assert_array_equal(NOTHING.apply(view, tf.constant([0, 1])), view)
    np.testing.assert_array_equal(Deformation(False, 0, 0).apply(view, tf.constant([0, 1])), view)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_second_view_is_flipped_from_left_to_right(shape):
    view, flips = image_of(shape), 0
    for number in range(40):
        result = Deformation(True, 0, 0).apply(view, tf.constant([number, 1])).numpy()
        flipped = np.array_equal(result, np.flip(view, 0 if len(shape) == 4 else 1))
        assert flipped or np.array_equal(result, view)
        flips += flipped
    assert 10 < flips < 30


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deformed_view_stays_in_the_range_of_the_view(shape):
    view = image_of(shape)
    results = [Deformation(False, 0.1, 10.0).apply(view, tf.constant([number, 1])).numpy() for number in range(5)]
    for result in results:
        assert not np.array_equal(result, view)
        assert result.min() >= np.min(view) - 1e-6
        assert result.max() <= np.max(view) + 1e-6
    assert len({result.tobytes() for result in results}) == 5
    again = Deformation(False, 0.1, 10.0).apply(view, tf.constant([0, 1]))
    np.testing.assert_array_equal(again, results[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_each_corruption_by_itself(shape):
    view, seed = image_of(shape), tf.constant([3, 1])
    cell = (2,) * (len(shape) - 1)

    def corrupted(**strength):
        return dataclasses.replace(NOTHING, **{"swap_cell": cell} | strength).apply(view, seed).numpy()

    blurred, noisy = corrupted(blur_sigma=2.0), corrupted(noise_sigma=0.25)
    assert blurred.std() < np.std(view)
    assert 0 < (noisy - view.numpy()).std() < 0.25 * 1.2
    exponents = np.log(corrupted(gamma=0.3)) / np.log(view)
    np.testing.assert_allclose(exponents, exponents.flat[0], rtol=1e-3)
    assert np.exp(-0.3) <= exponents.flat[0] <= np.exp(0.3)
    swapped = corrupted(swap_share=0.5)
    assert not np.array_equal(swapped, view)
    np.testing.assert_array_equal(np.sort(swapped, axis=None), np.sort(view, axis=None))
    with_all = corrupted(blur_sigma=2.0, noise_sigma=0.25, gamma=0.3, swap_share=0.5)
    assert with_all.min() >= 0
    assert with_all.max() <= 1
