from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preparing.resampling import resize
from self_supervised_3d_tasks.data.preparing.resized_rows import resize_rows


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((8, 6), (19, 13)),  # larger
        ((19, 13), (8, 6)),  # smaller, with smoothing
        ((16, 5, 9), (7, 11, 9)),  # smaller, larger and as it was
        ((4, 16, 16), (10, 16, 3)),
        ((3, 1), (9, 4)),
        ((12, 12, 12), (12, 12, 12)),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_rows_are_those_of_the_whole(old, new, step):
    array = np.random.default_rng(0).random((*old, 3)).astype(np.float32)
    whole = resize(array, new)
    for first in range(0, new[0], step):
        rows = slice(first, min(first + step, new[0]))
        found = resize_rows(array, new, rows)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, whole[rows], atol=1e-6, rtol=0)
