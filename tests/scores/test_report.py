from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores.report import read_long, table, write_long, write_statistics, write_summary
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET, ScoreRow, compare, repetition_means


def rows_of(split, mode, values, metric="dice"):
    """Rows from ``values[repetition][case]``."""
    return [
        ScoreRow(split, mode, repetition, f"case{case}", metric, value)
        for repetition, cases in enumerate(values)
        for case, value in enumerate(cases)
    ]


def test_long_table_by_hand(tmp_path):
    rows = [ScoreRow(50, "frozen", 0, "a", "dice", 0.5), ScoreRow(2.5, "random", 1, 'odd, "name"', "dice", math.nan)]
    write_long(tmp_path / "results_long.csv", rows)
    assert (tmp_path / "results_long.csv").read_text() == (
        'split,mode,repetition,case,metric,value\n50,frozen,0,a,dice,0.5\n2.5,random,1,"odd, ""name""",dice,\n'
    )


def test_long_table_reads_back_the_same_numbers(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        ScoreRow(float(percent), mode, repetition, f"case{case}", "dice", float(rng.random()))
        for percent, mode, repetition, case in itertools.product([5, 100], ["frozen", "random"], range(3), range(4))
    ]
    write_long(tmp_path / "long.csv", [*rows, ScoreRow(5, "random", 0, "x", "dice", np.float32(0.1))])
    *read, last = read_long(tmp_path / "long.csv")
    assert read == rows
    assert last.value == np.float32(0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "received an empty file"),
        ("a,b\n1,2\n", "received a,b"),
        ("split,mode,repetition,case,metric,value\n50,frozen,0,a,dice\n", "line 2"),
        ("split,mode,repetition,case,metric,value\n50,frozen,0,a,dice,1\n50,frozen,0,a,dice,high\n", "line 3"),
    ],
)
def test_a_broken_long_table_is_named(tmp_path, content, message):
    path = tmp_path / "broken.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_long(path)
    assert "broken.csv" in str(error.value)


def test_repetition_means_leave_nan_out():
    rows = rows_of(50, "random", [[0.5, math.nan, 1.0], [math.nan, math.nan, math.nan], [0.25, 0.5, 0.75]])
    assert repetition_means(rows) == {0: 0.75, 2: 0.5}


def test_summary_has_the_predecessors_columns(tmp_path):
    rows = rows_of(50, "random", [[0.0, 0.5], [0.5, 1.0], [0.5, 0.5]])
    rows += rows_of(50, "frozen", [[1.0, math.nan]]) + rows_of(50, "frozen", [[math.nan] * 2], "jaccard")
    rows += rows_of(5, "random", [[0.25]]) + rows_of(5, "random", [[0.125]], "jaccard")
    path = tmp_path / "results.csv"
    write_summary(path, rows, ["random", "frozen"], ["dice", "jaccard"], [50, 5])
    header, first, second = path.read_text().splitlines()
    assert header == (
        "Train Split,"
        "Weights_frozen_dice_min,Weights_frozen_dice_avg,Weights_frozen_dice_max,"
        "Weights_frozen_jaccard_min,Weights_frozen_jaccard_avg,Weights_frozen_jaccard_max,"
        "Weights_random_dice_min,Weights_random_dice_avg,Weights_random_dice_max,"
        "Weights_random_jaccard_min,Weights_random_jaccard_avg,Weights_random_jaccard_max"
    )
    assert first == "50%,1,1,1,,,,0.25,0.5,0.75,,,"
    assert second == "5%,,,,,,,0.25,0.25,0.25,0.125,0.125,0.125"


def test_summary_of_a_fractional_split(tmp_path):
    write_summary(tmp_path / "r.csv", rows_of(2.5, "initialized", [[0.5]]), ["initialized"], ["dice"], [2.5])
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == "2.5%,0.5,0.5,0.5"


