"""Classification: ordinal targets, and the scores of a test set.

A score here is one number for a whole set of cases; `metrics` scores one segmented case at a time. An ordinal target
(``multilabel``) writes grade g as num_classes values of which the first g + 1 are ones: output k says how sure it is
that the grade is at least k (Cheng et al. 2008, "A Neural Network Approach to Ordinal Regression").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from self_supervised_3d_tasks.errors import UserError, nearest

# (truth (n,), prediction (n,), probabilities (n, num_classes)) -> score
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def ordinal_encode(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return ``(..., num_classes)`` float32 targets: grade 2 of 5 is 1 1 1 0 0.

    Args:
        labels: Integers ``(...)`` in [0, num_classes).
        num_classes: Number of grades.
    """
    return (np.arange(num_classes) <= np.asarray(labels)[..., np.newaxis]).astype(np.float32)


def ordinal_decode(outputs: np.ndarray) -> np.ndarray:
    """Return the grades ``(...)`` of cumulative outputs ``(..., num_classes)`` in [0, 1].

    The grade is the last of the leading outputs above 0.5: what stands behind the first failure does not count, so that
    1 0 1 0 0 is grade 0. Without any it is 0 as well; there is no grade -1 to drop out of a score.
    """
    leading = np.cumprod(np.asarray(outputs) > 0.5, axis=-1).sum(axis=-1)
    return np.maximum(leading - 1, 0)


def ordinal_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return class probabilities ``(..., num_classes)``, which sum to 1, of cumulative outputs of that shape.

    A cumulative output may not exceed the one before it, and a grade is at least 0 for certain. The probability of
    grade g is then the difference of outputs g and g + 1.
    """
    cumulative = np.minimum.accumulate(np.asarray(outputs, np.float64), axis=-1)
    cumulative[..., 0] = 1
    return cumulative - np.pad(cumulative[..., 1:], [(0, 0)] * (cumulative.ndim - 1) + [(0, 1)])


def decode(outputs: np.ndarray, *, multilabel: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted classes ``(n,)`` and the class probabilities ``(n, num_classes)``, which sum to 1.

    Args:
        outputs: ``(n, num_classes)`` in [0, 1]: one per class, or with ``multilabel`` cumulative.
        multilabel: The model was trained on ordinal targets.
    """
    outputs = np.asarray(outputs, np.float64)
    if multilabel:
        return ordinal_decode(outputs), ordinal_probabilities(outputs)
    total = outputs.sum(axis=-1, keepdims=True)  # not 1 where each class has a sigmoid of its own
    return np.argmax(outputs, axis=-1), outputs / np.maximum(total, np.finfo(np.float64).tiny)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Return how often class ``row`` was predicted as class ``column``, ``(num_classes, num_classes)`` integers."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (np.asarray(truth, np.int64), np.asarray(prediction, np.int64)), 1)
    return matrix


def quadratic_weighted_kappa(truth: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray) -> float:
    """Return 1 - Σ w·observed / Σ w·expected with w = (row - column)² over all classes (Cohen 1968), in [-1, 1].

    A constant prediction scores 0, also where the truth is the same constant: no agreement beyond chance was shown.
    """
    num_classes = probabilities.shape[-1]
    observed = confusion_matrix(truth, prediction, num_classes)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / len(truth)
    weights = np.subtract.outer(np.arange(num_classes), np.arange(num_classes)) ** 2
    by_chance = np.sum(weights * expected)
    return float(1 - np.sum(weights * observed) / by_chance) if by_chance else 0.0


def accuracy(truth: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of cases whose class is right."""
    return float(np.mean(truth == prediction))


def binary_accuracy(truth: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of cases that are rightly told to be of class 0, or not to be."""
    return float(np.mean((truth == 0) == (prediction == 0)))


def balanced_accuracy(truth: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of right cases within each class, averaged over the classes that occur."""
    return float(np.mean([np.mean(prediction[truth == label] == label) for label in np.unique(truth)]))


def roc_auc(truth: np.ndarray, prediction: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the area under the ROC curve: of class 1 if there are two, else the mean of each class against the rest.

    A class counts in the mean if some cases are of it and some are not. NaN if all cases are of one class.
    """
    from sklearn.metrics import roc_auc_score

    num_classes = probabilities.shape[-1]
    classes = [1] if num_classes == 2 else range(num_classes)
    areas = [
        roc_auc_score(truth == label, probabilities[:, label])
        for label in classes
        if 0 < np.count_nonzero(truth == label) < len(truth)
    ]
    return float(np.mean(areas)) if areas else math.nan


SCORES: dict[str, Score] = {
    "qw_kappa": quadratic_weighted_kappa,
    "qw_kappa_kaggle": quadratic_weighted_kappa,
    "cat_accuracy": accuracy,
    "cat_acc_kaggle": accuracy,
    "bin_accuracy": binary_accuracy,
    "roc_auc": roc_auc,
    "balanced_accuracy": balanced_accuracy,
}


def score(name: str, truth: np.ndarray, probabilities: np.ndarray, *, prediction: np.ndarray | None = None) -> float:
    """Score the predictions of a test set.

    Args:
        name: A key of `SCORES`. Those that end in "kaggle" are the predecessor's names of the same scores.
        truth: Classes ``(n,)``, n at least 1.
        probabilities: Class probabilities ``(n, num_classes)``.
        prediction: Predicted classes ``(n,)``; default: the most probable ones.

    Returns:
        The score; NaN for ``roc_auc`` where all cases are of one class.

    Raises:
        UserError: Unknown name.
        ValueError: The shapes do not fit, or a class is out of range.
    """
    check_names([name])
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    prediction = np.argmax(probabilities, axis=-1) if prediction is None else np.asarray(prediction)
    if not len(truth) or not truth.shape == prediction.shape == probabilities.shape[:1]:
        shapes = f"{truth.shape}, {prediction.shape} and {probabilities.shape}"
        raise ValueError(f"score: expected shapes (n,), (n,) and (n, num_classes), n > 0, received {shapes}")
    if min(truth.min(), prediction.min()) < 0 or max(truth.max(), prediction.max()) >= probabilities.shape[1]:
        raise ValueError(f"score: expected classes from 0 to {probabilities.shape[1] - 1}")
    return SCORES[name](truth, prediction, probabilities)


def check_names(names: Iterable[str]) -> list[str]:
    """Return the scores without repetition; `UserError` for the first that is unknown."""
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in SCORES:
            known = ", ".join(SCORES)
            raise UserError(f"scores: {name!r} is no score of a classification; known: {known}.{nearest(name, SCORES)}")
    return names
