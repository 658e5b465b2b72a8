"""From run folders to what predicts with the models in them."""

from collections.abc import Sequence
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction import components, mirrors
from self_supervised_3d_tasks.prediction.base import Predictor
from self_supervised_3d_tasks.prediction.masks import MaskPredictor
from self_supervised_3d_tasks.prediction.members import check_agreement, load_members
from self_supervised_3d_tasks.prediction.tables import TablePredictor


def load_predictor(
    *runs: Path,
    job: str | None = None,
    ensemble: str | None = None,
    mirror: Sequence[str] = (),
    largest_component: str | None = None,
    overrides: Sequence[str] = (),
) -> Predictor:
    """Load one model, or several whose probabilities are averaged.

    Args:
        *runs: Run folders of ``finetune.py``; of each, jobs are taken as the other arguments say.
        job: Folder name under ``jobs/``. Default: see `choice.default`.
        ensemble: "all", "best" or names of jobs with commas between them, see `choice.chosen`.
        mirror: Names of axes, see `mirrors.axes_of`; predictions of all flips along them are averaged.
        largest_component: "all", or numbers of classes with commas between them, of which masks keep the largest
            connected component.
        overrides: ``key=value`` items for the runs' experiments, for example ``overlap=0.25``.

    Raises:
        UserError: Not the run folder of a finetuning, no such finished job, or a damaged model file; models that do not
            predict the same; an axis or a class that there is not.
    """
    members = [member for run in runs for member in load_members(run, job, ensemble, overrides)]
    check_agreement(members)
    experiment = members[0].experiment
    axes = mirrors.axes_of(mirror, experiment)
    if experiment.task == "segmentation":
        return MaskPredictor(members, axes, components.classes_of(largest_component, experiment.num_classes))
    if largest_component is not None:
        raise UserError("--largest_component: this model gives no masks, so that there are no components; leave it out")
    return TablePredictor(members, axes)