def test_statistics_by_hand():
    # Six cases; the differences, averaged over the three repetitions, are 1..6 hundredths: all positive, so the
    # exact two-sided p is 2 / 2**6.
    baseline = [[0.5] * 6, [0.4] * 6, [0.3] * 6]
    middle = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    differences = [middle - 0.01, middle, middle + 0.01]
    pretrained = np.add(baseline, differences).tolist()
    (result,) = compare(rows_of(10, "random", baseline) + rows_of(10, "frozen", pretrained))
    assert (result.split, result.metric, result.mode, result.num_cases) == (10, "dice", "frozen", 6)
    assert result.difference == pytest.approx(0.035)
    assert result.sd == pytest.approx(0.01)  # of the repetition means 0.025, 0.035 and 0.045
    assert result.p_value == pytest.approx(2 / 2**6)


def test_signed_rank_against_the_exact_null_distribution():
    rng = np.random.default_rng(5)
    differences = rng.normal(0.01, 0.02, 8)
    rows = rows_of(10, "random", [[0.5] * 8] * 3) + rows_of(10, "initialized", [(0.5 + differences).tolist()] * 3)
    (result,) = compare(rows)

    ranks = np.abs(differences).argsort().argsort() + 1
    observed = abs((ranks * np.sign(differences)).sum())
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    assert result.p_value == pytest.approx(np.mean(np.abs(signs @ ranks) >= observed))


def test_no_test_from_fewer_than_three_repetitions():
    """Over cases alone, two seeds that differ by luck look like a difference between the modes."""
    (result,) = compare(rows_of(10, "random", [[0.5] * 8] * 2) + rows_of(10, "frozen", [[0.6] * 8] * 2))
    assert result.difference == pytest.approx(0.1)
    assert result.p_value is None


def test_statistics_without_enough_cases_or_without_random():
    random = rows_of(10, "random", [[0.5] * 5, [0.5] * 5])
    frozen = rows_of(10, "frozen", [[0.6] * 5, [0.6] * 5])
    (few,) = compare(random + frozen)
    assert (few.num_cases, few.p_value) == (5, None)
    assert few.difference == pytest.approx(0.1)
    assert compare(frozen) == []
    assert compare(random) == []
    assert compare([]) == []


def test_statistics_pair_cases_by_name_and_leave_nan_out():
    random = rows_of(10, "random", [[0.1, 0.2, math.nan, 0.4]])
    frozen = list(reversed(rows_of(10, "frozen", [[math.nan, 0.5, 0.5, 0.5, 0.9]])))
    (result,) = compare(random + frozen)
    assert result.num_cases == 2
    assert result.difference == pytest.approx((0.3 + 0.1) / 2)


@pytest.mark.parametrize(("values", "difference"), [([[math.nan] * 7] * 3, None), ([[0.5] * 7] * 3, 0.0)])
def test_statistics_of_nothing_and_of_equal_scores(values, difference):
    (result,) = compare(rows_of(10, "random", [[0.5] * 7] * 3) + rows_of(10, "frozen", values))
    assert result.difference == difference
    assert result.p_value == (None if difference is None else 1.0)


def test_statistics_file(tmp_path):
    rows = rows_of(10, "random", [[0.5, 0.5]]) + rows_of(10, "frozen", [[0.75, 0.75]])
    write_statistics(tmp_path / "statistics.csv", compare(rows))
    assert (tmp_path / "statistics.csv").read_text() == (
        "split,metric,mode,num_cases,difference,sd,p_value\n10,dice,frozen,2,0.25,,\n"
    )


def test_table_by_hand():
    rows = rows_of(100, "random", [[0.5] * 6, [0.7] * 6, [0.6] * 6]) + rows_of(100, "initialized", [[0.75] * 6] * 3)
    rows += rows_of(5, "random", [[0.25, math.nan]], "dice_class_2")
    assert table(rows, undefined="class absent from truth and prediction").splitlines() == [
        "Labels  Score         initialized        random             initialized - random",
        "-" * 87,
        "100%    dice          0.750 ± 0.000 (3)  0.600 ± 0.100 (3)  +0.150, p = 0.031 (6 cases)",
        "5%      dice_class_2  -                  0.250 (1)          -",
        "mean ± sd over repetitions (number of repetitions) of the mean over test cases",
        "p: two-sided Wilcoxon signed-rank test over cases, uncorrected, from six cases and three repetitions on;",
        "   other seeds are not part of the test: compare the difference with the sd over repetitions",
        "left out, class absent from truth and prediction: 1 of 38 case scores (dice_class_2 1)",
    ]


