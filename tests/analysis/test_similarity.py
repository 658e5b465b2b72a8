"""How alike codes are."""

import numpy as np
import pytest

from self_supervised_3d_tasks.analysis.codes import similarities


def test_similarities_by_hand():
    # Two wholes of two parts: (1, 0) and (1, 1); (0, 2) and (-3, 0).
    codes = np.array([[[1, 0], [1, 1]], [[0, 2], [-3, 0]]], float)
    half = np.sqrt(0.5)
    same, different = similarities(codes)
    np.testing.assert_allclose(same, [half, 0], atol=1e-7)
    np.testing.assert_allclose(sorted(different), sorted([0, -1, half, -half]), atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 3, 5), (3, 5, 1), (1, 4, 2)])
def test_every_pair_is_counted_once(shape):
    rng = np.random.default_rng(sum(shape))
    codes = rng.normal(size=shape)
    wholes, parts, _ = shape
    expected = {True: [], False: []}
    flat = [(whole, codes[whole, part]) for whole in range(wholes) for part in range(parts)]
    for index, (whole, code) in enumerate(flat):
        for other, second in flat[index + 1 :]:
            cosine = code @ second / np.linalg.norm(code) / np.linalg.norm(second)
            expected[whole == other].append(cosine)
    same, different = similarities(codes * rng.uniform(0.5, 9, (wholes, parts, 1)))  # lengths do not matter
    np.testing.assert_allclose(np.sort(same), np.sort(expected[True]), atol=1e-6)
    np.testing.assert_allclose(np.sort(different), np.sort(expected[False]), atol=1e-6)
