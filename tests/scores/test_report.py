from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores.report import read_long, table, write_long, write_statistics, write_summary
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET, ScoreRow, compare, repetition_means


def rows_of(split, mode, values, metric="dice"):
    """Rows from ``values[repetition][case]``, each case of a subject of its own."""
    return [
        ScoreRow(split, mode, repetition, f"subject{case}", f"case{case}", metric, value)
        for repetition, cases in enumerate(values)
        for case, value in enumerate(cases)
    ]


def test_long_table_by_hand(tmp_path):
    rows = [
        ScoreRow(50, "frozen", 0, "anna", "a", "dice", 0.5),
        ScoreRow(2.5, "random", 1, "bob", 'odd, "name"', "dice", math.nan),
    ]
    write_long(tmp_path / "results_long.csv", rows)
    assert (tmp_path / "results_long.csv").read_text() == (
        "split,mode,repetition,subject,case,metric,value\n"
        '50,frozen,0,anna,a,dice,0.5\n2.5,random,1,bob,"odd, ""name""",dice,\n'
    )


def test_long_table_reads_back_the_same_numbers(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        ScoreRow(float(percent), mode, repetition, f"subject{case % 2}", f"case{case}", "dice", float(rng.random()))
        for percent, mode, repetition, case in itertools.product([5, 100], ["frozen", "random"], range(3), range(4))
    ]
    write_long(tmp_path / "long.csv", [*rows, ScoreRow(5, "random", 0, "x", "x", "dice", np.float32(0.1))])
    *read, last = read_long(tmp_path / "long.csv")
    assert read == rows
    assert last.value == np.float32(0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "received an empty file"),
        ("a,b\n1,2\n", "received a,b"),
        ("split,mode,repetition,case,metric,value\n", r"metric,value \(without subject\); give the results_long.csv"),
        ("split,mode,repetition,subject,case,metric,value\n50,frozen,0,a,a,dice\n", "line 2"),
        (
            "split,mode,repetition,subject,case,metric,value\n50,frozen,0,a,a,dice,1\n50,frozen,0,a,a,dice,high\n",
            "line 3",
        ),
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


def test_every_subject_counts_the_same_however_many_cases_it_has():
    cases = [("anna", 0.0), ("anna", 0.0), ("anna", 0.75), ("bob", 0.75)]
    rows = [ScoreRow(50, "random", 0, who, f"case{i}", "dice", value) for i, (who, value) in enumerate(cases)]
    assert repetition_means(rows) == {0: (0.25 + 0.75) / 2}
    better = [dataclasses.replace(row, mode="frozen", value=row.value + 0.1 * (row.subject == "bob")) for row in rows]
    (result,) = compare(rows + better)
    assert (result.num_subjects, result.num_repetitions) == (2, 1)
    assert result.difference == pytest.approx(0.05)


def test_summary_has_the_predecessors_columns(tmp_path):
    rows = rows_of(50, "random", [[0.0, 0.5], [0.5, 1.0], [0.5, 0.5]])
    rows += rows_of(50, "frozen", [[1.0, 0.5]]) + rows_of(50, "frozen", [[math.nan] * 2], "jaccard")
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
    assert first == "50%,0.75,0.75,0.75,,,,0.25,0.5,0.75,,,"
    assert second == "5%,,,,,,,0.25,0.25,0.25,0.125,0.125,0.125"


def test_summary_of_a_fractional_split(tmp_path):
    write_summary(tmp_path / "r.csv", rows_of(2.5, "initialized", [[0.5]]), ["initialized"], ["dice"], [2.5])
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == "2.5%,0.5,0.5,0.5"


