"""Scores of a classification: by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from self_supervised_3d_tasks import scores
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores.base import Predictions


def one_hot(classes, num_classes):
    return np.eye(num_classes)[classes]


def score(name, truth, probabilities):
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    names = list(map(str, range(probabilities.shape[1])))
    found = Predictions(truth, probabilities.argmax(axis=1), probabilities)
    return scores.find("classification", [name], names)[name](found)


def draw(seed, num_classes=5, count=60):
    """Truth and probabilities of a classifier that is right more often than not."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_classes, count)
    probabilities = generator.dirichlet(np.ones(num_classes), count) + 0.3 * one_hot(truth, num_classes)
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_classes", [2, 5])
def test_scores_agree_with_scikit_learn(seed, num_classes):
    truth, probabilities = draw(seed, num_classes)
    prediction = probabilities.argmax(axis=1)

    def received(name):
        return score(name, truth, probabilities)

    labels = range(num_classes)
    kappa = sklearn_metrics.cohen_kappa_score(truth, prediction, labels=labels, weights="quadratic")
    assert received("qw_kappa") == received("qw_kappa_kaggle") == pytest.approx(kappa)
    accuracy = sklearn_metrics.accuracy_score(truth, prediction)
    for name in ("cat_accuracy", "cat_acc_kaggle"):
        assert received(name) == pytest.approx(accuracy)
    assert received("bin_accuracy") == pytest.approx(sklearn_metrics.accuracy_score(truth > 0, prediction > 0))
    assert received("balanced_accuracy") == pytest.approx(sklearn_metrics.balanced_accuracy_score(truth, prediction))
    if num_classes == 2:
        auc = sklearn_metrics.roc_auc_score(truth, probabilities[:, 1])
    else:
        auc = sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert received("roc_auc") == pytest.approx(auc)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # truth 0 0 1 2, prediction 0 1 1 0; (row - column)² of observed: 1 + 4 = 5,
        # by chance: rows 2 1 1, columns 2 2 0, (2·2·1 + 1·2·1 + 1·2·4 + 1·2·1) / 4 = 4
        ("qw_kappa", 1 - 5 / 4),
        ("cat_accuracy", 2 / 4),
        ("bin_accuracy", 2 / 4),
        ("balanced_accuracy", (1 / 2 + 1 + 0) / 3),
        # one-hot probabilities: per class (true positive rate + true negative rate) / 2
        ("roc_auc", ((1 / 2 + 1 / 2) / 2 + (1 + 2 / 3) / 2 + (0 + 1) / 2) / 3),
    ],
)
def test_scores_by_hand(name, expected):
    truth, prediction = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert score(name, truth, one_hot(prediction, 3)) == pytest.approx(expected)


def test_kappa_is_never_nan():
    """The predecessor's was, as soon as one grade had neither truth nor prediction."""
    truth = np.array([0, 1, 1, 3])
    for constant in range(5):
        assert score("qw_kappa", truth, one_hot(np.full(4, constant), 5)) == 0
    assert score("qw_kappa", np.zeros(4, int), one_hot(np.zeros(4, int), 5)) == 0
    assert score("qw_kappa", truth, one_hot(truth, 5)) == 1
    assert score("qw_kappa", np.array([0, 4]), one_hot(np.array([4, 0]), 5)) == -1


def test_the_area_leaves_out_classes_without_both_outcomes():
    truth = np.array([0, 0, 2, 2])  # class 1 never occurs
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.2, 0.5], [0.4, 0.5, 0.1], [0.1, 0.0, 0.9]])
    areas = [sklearn_metrics.roc_auc_score(truth == label, probabilities[:, label]) for label in (0, 2)]
    assert score("roc_auc", truth, probabilities) == pytest.approx(np.mean(areas))
    assert math.isnan(score("roc_auc", np.zeros(4, int), probabilities))
    assert math.isnan(score("roc_auc", np.ones(2, int), one_hot([0, 1], 2)))


def test_balanced_accuracy_of_classes_that_are_predicted_and_do_not_occur():
    probabilities = one_hot([0, 2, 2], 3)
    assert score("balanced_accuracy", np.array([0, 0, 1]), probabilities) == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["qw_kapa", "dice", "cat_accuracy_kaggle"])
def test_an_unknown_score_names_the_known_ones(name):
    with pytest.raises(UserError, match=f"scores: '{name}' is no score of classification with 2 .*known: qw_kappa, .*"):
        scores.find("classification", ["roc_auc", name], ["0", "1"])


def test_names_come_once_in_their_order():
    assert list(scores.find("classification", ["roc_auc", "qw_kappa", "roc_auc"], ["0"])) == ["roc_auc", "qw_kappa"]


@pytest.mark.parametrize(("truth", "prediction"), [([], []), ([0, 1], [1])])
def test_what_does_not_fit_is_refused(truth, prediction):
    with pytest.raises(ValueError, match="expected equal shapes that are not empty"):
        Predictions(np.array(truth, int), np.array(prediction, int))
