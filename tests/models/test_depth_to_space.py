"""Depth to space against a loop and TensorFlow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.models.depth_to_space import depth_to_space


def slow_depth_to_space(x: np.ndarray, factor: tuple[int, ...]) -> np.ndarray:
    """One value at a time."""
    batch, *spatial, depth = x.shape
    channels = depth // int(np.prod(factor))
    result = np.empty((batch, *np.multiply(spatial, factor), channels), x.dtype)
    for position in np.ndindex(*result.shape[1:-1]):
        coarse = tuple(np.floor_divide(position, factor))
        inside = np.ravel_multi_index(np.mod(position, factor), factor)
        for sample, channel in itertools.product(range(batch), range(channels)):
            result[(sample, *position, channel)] = x[(sample, *coarse, inside * channels + channel)]
    return result


@pytest.mark.parametrize(
    ("spatial", "factor"),
    [((2, 3), (2, 3)), ((3, 2), (4, 1)), ((2, 3, 2), (2, 2, 1)), ((2, 1, 3), (4, 4, 2)), ((2, 2, 2), (1, 2, 3))],
)
def test_values_against_a_loop(spatial, factor):
    x = np.random.default_rng(0).normal(size=(2, *spatial, 3 * int(np.prod(factor)))).astype("float32")
    np.testing.assert_array_equal(depth_to_space(x, factor), slow_depth_to_space(x, factor))


@pytest.mark.parametrize("side", [2, 3])
def test_squares_in_2d_are_tensorflows(side):
    x = np.random.default_rng(1).normal(size=(2, 4, 5, 2 * side**2)).astype("float32")
    fine = depth_to_space(x, (side, side))
    np.testing.assert_array_equal(fine, tf.nn.depth_to_space(x, side))


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="channels: expected a multiple of 4, received 6"):
        depth_to_space(np.zeros((1, 2, 2, 6), "float32"), (2, 2))
