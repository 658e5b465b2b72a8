"""Names of the axes along which scans are mirrored."""

from collections.abc import Sequence

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment


def axes_of(names: Sequence[str], experiment: FinetuneExperiment) -> tuple[int, ...]:
    """Return the spatial axes of some names, from 0.

    Volumes have x (left to right), y (posterior to anterior) and z (inferior to superior), arrays without directions
    their first, second and third axis; photographs have rows and columns.

    Args:
        names: The names, each once.
        experiment: What the model was trained with.

    Raises:
        UserError: A name is not known, or is given twice.
    """
    is_picture = experiment.rank == 2 and experiment.layout.rows_first
    known = ("rows", "columns") if is_picture else ("x", "y", "z")[: experiment.rank]
    for name in names:
        if name not in known:
            raise UserError(f"--mirror: expected some of {','.join(known)}, received {name!r}.{nearest(name, known)}")
    if len(set(names)) < len(names):
        raise UserError(f"--mirror: expected each axis once, received {','.join(names)}")
    return tuple(sorted(map(known.index, names)))
