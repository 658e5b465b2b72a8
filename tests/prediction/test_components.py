from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction.components import classes_of, keep_largest

MASK = np.array([[1, 1, 0, 2, 0], [1, 0, 1, 0, 2], [0, 0, 0, 2, 2], [1, 3, 0, 0, 3]], np.uint8)


def test_the_largest_component_of_each_chosen_class_stays():
    both = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 2], [0, 0, 0, 2, 2], [0, 3, 0, 0, 3]], np.uint8)
    before = MASK.copy()
    np.testing.assert_array_equal(keep_largest(MASK, (1, 2)), both)
    np.testing.assert_array_equal(MASK, before)
    only_three = MASK.copy()
    only_three[3, 4] = 0  # of equal ones the first
    np.testing.assert_array_equal(keep_largest(MASK, (3,)), only_three)
    np.testing.assert_array_equal(keep_largest(MASK, (4, 9)), MASK)
    np.testing.assert_array_equal(keep_largest(np.zeros_like(MASK), (1,)), 0)


def test_random_volumes_against_a_flood_fill():
    for seed in range(5):
        mask = np.random.default_rng(seed).integers(0, 3, (5, 6, 4)).astype(np.uint8)
        kept = keep_largest(mask, (1, 2))
        for label in (1, 2):
            components = flood(mask == label)
            largest = max(components, key=len)
            assert set(zip(*np.nonzero(kept == label), strict=True)) == largest


def flood(where):
    """Connected components as sets of voxels, in the order of their first voxels."""
    left, found = set(zip(*np.nonzero(where), strict=True)), []
    for start in sorted(left):
        if start in left:
            left.remove(start)
            front, component = [start], {start}
            while front:
                voxel = front.pop()
                for axis in range(len(voxel)):
                    for step in (-1, 1):
                        other = (*voxel[:axis], voxel[axis] + step, *voxel[axis + 1 :])
                        if other in left:
                            left.remove(other)
                            component.add(other)
                            front.append(other)
            found.append(component)
    return found


def test_classes_are_all_or_named():
    assert classes_of(None, 4) == ()
    assert classes_of("all", 4) == (1, 2, 3)
    assert classes_of("3,1,3", 4) == (1, 3)
    for text in ("0", "4", "1,,2", "liver", ""):
        with pytest.raises(UserError, match="--largest_component: expected all, or numbers of classes from 1 to 3"):
            classes_of(text, 4)
