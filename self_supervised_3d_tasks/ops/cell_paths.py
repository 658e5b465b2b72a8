"""Paths through the nine cells of a square grid."""

import itertools
from collections.abc import Sequence

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.limits import Few

Cell = tuple[Few, Few]

_U = ((0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2))
PATHS: dict[str, tuple[Cell, ...]] = {"u": _U, "spiral": (*_U, (0, 1))}


def checked_path(cube_path: str | Sequence[Cell], target_cube: Cell) -> tuple[Cell, ...]:
    """Return the cells of a path, each beside the one before it.

    Args:
        cube_path: A key of `PATHS`, or the cells (row, column) themselves, in 0 .. 2.
        target_cube: A cell that is not on the path.

    Raises:
        UserError: A cell is outside, repeated, apart from the one before, or the target; names the keys of the task.
    """
    path = PATHS[cube_path] if isinstance(cube_path, str) else tuple(map(tuple, cube_path))
    for key, cells in (("cube_path", path), ("target_cube", (tuple(target_cube),))):
        outside = [list(cell) for cell in cells if len(cell) != 2 or not all(index in range(3) for index in cell)]
        if outside:
            raise UserError(f"{key}: expected cells [row, column], both in 0 .. 2, received {outside[0]}")
    if not path:
        raise UserError('cube_path: expected at least one cell, received none; leave the key out for "u"')
    repeated = [list(cell) for cell in dict.fromkeys(path) if path.count(cell) > 1]
    if repeated:
        raise UserError(f"cube_path: cell {repeated[0]} is there more than once; a path visits a cell at most once")
    for before, after in itertools.pairwise(path):
        if sum(abs(a - b) for a, b in zip(before, after, strict=True)) != 1:
            raise UserError(
                f"cube_path: {list(after)} is not beside {list(before)}; each cell shares a side with the one before it"
            )
    if tuple(target_cube) in path:
        raise UserError(
            f"target_cube, cube_path: the target {list(target_cube)} is part of the support, where it could be copied "
            "from; choose a cell that is not on the path"
        )
    return path
