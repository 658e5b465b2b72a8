"""Names of the axes along which scans are mirrored."""

from collections.abc import Sequence

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment import sides
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment


def axes_of(names: Sequence[str], experiment: FinetuneExperiment) -> tuple[int, ...]:
    """Return the spatial axes of some names, from 0.

    Volumes have x (left to right), y (posterior to anterior) and z (inferior to superior), arrays without directions
    their first, second and third axis; photographs have rows and columns.

    Args:
        names: The names, each once.
        experiment: What the model was trained with.

    Raises:
        UserError: A name is not known, or is given twice; or left and right would be exchanged of classes whose names
            tell them apart, but not which class is which one's counterpart.
    """
    is_picture = experiment.rank == 2 and experiment.layout.rows_first
    known = ("rows", "columns") if is_picture else ("x", "y", "z")[: experiment.rank]
    for name in names:
        if name not in known:
            raise UserError(f"--mirror: expected some of {','.join(known)}, received {name!r}.{nearest(name, known)}")
    if len(set(names)) < len(names):
        raise UserError(f"--mirror: expected each axis once, received {','.join(names)}")
    axes = tuple(sorted(map(known.index, names)))
    if experiment.left_right_axis in axes and (alone := sides.without_counterpart(experiment)):
        raise UserError(
            f"--mirror: {known[experiment.left_right_axis]} exchanges left and right of {', '.join(alone)}, and no "
            "class is known to be the other side's; leave it out"
        )
    return axes