def test_statistics_by_hand():
    """Differences are 1..6 hundredths plus -1, 0, 1 by repetition: MSs = 3·3.5e-4, MSr = 6·1e-4, MSe = 0."""
    baseline = [[0.5] * 6, [0.4] * 6, [0.3] * 6]
    middle = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    differences = [middle - 0.01, middle, middle + 0.01]
    pretrained = np.add(baseline, differences).tolist()
    (result,) = compare(rows_of(10, "random", baseline) + rows_of(10, "frozen", pretrained))
    assert (result.split, result.metric, result.mode) == (10, "dice", "frozen")
    assert (result.num_subjects, result.num_repetitions) == (6, 3)
    assert result.difference == pytest.approx(0.035)
    assert result.sd == pytest.approx(0.01)  # of the repetition means 0.025, 0.035 and 0.045
    by_subject, by_repetition = 10.5e-4, 6e-4
    # Quantiles of a table: t(0.975) is 2.5706 with 5 degrees of freedom and 4.3027 with 2.
    quantile = (by_subject * 2.5706 + by_repetition * 4.3027) / (by_subject + by_repetition)
    half = quantile * math.sqrt((by_subject + by_repetition) / 18)
    assert [result.low, result.high] == pytest.approx([0.035 - half, 0.035 + half], rel=1e-4)
    assert result.p_holm == result.p_value


def test_p_values_are_corrected_for_the_number_of_comparisons():
    rng = np.random.default_rng(0)
    rows = rows_of(10, "random", [[0.5] * 8] * 3, "dice") + rows_of(10, "random", [[0.5] * 8] * 3, "jaccard")
    rows += rows_of(10, "frozen", rng.normal(0.52, 0.01, (3, 8)).tolist(), "dice")
    rows += rows_of(10, "frozen", rng.normal(0.51, 0.01, (3, 8)).tolist(), "jaccard")
    rows += rows_of(5, "random", [[0.5] * 8]) + rows_of(5, "frozen", [[0.6] * 8])  # not tested
    first, second, untested = compare(rows)
    assert first.p_value < second.p_value
    assert (first.p_holm, second.p_holm) == pytest.approx((2 * first.p_value, max(2 * first.p_value, second.p_value)))
    assert (untested.p_value, untested.p_holm, untested.low) == (None, None, None)


@pytest.mark.parametrize(("subjects", "repetitions"), [(8, 2), (5, 3)])
def test_no_test_of_few_repetitions_or_subjects(subjects, repetitions):
    rows = rows_of(10, "random", [[0.5] * subjects] * repetitions)
    (result,) = compare(rows + rows_of(10, "frozen", [[0.6] * subjects] * repetitions))
    assert (result.num_subjects, result.num_repetitions) == (subjects, repetitions)
    assert result.difference == pytest.approx(0.1)
    assert (result.low, result.high, result.p_value) == (None, None, None)


def test_nothing_is_compared_without_two_modes():
    frozen, random = rows_of(10, "frozen", [[0.6] * 5] * 2), rows_of(10, "random", [[0.5] * 5] * 2)
    assert compare(frozen) == compare(random) == compare([]) == []


def test_only_what_both_modes_have_in_every_repetition_is_compared():
    """The third frozen job is missing, and so is the fourth case of the second random one; cases go by name."""
    random = rows_of(10, "random", [[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3], [0.9] * 4])
    frozen = list(reversed(rows_of(10, "frozen", [[0.2, 0.4, 0.6, 0.9, 0.9], [0.3, 0.5, 0.7, 0.9]])))
    (result,) = compare(random + frozen)
    assert (result.num_subjects, result.num_repetitions) == (3, 2)
    assert result.difference == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.2, 0.3, 0.4]))
    assert result.sd == pytest.approx(0.1 / math.sqrt(2))


def test_a_case_counts_for_all_modes_or_none():
    rows = rows_of(10, "random", [[0.1, 0.2, 0.3]]) + rows_of(10, "initialized", [[0.2, 0.3, 0.4]])
    rows += rows_of(10, "frozen", [[math.nan, 0.2, 0.3]])
    assert [c.num_subjects for c in compare(rows)] == [2, 2]
    assert [c.difference for c in compare(rows)] == pytest.approx([0, 0.1])
    text = table(rows, undefined="why")
    assert "0.350 (1)" in text and "0.250 (1)" in text
    assert text.endswith("left out in every mode, why: 3 of 9 case scores (dice 3)")


