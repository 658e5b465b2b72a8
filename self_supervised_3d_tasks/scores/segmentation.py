"""Scores of one segmented case, from the labels of its voxels: defined for every case, whatever was predicted.

A class in neither the truth nor the prediction scores 1, a class in one of them only 0, as the BraTS challenge rules
(Isensee et al. 2020, "nnU-Net for brain tumor segmentation", arXiv:2011.00848, describe it). Leaving such cases out, as
nnU-Net does in its own summaries, would choose the cases by what was predicted: one false voxel and a case counts, none
and it does not, so that means of two models would be over different cases.

A mean over classes is over those that occur in the truth of the test set, the same ones for each of its cases and
every model. MONAI's ``ignore_empty`` takes those of the truth of the case instead, which forgives each false positive
of the others; all classes of the task would add a 1 per case for each label that no mask has.
"""

from collections.abc import Callable, Sequence

import numpy as np

from self_supervised_3d_tasks.scores.base import Predictions, Score

TASK = "segmentation"
# BraTS with the enhancing tumour's label 4 stored as 3: 1 necrotic core, 2 oedema, 3 enhancing tumour.
BRATS_REGIONS = {"brats_wt": (1, 2, 3), "brats_tc": (1, 3), "brats_et": (3,)}


def scores(outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return the scores of masks by name, each in [0, 1].

    ``dice`` and ``jaccard`` are means over the foreground classes that the test set has. ``dice_class_K`` and
    ``dice_pancreas_K`` are the Dice of label K, and ``dice_class`` stands for one ``dice_class_K`` per foreground
    class. ``brats_wt``, ``brats_tc`` and ``brats_et`` are the Dice of the whole tumour (labels 1, 2, 3), of its core
    (1, 3) and of the enhancing tumour (3); they need four classes.

    Args:
        outputs: Names of the classes, background included.
    """
    labels = range(len(outputs))
    per_class = {f"dice_class_{label}": dice_of((label,)) for label in labels}
    regions = {name: dice_of(region) for name, region in BRATS_REGIONS.items() if max(region) < len(outputs)}
    means = {"dice": mean_over_foreground(dice_of, labels[1:]), "jaccard": mean_over_foreground(jaccard_of, labels[1:])}
    single = means | regions | per_class
    single |= {f"dice_pancreas_{label}": dice_of((label,)) for label in labels}
    foreground = {name: score for name, score in per_class.items() if name != "dice_class_0"}
    return {"dice_class": foreground} | {name: {name: score} for name, score in single.items()}


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return 2·|A ∩ B| / (|A| + |B|) of two boolean arrays of one shape, in [0, 1]; 1 if both are empty."""
    total = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(truth & prediction) / total if total else 1.0


def jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return |A ∩ B| / |A ∪ B| of two boolean arrays of one shape, in [0, 1]; 1 if both are empty."""
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def dice_of(labels: Sequence[int]) -> Score:
    """Return the score that is the `dice` of the union of some labels."""
    return lambda found: dice(np.isin(found.truth, labels), np.isin(found.prediction, labels))


def jaccard_of(labels: Sequence[int]) -> Score:
    """Return the score that is the `jaccard` of the union of some labels."""
    return lambda found: jaccard(np.isin(found.truth, labels), np.isin(found.prediction, labels))


def mean_over_foreground(of: Callable[[Sequence[int]], Score], labels: Sequence[int]) -> Score:
    """Return the score that averages another one over the foreground classes that the test set has.

    Where it has none, it is that of all foreground: as good as can be if none was predicted, else as bad.

    Args:
        of: Makes the score of the union of some labels, such as `dice_of`.
        labels: The foreground classes of the task, which count where `Predictions.occurring` is not given.
    """

    def score(found: Predictions) -> float:
        counted = labels if found.occurring is None else found.occurring
        return float(np.mean([of((label,))(found) for label in counted])) if counted else of(labels)(found)

    return score
