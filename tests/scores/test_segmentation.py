"""Scores of masks: by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from self_supervised_3d_tasks import scores
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores.base import Predictions
from self_supervised_3d_tasks.scores.statistics import ScoreRow, compare


def expand(names, num_classes):
    return list(scores.find("segmentation", names, list(map(str, range(num_classes)))))


def score(name, truth, prediction, num_classes, occurring=None):
    found = scores.find("segmentation", [name], list(map(str, range(num_classes))))
    return found[name](Predictions(truth, prediction, occurring=occurring))


def union(labels, label_map):
    return np.isin(label_map, labels).ravel()


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(maps, seed):
    truth, prediction = maps(seed)
    flat = truth.ravel(), prediction.ravel()
    foreground = [1, 2, 3]
    assert score("dice", truth, prediction, 4) == pytest.approx(f1_score(*flat, labels=foreground, average="macro"))
    assert score("jaccard", truth, prediction, 4) == pytest.approx(
        jaccard_score(*flat, labels=foreground, average="macro")
    )
    per_class = f1_score(*flat, labels=range(4), average=None)
    for label in range(4):
        assert score(f"dice_class_{label}", truth, prediction, 4) == pytest.approx(per_class[label])
        assert score(f"dice_pancreas_{label}", truth, prediction, 4) == pytest.approx(per_class[label])
    for name, labels in {"brats_wt": [1, 2, 3], "brats_tc": [1, 3], "brats_et": [3]}.items():
        expected = f1_score(union(labels, truth), union(labels, prediction))
        assert score(name, truth, prediction, 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # truth 0 1 1 2 3 3, prediction 1 1 2 2 3 0
        ("dice_class_0", 0),
        ("dice_class_1", 2 * 1 / 4),
        ("dice_class_2", 2 * 1 / 3),
        ("dice_class_3", 2 * 1 / 3),
        ("dice", (1 / 2 + 2 / 3 + 2 / 3) / 3),
        ("jaccard", (1 / 3 + 1 / 2 + 1 / 2) / 3),
        ("brats_wt", 2 * 4 / 10),
        ("brats_tc", 2 * 2 / 7),
        ("brats_et", 2 * 1 / 3),
    ],
)
def test_scores_by_hand(name, expected):
    truth, prediction = np.array([0, 1, 1, 2, 3, 3]), np.array([1, 1, 2, 2, 3, 0])
    assert score(name, truth, prediction, 4) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["brats_wt", "brats_tc", "brats_et"])
def test_a_region_that_is_almost_right_scores_almost_one(name):
    """The predecessor's score compared two voxel indices: 99 % of a tumour right gave 0."""
    truth = np.zeros((10, 10, 4), "uint8")
    truth[..., :2] = 3
    prediction = truth.copy()
    prediction[0, 0, :2] = 0
    assert score(name, truth, prediction, 4) == pytest.approx(2 * 198 / 398)
    assert score(name, truth, truth, 4) == 1
    # Background does not help: every tumour voxel is missed although 97 % of the voxels are right.
    small = np.zeros((10, 10, 1), "uint8")
    small[0, :3] = 3
    assert score(name, small, np.zeros_like(small), 4) == 0


def test_an_absent_class():
    nothing, class_1 = np.zeros((4, 4), int), np.eye(4, dtype=int)
    for name in ("dice_class_2", "dice_pancreas_2"):
        assert score(name, class_1, class_1, 3) == 1  # in neither map
    assert score("dice_class_1", nothing, class_1, 3) == 0  # predicted only
    assert score("dice_class_1", class_1, nothing, 3) == 0  # missed
    assert score("dice", class_1, class_1 * 2, 3) == 0
    for name in ("dice", "jaccard", "brats_et", "brats_wt"):
        assert score(name, nothing, nothing, 4) == 1
    one_voxel = nothing.copy()
    one_voxel[0, 0] = 3
    assert [score(name, nothing, one_voxel, 4) for name in ("brats_wt", "brats_tc", "brats_et")] == [0, 0, 0]


