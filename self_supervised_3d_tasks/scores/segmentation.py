"""Scores of one segmented case, from the labels of its voxels.

A class in neither the truth nor the prediction has no score: it is NaN and does not count in a mean. A class in one of
them only scores 0.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from self_supervised_3d_tasks.scores.base import Predictions, Score, mean_of_defined

TASK = "segmentation"
# BraTS with the enhancing tumour's label 4 stored as 3: 1 necrotic core, 2 oedema, 3 enhancing tumour.
BRATS_REGIONS = {"brats_wt": (1, 2, 3), "brats_tc": (1, 3), "brats_et": (3,)}


def scores(outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return the scores of masks by name, each in [0, 1].

    ``dice`` and ``jaccard`` are means over the foreground classes. ``dice_class_K`` and ``dice_pancreas_K`` are the
    Dice of label K, and ``dice_class`` stands for one ``dice_class_K`` per foreground class. ``brats_wt``, ``brats_tc``
    and ``brats_et`` are the Dice of the whole tumour (labels 1, 2, 3), of its core (1, 3) and of the enhancing tumour
    (3); they need four classes.

    Args:
        outputs: Names of the classes, background included.
    """
    labels = range(len(outputs))
    per_class = {f"dice_class_{label}": dice_of((label,)) for label in labels}
    regions = {name: dice_of(region) for name, region in BRATS_REGIONS.items() if max(region) < len(outputs)}
    single = {"dice": mean_over_foreground(dice), "jaccard": mean_over_foreground(jaccard)} | regions | per_class
    single |= {f"dice_pancreas_{label}": dice_of((label,)) for label in labels}
    foreground = {name: score for name, score in per_class.items() if name != "dice_class_0"}
    return {"dice_class": foreground} | {name: {name: score} for name, score in single.items()}


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return 2·|A ∩ B| / (|A| + |B|) of two boolean arrays of one shape, in [0, 1]; NaN if both are empty."""
    total = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(truth & prediction) / total if total else math.nan


def jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return |A ∩ B| / |A ∪ B| of two boolean arrays of one shape, in [0, 1]; NaN if both are empty."""
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else math.nan


def dice_of(labels: Sequence[int]) -> Score:
    """Return the score that compares the union of some labels."""
    return lambda found: dice(np.isin(found.truth, labels), np.isin(found.prediction, labels))


def mean_over_foreground(overlap: Callable[[np.ndarray, np.ndarray], float]) -> Score:
    """Return the score that averages an overlap over the foreground classes that occur."""

    def score(found: Predictions) -> float:
        largest = max(int(found.truth.max()), int(found.prediction.max()))
        return mean_of_defined(
            overlap(found.truth == label, found.prediction == label) for label in range(1, largest + 1)
        )

    return score
