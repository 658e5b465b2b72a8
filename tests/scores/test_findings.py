from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from self_supervised_3d_tasks import scores
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import findings as finding_scores
from self_supervised_3d_tasks.scores.base import Predictions


def found_of(truth, probabilities):
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    return Predictions(truth, (probabilities > 0.5).astype(int), probabilities)


def score(names, truth, probabilities, findings):
    found = found_of(truth, probabilities)
    return {name: value(found) for name, value in scores.find("findings", names, findings).items()}


FINDINGS = ("Mass", "Edema", "Lung Opacity")
NAMES = ("auroc_Mass", "auroc_Edema", "auroc_Lung_Opacity")


def draw(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (count, 3))
    return truth, np.clip(0.2 * truth + rng.random((count, 3)), 0, 1).round(1)  # rounded: with ties


def test_areas_by_hand():
    truth = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.5], [0.6, 0.5]])
    # Of the four pairs of the first column three are in order; of the second, two.
    np.testing.assert_allclose(finding_scores.areas(found_of(truth, probabilities)), [0.75, 0.5])


@pytest.mark.parametrize("seed", range(10))
def test_the_mean_is_scikit_learns_macro_mean(seed):
    truth, probabilities = draw(seed)
    found = score(["mean_auroc", "auroc"], truth, probabilities, FINDINGS)
    assert list(found) == ["mean_auroc", *NAMES]
    assert found["mean_auroc"] == pytest.approx(roc_auc_score(truth, probabilities, average="macro"))
    each = roc_auc_score(truth, probabilities, average=None)
    np.testing.assert_allclose([found[name] for name in NAMES], each)


def test_monotone_changes_of_a_column_change_nothing():
    truth, probabilities = draw(0)
    logits = np.log((probabilities + 0.1) / (1.2 - probabilities)) * [1, 5, 0.1] + [0, 3, -7]
    np.testing.assert_allclose(
        finding_scores.areas(found_of(truth, logits)), finding_scores.areas(found_of(truth, probabilities))
    )


@pytest.mark.parametrize("value", [0, 1])
def test_findings_without_a_pair_are_left_out_of_the_mean(value):
    truth, probabilities = draw(1)
    truth[:, 1] = value
    found = score(["mean_auroc", "auroc"], truth, probabilities, FINDINGS)
    assert np.isnan(found["auroc_Edema"])
    assert found["mean_auroc"] == pytest.approx((found["auroc_Mass"] + found["auroc_Lung_Opacity"]) / 2)
    found = score(["mean_auroc", "auroc"], np.full_like(truth, value), probabilities, FINDINGS)
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_scored_is_what_has_an_area(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((4, 30)) < rng.random(30)
    scored = finding_scores.scored(truth)
    np.testing.assert_array_equal(scored, [len(set(column)) == 2 for column in truth.T])
    np.testing.assert_array_equal(scored, ~np.isnan(finding_scores.areas(found_of(truth, rng.random((4, 30))))))
    assert {True, False} == set(scored)


def test_names():
    assert list(scores.find("findings", ["auroc", "mean_auroc", "auroc_Mass"], FINDINGS)) == [*NAMES, "mean_auroc"]
    assert list(scores.find("findings", ["auroc_Edema"], FINDINGS)) == ["auroc_Edema"]
    assert finding_scores.name_of("Airspace / Opacity (left)") == "auroc_Airspace_Opacity_left_"


@pytest.mark.parametrize("name", ["qw_kappa", "roc_auc", "balanced_accuracy", "auroc_Hernia", "dice"])
def test_other_scores_are_refused(name):
    with pytest.raises(UserError, match=f"scores: '{name}' is no score of findings; known: mean_auroc, auroc, auroc_M"):
        scores.find("findings", [name], FINDINGS)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        found_of(np.zeros((2, 3)), np.zeros((2, 2)))