@pytest.mark.parametrize(("name", "half"), [("dice", 2 / 3), ("jaccard", 1 / 2)])
def test_a_mean_is_over_the_classes_of_the_test_set(name, half):
    """The same classes for every case and model: labels of no mask and what was predicted change nothing."""
    nothing, class_1 = np.zeros((2, 2), int), np.array([[1, 1], [0, 0]])
    missed, with_2 = np.array([[1, 0], [0, 0]]), np.array([[1, 1], [2, 0]])
    for num_classes in (3, 9):
        both = {"num_classes": num_classes, "occurring": (1, 2)}
        assert score(name, class_1, missed, **both) == pytest.approx((half + 1) / 2)
        assert score(name, class_1, with_2, **both) == pytest.approx((1 + 0) / 2)  # class 2 is a false positive
        assert score(name, nothing, class_1, **both) == pytest.approx((0 + 1) / 2)
        assert score(name, class_1, missed, num_classes, occurring=(1,)) == pytest.approx(half)
        assert score(name, nothing, nothing, num_classes, occurring=()) == 1
        assert score(name, nothing, missed, num_classes, occurring=()) == 0


def test_label_k_is_label_k_when_others_are_absent():
    """The predecessor's dice_pancreas_1 was the second class that occurs, here class 2."""
    truth = np.array([0, 0, 2, 2])
    assert score("dice_pancreas_1", truth, truth, 3) == 1
    assert score("dice_pancreas_1", truth, np.array([0, 1, 2, 2]), 3) == 0
    assert score("dice_pancreas_2", truth, np.array([0, 0, 2, 0]), 3) == pytest.approx(2 / 3)


def test_scores_compare_equal_shapes():
    with pytest.raises(ValueError, match="shapes"):
        score("dice", np.zeros((2, 2), int), np.zeros((4,), int), 2)


def test_expand():
    assert expand(["dice", "dice_class", "dice_class_1", "brats_wt", "dice"], 4) == [
        "dice",
        "dice_class_1",
        "dice_class_2",
        "dice_class_3",
        "brats_wt",
    ]
    assert expand(["dice", "jaccard", "dice_pancreas_0", "dice_pancreas_2"], 3)[-1] == "dice_pancreas_2"


@pytest.mark.parametrize(
    ("name", "num_classes", "message"),
    [
        ("dise", 3, "Did you mean 'dice'"),
        ("dice_class_x", 3, "is no score of segmentation"),
        ("dice_pancreas_3", 3, "is no score of segmentation with 3 classes"),
        ("brats_wt", 3, "is no score of segmentation with 3 classes"),
        ("qw_kappa", 3, "is no score of segmentation with 3 classes; known: dice"),
    ],
)
def test_scores_that_cannot_be_computed(name, num_classes, message):
    with pytest.raises(UserError, match=message):
        expand([name], num_classes)
    with pytest.raises(UserError, match=message):
        score(name, np.zeros(3, int), np.zeros(3, int), num_classes)


def test_false_voxels_in_scans_without_a_lesion_are_in_the_test():
    """They were left out of it: a mean of 1.000 against 0.500 was a difference of 0.000 with p = 1."""
    nothing, lesion = np.zeros((10, 10), int), np.eye(10, dtype=int)
    one_voxel = nothing.copy()
    one_voxel[3, 4] = 1
    rows = [
        ScoreRow(100, mode, repetition, str(case), str(case), "dice", score("dice", truth, prediction, 2, (1,)))
        for repetition in range(3)
        for case, truth in enumerate([nothing] * 10 + [lesion] * 10)
        for mode, prediction in {"initialized": truth, "random": truth if truth.any() else one_voxel}.items()
    ]
    (result,) = compare(rows)
    assert (result.num_subjects, result.difference) == (20, 0.5)
    assert result.p_value < 0.01