def test_table_without_a_baseline_compares_nothing():
    text = table(rows_of(50, "frozen", [[0.5]]))
    assert "p:" not in text
    assert "0 of 1 case scores" in text
    assert table([]) == "No scores."


def whole_set(split, mode, values, metric="roc_auc"):
    """Rows from ``values[repetition]``, each the score of all test cases."""
    return [ScoreRow(split, mode, repetition, WHOLE_SET, metric, value) for repetition, value in enumerate(values)]


def test_scores_of_a_whole_test_set_are_paired_by_repetition_and_not_tested():
    rows = whole_set(10, "random", [0.5, 0.6, 0.7, 0.8, 0.6, 0.5, math.nan])
    rows += whole_set(10, "frozen", [0.6, 0.8, 0.8, 0.9, math.nan, 0.6, 0.9])
    (result,) = compare(rows)
    assert (result.num_cases, result.num_repetitions, result.p_value) == (None, 5, None)
    differences = [0.1, 0.2, 0.1, 0.1, 0.1]
    assert result.difference == pytest.approx(np.mean(differences))
    assert result.sd == pytest.approx(np.std(differences, ddof=1))


def test_statistics_file_of_whole_test_sets(tmp_path):
    rows = whole_set(10, "random", [0.5, 0.25]) + whole_set(10, "frozen", [0.75, 0.5])
    write_statistics(tmp_path / "statistics.csv", compare(rows))
    assert (tmp_path / "statistics.csv").read_text() == (
        "split,metric,mode,num_repetitions,difference,sd,p_value\n10,roc_auc,frozen,2,0.25,0,\n"
    )


def test_summary_of_whole_test_sets(tmp_path):
    write_summary(tmp_path / "r.csv", whole_set(50, "frozen", [0.5, 0.75]), ["frozen"], ["roc_auc"], [50])
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == "50%,0.5,0.625,0.75"


def test_table_of_whole_test_sets_by_hand():
    rows = whole_set(100, "random", [0.5, 0.75, math.nan]) + whole_set(100, "initialized", [0.75, 0.75, 0.75])
    assert table(rows, unit="folds", undefined="all test cases of one class").splitlines() == [
        "Labels  Score    initialized        random             initialized - random",
        "-" * 79,
        "100%    roc_auc  0.750 ± 0.000 (3)  0.625 ± 0.177 (2)  +0.125 ± 0.177 (2 folds)",
        "mean ± sd over folds (number of folds) of the score on the test cases of the fold",
        "differences: mean ± sd over folds, paired; no p-value, because the differences of a handful of folds",
        "   are not independent: their training sets overlap",
        "left out, all test cases of one class: 1 of 6 scores (roc_auc 1)",
    ]


def test_the_table_says_why_a_score_can_be_missing():
    rows = whole_set(100, "random", [math.nan], "auroc_Hernia") + whole_set(100, "random", [0.5], "mean_auroc")
    text = table(rows, undefined="finding of all or none of the test cases")
    assert text.endswith("left out, finding of all or none of the test cases: 1 of 2 scores (auroc_Hernia 1)")
    assert table(rows).endswith("left out, not defined: 1 of 2 scores (auroc_Hernia 1)")


def test_table_of_segmentations_in_folds_says_so():
    text = table(rows_of(100, "random", [[0.5] * 6] * 3) + rows_of(100, "frozen", [[0.75] * 6] * 3), unit="folds")
    assert "mean ± sd over folds (number of folds) of the mean over test cases" in text
    assert "from six cases and three folds on" in text
    assert "repetitions" not in text
