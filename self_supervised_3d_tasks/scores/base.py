"""What every score of finished predictions is: a function of `Predictions`, found by its name (see the folder)."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError, nearest

sklearn_metrics = lazy.load("sklearn.metrics")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Finished predictions with their truth: the mask of one case, or the answers for all n cases of a test set.

    Attributes:
        truth: Labels ``(*spatial)`` of a mask, classes ``(n,)``, or findings ``(n, num_findings)``, 0 or 1.
        prediction: The predicted ones, of the same shape.
        probabilities: In [0, 1]: ``(n, num_classes)``, which sum to 1, or ``(n, num_findings)``, which do not. Of masks
            none are kept: an empty array.
        occurring: Of masks: the foreground classes in the truth of any test case; None where that is not known.
        spacing: Of masks: size of a voxel in mm along each spatial axis; None where it is not known: ones.

    Raises:
        ValueError: There is nothing to score, the shapes differ, or the spacing is that of other axes.
    """

    truth: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray = field(default_factory=lambda: np.empty(0))
    occurring: Sequence[int] | None = None
    spacing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.truth.size or self.truth.shape != self.prediction.shape:
            shapes = f"{self.truth.shape} and {self.prediction.shape}"
            raise ValueError(f"Predictions: expected equal shapes that are not empty, received {shapes}")
        if self.spacing is not None and len(self.spacing) != self.truth.ndim:
            raise ValueError(f"Predictions: expected the spacing of {self.truth.ndim} axes, received {self.spacing}")


Score = Callable[[Predictions], float]
"""NaN where the score is not defined: tables leave that case out, in every mode, and say how often it happened."""


@dataclass(frozen=True)
class Distance:
    """A `Score` in mm, of which less is better. Of every other score more is better, and it has no unit.

    Attributes:
        score: Gives the distance.
    """

    score: Score

    def __call__(self, found: Predictions) -> float:
        """Return the distance in mm."""
        return self.score(found)


def mean_of_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def roc_area(truth: np.ndarray, ranks: np.ndarray) -> float:
    """Return the area under the ROC curve in [0, 1]; NaN where all or none are true, so that there is no pair to rank.

    Args:
        truth: 0 or 1, ``(n,)``.
        ranks: What should be higher where it is 1, ``(n,)``.
    """
    mixed = 0 < np.count_nonzero(truth) < len(truth)
    return float(sklearn_metrics.roc_auc_score(truth, ranks)) if mixed else math.nan


def chosen(noun: str, names: Iterable[str], known: Mapping[str, Any], task: str, outputs: Sequence[str]) -> list[Any]:
    """Return what some names of scores or metrics stand for.

    Args:
        noun: ``"score"`` or ``"metric"``, the singular of the key that held the names.
        names: What was given.
        known: By name, what could have been given.
        task: What is predicted.
        outputs: Names of the classes or findings, on which the known names depend.

    Raises:
        UserError: A name is not known.
    """
    kind = task if task == "findings" else f"{task} with {len(outputs)} classes"
    for name in (name for name in names if name not in known):
        shown = dict.fromkeys(re.sub(r"_\d+$", "_K", each) for each in known)
        hint = f"known: {', '.join(shown)}.{nearest(name, known)}"
        raise UserError(f"{noun}s: {name!r} is no {noun} of {kind}; {hint}")
    return [known[name] for name in names]
