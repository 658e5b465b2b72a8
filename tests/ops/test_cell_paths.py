"""Paths through the nine cells of a square grid."""

import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops.cell_paths import PATHS, checked_path


@pytest.mark.parametrize("name", PATHS)
def test_paths_go_from_neighbour_to_neighbour_around_the_target(name):
    path = checked_path(name, (1, 1))
    assert len(set(path)) == len(path) == {"u": 7, "spiral": 8}[name]
    assert (1, 1) not in path
    np.testing.assert_array_equal(np.abs(np.diff(path, axis=0)).sum(axis=1), 1)


def test_a_path_of_lists_becomes_one_of_tuples():
    assert checked_path([[0, 0], [0, 1]], (1, 1)) == ((0, 0), (0, 1))


@pytest.mark.parametrize(
    ("path", "target", "message"),
    [
        ((), (1, 1), "cube_path.*at least one"),
        (((0, 0), (0, 3)), (1, 1), r"cube_path.*0 .. 2, received \[0, 3\]"),
        (((0, -1),), (1, 1), "cube_path.*0 .. 2"),
        (((0, 0), (1, 0), (0, 0)), (1, 1), r"cube_path: cell \[0, 0\].*more than once"),
        (((0, 0), (2, 0)), (1, 1), r"cube_path: \[2, 0\] is not beside \[0, 0\]"),
        (((0, 0), (0, 1)), (0, 1), "target_cube.*part of the support"),
        ("spiral", (0, 1), "target_cube.*part of the support"),
        ("u", (3, 0), "target_cube.*0 .. 2"),
    ],
)
def test_what_is_no_path_is_refused(path, target, message):
    with pytest.raises(UserError, match=message):
        checked_path(path, target)
