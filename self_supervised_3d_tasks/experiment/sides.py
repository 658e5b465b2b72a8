"""Classes whose names say left or right, which a flip from left to right exchanges."""

import re

from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# left_kidney, Kidney (R), kidneyLeft, LKidney, leftlung, Parotid Lt, ctx-lh-insula, femur_sin, left1; but not cleft,
# the vertebra L1 or the ventricle LV.
_SIDE = re.compile(
    r"(?<![a-z])(?:left|right)|(?<![a-z])(?:lt|rt|lh|rh|sin(?:istra)?|dext?(?:ra)?)(?![a-z])|"
    r"(?<![a-z0-9])[lr](?![a-z0-9])",
    re.IGNORECASE,
)


def sided(experiment: FinetuneExperiment) -> list[str]:
    """Return the names of classes that say left or right."""
    return [name for name in experiment.class_names or [] if _SIDE.search(_HUMP.sub(" ", name))]


def pairs(experiment: FinetuneExperiment) -> list[list[int]]:
    """Return the numbers of the classes whose names differ in the side alone."""
    by_organ: dict[str, list[int]] = {}
    for name in sided(experiment):
        organ = _SIDE.sub("", _HUMP.sub(" ", name)).casefold()
        by_organ.setdefault(organ, []).append(experiment.class_names.index(name))
    return [numbers for numbers in by_organ.values() if len(numbers) == 2]


def swaps(experiment: FinetuneExperiment) -> list[tuple[int, int]]:
    """Return the pairs of classes that change sides with a mask: ``augment_swap_labels``, or what the names say."""
    given = experiment.augment_swap_labels
    return [(one, other) for one, other in (pairs(experiment) if given is None else given)]


def without_counterpart(experiment: FinetuneExperiment) -> list[str]:
    """Return the names of the classes that say left or right where nobody says which class they become in a flip."""
    if experiment.augment_swap_labels is not None:
        return []
    known = {label for pair in pairs(experiment) for label in pair} if experiment.task == "segmentation" else set()
    return [name for name in sided(experiment) if experiment.class_names.index(name) not in known]
