"""Scores of a classification: one number for all cases of a test set."""

from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks.scores.base import Predictions, Score, mean_of_defined, roc_area, sklearn_metrics

TASK = "classification"


def scores(outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return the scores of classes by name. Those with "kaggle" in it are the predecessor's names of the same scores.

    Args:
        outputs: Names of the classes, on which nothing depends here.
    """
    known = {
        "qw_kappa": quadratic_weighted_kappa,
        "qw_kappa_kaggle": quadratic_weighted_kappa,
        "cat_accuracy": accuracy,
        "cat_acc_kaggle": accuracy,
        "bin_accuracy": binary_accuracy,
        "roc_auc": roc_auc,
        "balanced_accuracy": balanced_accuracy,
    }
    return {name: {name: score} for name, score in known.items()}


def quadratic_weighted_kappa(found: Predictions) -> float:
    """Return 1 - Σ w·observed / Σ w·expected with w = (row - column)² over all classes (Cohen 1968), in [-1, 1].

    A constant prediction scores 0, also where the truth is the same constant: no agreement beyond chance was shown.
    """
    if len(np.union1d(found.truth, found.prediction)) == 1:
        return 0.0
    labels = range(found.probabilities.shape[-1])  # all of them: the weights are distances between grades
    return float(sklearn_metrics.cohen_kappa_score(found.truth, found.prediction, labels=labels, weights="quadratic"))


def accuracy(found: Predictions) -> float:
    """Return the share of cases whose class is right, in [0, 1]."""
    return float(sklearn_metrics.accuracy_score(found.truth, found.prediction))


def binary_accuracy(found: Predictions) -> float:
    """Return the share of cases that are rightly told to be of class 0, or not to be, in [0, 1]."""
    return float(sklearn_metrics.accuracy_score(found.truth == 0, found.prediction == 0))


def balanced_accuracy(found: Predictions) -> float:
    """Return the share of right cases within each class, averaged over the classes that occur, in [0, 1]."""
    occurring = np.unique(found.truth)
    return float(sklearn_metrics.recall_score(found.truth, found.prediction, labels=occurring, average="macro"))


def roc_auc(found: Predictions) -> float:
    """Return the area under the ROC curve: of class 1 if there are two, else the mean of each class against the rest.

    A class counts in the mean if some cases are of it and some are not. NaN if all cases are of one class.
    """
    num_classes = found.probabilities.shape[-1]
    classes = [1] if num_classes == 2 else range(num_classes)
    return mean_of_defined(roc_area(found.truth == label, found.probabilities[:, label]) for label in classes)
