"""Scores of findings, of which an image can have any number: one number for a whole set of images.

Each finding is a yes-or-no question of its own; its score is the area under the ROC curve, which no threshold and no
prevalence enters. The mean over the findings is what papers on ChestX-ray14 report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from self_supervised_3d_tasks.errors import UserError, nearest

MEAN = "mean_auroc"
EACH = "auroc"
"""Stands for one score per finding."""


def name_of(finding: str) -> str:
    """Return the score of one finding: ``auroc_Lung_Opacity`` of "Lung Opacity", which names columns and files."""
    return re.sub(r"\W+", "_", f"{EACH}_{finding}")


def is_name(name: str) -> bool:
    """Return whether a score of a table can be one of findings."""
    return name == MEAN or name.startswith(f"{EACH}_")


def expand(names: Iterable[str], findings: Sequence[str]) -> list[str]:
    """Return the scores that ``names`` ask for, without repetition.

    Args:
        names: ``mean_auroc``, ``auroc_<finding>``, or ``auroc`` for those of all findings.
        findings: What is predicted.

    Raises:
        UserError: Unknown name.
    """
    each = [name_of(finding) for finding in findings]
    expanded: list[str] = []
    for name in names:
        if name not in (MEAN, EACH, *each):
            known = ", ".join((MEAN, EACH, *each))
            raise UserError(f"scores: {name!r} is no score of findings; known: {known}.{nearest(name, (MEAN, *each))}")
        expanded += each if name == EACH else [name]
    return list(dict.fromkeys(expanded))


def scored(truth: np.ndarray) -> np.ndarray:
    """Return for each finding whether it has an area: some images have it and some have not; ``(num_findings,)``.

    Args:
        truth: 0 or 1, ``(n, num_findings)``.
    """
    present = np.count_nonzero(truth, axis=0)
    return (present > 0) & (present < len(truth))


def areas(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each finding, ``(num_findings,)``.

    NaN for a finding that is not `scored`: there is no pair to rank.

    Args:
        truth: 0 or 1, ``(n, num_findings)``.
        probabilities: Of that shape, or whatever ranks the images.
    """
    from sklearn.metrics import roc_auc_score

    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    if truth.ndim != 2 or truth.shape != probabilities.shape:
        raise ValueError(f"areas: expected one shape (n, findings), received {truth.shape} and {probabilities.shape}")
    return np.array(
        [
            roc_auc_score(column, ranks) if defined else math.nan
            for column, ranks, defined in zip(truth.T, probabilities.T, scored(truth), strict=True)
        ]
    )


def score(
    names: Iterable[str], truth: np.ndarray, probabilities: np.ndarray, findings: Sequence[str]
) -> dict[str, float]:
    """Return the scores of a test set by name.

    ``mean_auroc`` is the mean over the findings whose area is defined, NaN without one.

    Args:
        names: As `expand` takes them.
        truth: 0 or 1, ``(n, num_findings)``.
        probabilities: Of that shape.
        findings: Names of the columns.
    """
    values = areas(truth, probabilities)
    defined = values[~np.isnan(values)]
    known = {name_of(finding): float(value) for finding, value in zip(findings, values, strict=True)}
    known[MEAN] = float(defined.mean()) if len(defined) else math.nan
    return {name: known[name] for name in expand(names, findings)}
