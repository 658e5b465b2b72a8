"""t-SNE of codes."""

import numpy as np
import pytest

from self_supervised_3d_tasks.analysis.codes import embed


def test_wholes_that_are_far_apart_stay_apart():
    rng = np.random.default_rng(0)
    centres = np.eye(5)[:3].repeat(10, axis=0)
    codes = (centres + 0.05 * rng.normal(size=(30, 5))) * rng.uniform(1, 20, (30, 1))
    points = embed(codes, seed=3).reshape(3, 10, 2)
    middles = points.mean(axis=1)
    within = np.linalg.norm(points - middles[:, None], axis=-1).max()
    between = min(np.linalg.norm(middles[first] - middles[second]) for first, second in [(0, 1), (0, 2), (1, 2)])
    assert between > 2 * within
    np.testing.assert_array_equal(points.reshape(30, 2), embed(codes, seed=3))
    assert not np.array_equal(points.reshape(30, 2), embed(codes, seed=4))


@pytest.mark.parametrize("codes", [np.random.default_rng(0).normal(size=(4, 2)), np.ones((6, 3))])
def test_few_points_and_collapsed_codes(codes):
    points = embed(codes)
    assert points.shape == (len(codes), 2)
    assert np.isfinite(points).all()
