"""Ordinal targets and the scores of a classification: by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import classification as classification_scores


def one_hot(classes, num_classes):
    return np.eye(num_classes)[classes]


def draw(seed, num_classes=5, count=60):
    """Truth and probabilities of a classifier that is right more often than not."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_classes, count)
    probabilities = generator.dirichlet(np.ones(num_classes), count) + 0.3 * one_hot(truth, num_classes)
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_ordinal_targets_by_hand():
    assert classification_scores.ordinal_encode(np.array([0, 2, 4]), 5).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1],
    ]
    assert classification_scores.ordinal_encode(np.array(1), 2).tolist() == [1, 1]


def test_decoding_undoes_encoding():
    labels = np.arange(7)
    targets = classification_scores.ordinal_encode(labels, 7)
    np.testing.assert_array_equal(classification_scores.ordinal_decode(targets), labels)
    np.testing.assert_array_equal(classification_scores.ordinal_probabilities(targets), np.eye(7))


@pytest.mark.parametrize(
    ("outputs", "grade"),
    [
        ([1, 0, 1, 0, 0], 0),  # the predecessor counted the ones: grade 1
        ([0, 0, 0, 0, 0], 0),  # the predecessor: grade -1, which dropped out of its kappa
        ([0.4, 0.9, 0.9, 0.9, 0.9], 0),
        ([0.9, 0.8, 0.51, 0.5, 0.9], 2),
        ([0.9, 0.9, 0.9, 0.9, 0.6], 4),
    ],
)
def test_the_grade_is_the_last_before_the_first_failure(outputs, grade):
    assert classification_scores.ordinal_decode(np.array(outputs)) == grade


def test_ordinal_probabilities_by_hand():
    received = classification_scores.ordinal_probabilities(np.array([[0.9, 0.75, 0.25, 0.5], [0.2, 0.1, 0.0, 0.0]]))
    np.testing.assert_allclose(received, [[0.25, 0.5, 0, 0.25], [0.9, 0.1, 0, 0]])


@pytest.mark.parametrize("seed", range(20))
def test_ordinal_probabilities_are_a_distribution_whose_median_is_the_grade(seed):
    outputs = np.random.default_rng(seed).random((50, 6))
    probabilities = classification_scores.ordinal_probabilities(outputs)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    at_least = 1 - np.cumsum(probabilities, axis=1) + probabilities
    np.testing.assert_array_equal((at_least > 0.5).sum(axis=1) - 1, classification_scores.ordinal_decode(outputs))


def test_decode_of_each_kind_of_output():
    classes, probabilities = classification_scores.decode(np.array([[0.2, 0.6], [0.9, 0.3]]))
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(probabilities, [[0.25, 0.75], [0.75, 0.25]])
    classes, probabilities = classification_scores.decode(np.array([[0.2, 0.6], [0.9, 0.3]]), multilabel=True)
    assert classes.tolist() == [0, 0]
    np.testing.assert_allclose(probabilities, [[0.8, 0.2], [0.7, 0.3]])
    assert np.isfinite(classification_scores.decode(np.zeros((1, 3)))[1]).all()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_classes", [2, 5])
def test_scores_agree_with_scikit_learn(seed, num_classes):
    truth, probabilities = draw(seed, num_classes)
    prediction = probabilities.argmax(axis=1)

    def received(name):
        return classification_scores.score(name, truth, probabilities)

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
    np.testing.assert_array_equal(
        classification_scores.confusion_matrix(truth, prediction, num_classes),
        sklearn_metrics.confusion_matrix(truth, prediction, labels=labels),
    )


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
    assert classification_scores.score(name, truth, one_hot(prediction, 3)) == pytest.approx(expected)


def test_kappa_is_never_nan():
    """The predecessor's was, as soon as one grade had neither truth nor prediction."""
    truth = np.array([0, 1, 1, 3])
    for constant in range(5):
        assert classification_scores.score("qw_kappa", truth, one_hot(np.full(4, constant), 5)) == 0
    assert classification_scores.score("qw_kappa", np.zeros(4, int), one_hot(np.zeros(4, int), 5)) == 0
    assert classification_scores.score("qw_kappa", truth, one_hot(truth, 5)) == 1
    assert classification_scores.score("qw_kappa", np.array([0, 4]), one_hot(np.array([4, 0]), 5)) == -1


def test_the_area_leaves_out_classes_without_both_outcomes():
    truth = np.array([0, 0, 2, 2])  # class 1 never occurs
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.2, 0.5], [0.4, 0.5, 0.1], [0.1, 0.0, 0.9]])
    areas = [sklearn_metrics.roc_auc_score(truth == label, probabilities[:, label]) for label in (0, 2)]
    assert classification_scores.score("roc_auc", truth, probabilities) == pytest.approx(np.mean(areas))
    assert math.isnan(classification_scores.score("roc_auc", np.zeros(4, int), probabilities))
    assert math.isnan(classification_scores.score("roc_auc", np.ones(2, int), one_hot([0, 1], 2)))


def test_balanced_accuracy_of_classes_that_are_predicted_and_do_not_occur():
    probabilities = one_hot([0, 2, 2], 3)
    assert classification_scores.score("balanced_accuracy", np.array([0, 0, 1]), probabilities) == pytest.approx(0.25)


def test_the_decoded_class_counts_where_it_is_given():
    outputs = np.array([[0.9, 0.7, 0.4]])  # cumulative: probabilities 0.3, 0.3, 0.4, but grade 1
    prediction, probabilities = classification_scores.decode(outputs, multilabel=True)
    truth = np.array([1])
    assert classification_scores.score("cat_accuracy", truth, probabilities) == 0
    assert classification_scores.score("cat_accuracy", truth, probabilities, prediction=prediction) == 1


@pytest.mark.parametrize("name", ["qw_kapa", "dice", "cat_accuracy_kaggle"])
def test_an_unknown_score_names_the_known_ones(name):
    with pytest.raises(UserError, match=f"scores: '{name}' is no score of a classification; known: qw_kappa, .*"):
        classification_scores.score(name, np.zeros(1, int), np.ones((1, 2)))
    with pytest.raises(UserError, match="scores:"):
        classification_scores.check_names(["roc_auc", name])


def test_names_come_once_in_their_order():
    assert classification_scores.check_names(["roc_auc", "qw_kappa", "roc_auc"]) == ["roc_auc", "qw_kappa"]


@pytest.mark.parametrize(
    ("truth", "probabilities"), [([], np.ones((0, 2))), ([0, 1], np.ones((1, 2))), ([2], np.ones((1, 2)))]
)
def test_what_does_not_fit_is_refused(truth, probabilities):
    with pytest.raises(ValueError, match="score: expected"):
        classification_scores.score("cat_accuracy", np.array(truth, int), probabilities)