def test_subjects_of_folds_are_compared_within_their_fold():
    folds = {"random": [[0.5] * 3] * 3, "frozen": [[0.5, 0.6, 0.7], [0.6, 0.7, 0.8], [0.7, 0.8, 0.9]]}
    rows = [
        ScoreRow(10, mode, fold, f"subject{fold}{number}", f"case{fold}{number}", "dice", value)
        for mode, values in folds.items()
        for fold, scores in enumerate(values)
        for number, value in enumerate(scores)
    ]
    (result,) = compare(rows)
    assert (result.num_subjects, result.num_repetitions) == (9, 3)
    assert (result.difference, result.sd) == pytest.approx((0.2, 0.1))
    between, within = 3 * 0.01, 0.01
    quantile = (between * 4.3027 + within * 2.4469) / (between + within)
    assert result.high - result.difference == pytest.approx(quantile * math.sqrt(between / 9), rel=1e-4)
    assert "(9 subjects, 3 folds)" in table(rows, unit="folds")


@pytest.mark.parametrize(("values", "difference"), [([[math.nan] * 7] * 3, None), ([[0.5] * 7] * 3, 0.0)])
def test_statistics_of_nothing_and_of_equal_scores(values, difference):
    (result,) = compare(rows_of(10, "random", [[0.5] * 7] * 3) + rows_of(10, "frozen", values))
    assert result.difference == difference
    assert (result.num_subjects, result.num_repetitions) == ((0, 0) if difference is None else (7, 3))
    assert result.p_value == (None if difference is None else 1.0)


def test_statistics_file(tmp_path):
    rows = rows_of(10, "random", [[0.5, 0.5]]) + rows_of(10, "frozen", [[0.75, 0.75]])
    write_statistics(tmp_path / "statistics.csv", compare(rows))
    assert (tmp_path / "statistics.csv").read_text() == (
        "split,metric,mode,num_subjects,num_repetitions,difference,low,high,sd,p_value,p_holm\n"
        "10,dice,frozen,2,1,0.25,,,,,\n"
    )


def test_table_by_hand():
    """Differences are 0.25, 0.05, 0.15 in the repetitions: sd 0.1, and with MSs = MSe = 0 half of the interval is
    4.3027 · 0.1 / √3 = 0.248; t = 0.15 / 0.0577 = 2.598 with 2 degrees of freedom has p = 0.122."""
    rows = rows_of(100, "random", [[0.5] * 6, [0.7] * 6, [0.6] * 6]) + rows_of(100, "initialized", [[0.75] * 6] * 3)
    rows += rows_of(5, "random", [[0.25, math.nan]], "dice_class_2")
    remarks = ["in no test mask: class 3"]
    assert table(rows, undefined="nobody knows", remarks=remarks).splitlines() == [
        "Labels  Score         initialized        random             initialized - random",
        "-" * 130,
        "100%    dice          0.750 ± 0.000 (3)  0.600 ± 0.100 (3)  "
        "+0.150 [-0.098, +0.398] ± 0.100, p = 0.122 (6 subjects, 3 repetitions)",
        "5%      dice_class_2  -                  0.250 (1)          -",
        "mean ± sd over repetitions (number of repetitions) of the mean over test subjects",
        "differences: mean [95 % interval] ± sd over repetitions, paired; interval and two-sided p over subjects and "
        "repetitions,",
        "   from 6 and 3 on; p corrected for 1 comparison (Holm), the intervals not",
        "left out in every mode, nobody knows: 1 of 38 case scores (dice_class_2 1)",
        "in no test mask: class 3",
    ]


def test_table_without_a_baseline_compares_nothing():
    text = table(rows_of(50, "frozen", [[0.5]]))
    assert "p:" not in text and "differences" not in text
    assert "left out" not in text
    assert table([]) == "No scores."


