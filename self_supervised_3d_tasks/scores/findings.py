"""Scores of findings, of which an image can have any number: one number for a whole set of images.

Each finding is a yes-or-no question of its own; its score is the area under the ROC curve, which no threshold and no
prevalence enters. The mean over the findings is what papers on ChestX-ray14 report.
"""

import re
from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks.scores.base import Predictions, Score, mean_of_defined, roc_area

TASK = "findings"
MEAN = "mean_auroc"
EACH = "auroc"
"""Stands for one score per finding."""


def scores(outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return the scores of findings by name: ``mean_auroc``, ``auroc_<finding>``, and ``auroc`` for all of the latter.

    ``mean_auroc`` is the mean over the findings whose area is defined, NaN without one.

    Args:
        outputs: Names of the findings.
    """
    each = {name_of(finding): area_of(index) for index, finding in enumerate(outputs)}
    mean = {MEAN: lambda found: mean_of_defined(areas(found))}
    return {MEAN: mean, EACH: each} | {name: {name: score} for name, score in each.items()}


def name_of(finding: str) -> str:
    """Return the score of one finding: ``auroc_Lung_Opacity`` of "Lung Opacity", which names columns and files."""
    return re.sub(r"\W+", "_", f"{EACH}_{finding}")


def area_of(index: int) -> Score:
    """Return the score of the finding at a place in the list."""
    return lambda found: roc_area(found.truth[:, index], found.probabilities[:, index])


def areas(found: Predictions) -> np.ndarray:
    """Return the area under the ROC curve of each finding, ``(num_findings,)``; NaN for one that is not `scored`."""
    return np.array([roc_area(*columns) for columns in zip(found.truth.T, found.probabilities.T, strict=True)])


def scored(truth: np.ndarray) -> np.ndarray:
    """Return for each finding whether it has an area: some images have it and some have not; ``(num_findings,)``.

    Args:
        truth: 0 or 1, ``(n, num_findings)``.
    """
    present = np.count_nonzero(truth, axis=0)
    return (present > 0) & (present < len(truth))