def whole_set(split, mode, values, metric="roc_auc"):
    """Rows from ``values[repetition]``, each the score of all test cases."""
    return [
        ScoreRow(split, mode, repetition, WHOLE_SET, WHOLE_SET, metric, value)
        for repetition, value in enumerate(values)
    ]


def test_scores_of_a_whole_test_set_are_paired_by_repetition_and_not_tested():
    rows = whole_set(10, "random", [0.5, 0.6, 0.7, 0.8, 0.6, 0.5, math.nan])
    rows += whole_set(10, "frozen", [0.6, 0.8, 0.8, 0.9, math.nan, 0.6, 0.9])
    (result,) = compare(rows)
    assert (result.num_subjects, result.num_repetitions, result.p_value) == (None, 5, None)
    differences = [0.1, 0.2, 0.1, 0.1, 0.1]
    assert result.difference == pytest.approx(np.mean(differences))
    assert result.sd == pytest.approx(np.std(differences, ddof=1))


def test_statistics_file_of_whole_test_sets(tmp_path):
    rows = whole_set(10, "random", [0.5, 0.25]) + whole_set(10, "frozen", [0.75, 0.5])
    write_statistics(tmp_path / "statistics.csv", compare(rows))
    assert (tmp_path / "statistics.csv").read_text() == (
        "split,metric,mode,num_subjects,num_repetitions,difference,low,high,sd,p_value,p_holm\n"
        "10,roc_auc,frozen,,2,0.25,,,0,,\n"
    )


def test_summary_of_whole_test_sets(tmp_path):
    write_summary(tmp_path / "r.csv", whole_set(50, "frozen", [0.5, 0.75]), ["frozen"], ["roc_auc"], [50])
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == "50%,0.5,0.625,0.75"


def test_table_of_whole_test_sets_by_hand():
    rows = whole_set(100, "random", [0.5, 0.75, math.nan]) + whole_set(100, "initialized", [0.75, 0.75, 0.75])
    assert table(rows, unit="folds", undefined="all test cases of one class").splitlines() == [
        "Labels  Score    initialized        random             initialized - random",
        "-" * 79,
        "100%    roc_auc  0.750 ± 0.000 (2)  0.625 ± 0.177 (2)  +0.125 ± 0.177 (2 folds)",
        "mean ± sd over folds (number of folds) of the score on the test cases of the fold",
        "differences: mean ± sd over folds, paired; no interval, no p: few folds, whose training sets overlap, are not "
        "independent",
        "left out in every mode, all test cases of one class: 2 of 6 scores (roc_auc 2)",
    ]


def test_the_table_says_why_a_score_can_be_missing():
    rows = whole_set(100, "random", [math.nan], "auroc_Hernia") + whole_set(100, "random", [0.5], "mean_auroc")
    text = table(rows, undefined="finding of all or none of the test cases")
    reason = "finding of all or none of the test cases"
    assert text.endswith(f"left out in every mode, {reason}: 1 of 2 scores (auroc_Hernia 1)")
    assert table(rows).endswith("left out in every mode, not defined: 1 of 2 scores (auroc_Hernia 1)")


def test_the_table_says_of_which_scores_less_is_better():
    rows = rows_of(50, "frozen", [[3.0]], "hd95") + rows_of(50, "random", [[4.5]], "hd95")
    rows += rows_of(50, "frozen", [[0.5]]) + rows_of(50, "random", [[0.25]])
    lines = table(rows, distances=["hd95", "hd95_class_1"], remarks=["of the test set"]).splitlines()
    assert lines[2].split()[:5] == ["50%", "hd95", "(mm)", "↓", "3.000"]
    assert "-1.500" in lines[2]
    assert lines[3].split()[:3] == ["50%", "dice", "0.500"]
    assert lines[-2:] == ["↓ less is better: a negative difference is a gain", "of the test set"]
    alone = table(rows_of(50, "frozen", [[3.0]], "hd95"), distances=["hd95"])
    assert alone.endswith("\n↓ less is better")
    assert "less" not in table(rows_of(50, "frozen", [[0.5]]), distances=["hd95"])
