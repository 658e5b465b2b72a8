"""Tests of paired differences: by hand, against scipy and slow sums, and by simulation.

In the simulations a mode is as good as training from scratch; every p below 0.05 is then a false positive. Scores of
single scans vary by 0.02 between two trainings, the trainings themselves by the given sd.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from self_supervised_3d_tasks.scores import paired
from self_supervised_3d_tasks.scores.statistics import ScoreRow, compare


def test_one_source_of_variance_alone_gives_its_t_test():
    """Without a spread over repetitions the subjects are a sample, and the other way round."""
    sample = np.array([0.01, 0.02, -0.01, 0.04, 0.03, 0.02])
    expected = stats.ttest_1samp(sample, 0)
    interval = expected.confidence_interval(0.95)
    for differences in (np.tile(sample[:, None], 4), np.tile(sample, (7, 1))):
        effect = paired.crossed(differences)
        assert effect == pytest.approx((sample.mean(), interval.low, interval.high, expected.pvalue))
    assert paired.nested([np.full(5, value) for value in sample]) == pytest.approx(effect)
    assert paired.nested([sample[[number]] for number in range(6)]) == pytest.approx(effect)


def test_mean_squares_are_those_of_the_slow_sums():
    rng = np.random.default_rng(0)
    values = rng.normal(0.01, 0.02, (7, 3)) + rng.normal(0, 0.03, (7, 1)) + rng.normal(0, 0.02, (1, 3))
    cells = list(itertools.product(range(7), range(3)))
    mean = sum(values[s, r] for s, r in cells) / 21
    of_subject, of_repetition = [sum(row) / 3 for row in values], [sum(column) / 7 for column in values.T]
    by_subject = sum(3 * (m - mean) ** 2 for m in of_subject) / 6
    by_repetition = sum(7 * (m - mean) ** 2 for m in of_repetition) / 2
    error = sum((values[s, r] - of_subject[s] - of_repetition[r] + mean) ** 2 for s, r in cells) / 12
    total = by_subject + by_repetition - error
    assert total > max(by_subject, by_repetition)
    quantiles = by_subject * stats.t.ppf(0.975, 6) + by_repetition * stats.t.ppf(0.975, 2)
    half = quantiles / (by_subject + by_repetition) * np.sqrt(total / 21)
    effect = paired.crossed(values)
    assert effect[:3] == pytest.approx((mean, mean - half, mean + half))
    assert (effect.p_value < 0.05) == (not effect.low < 0 < effect.high)


def test_the_p_value_is_that_of_the_interval_which_ends_at_zero():
    differences = np.random.default_rng(1).normal(0, 0.02, (8, 4))
    low, high = (paired.crossed(differences + shift) for shift in (0, 0.1))
    shift = low.high  # 0 then lies at the end of the interval
    assert paired.crossed(differences - shift).p_value == pytest.approx(0.05)
    assert high.p_value < 1e-3


def test_differences_without_any_spread():
    assert paired.crossed(np.zeros((6, 3))) == (0, 0, 0, 1)
    assert paired.crossed(np.full((6, 3), 0.25)) == (0.25, 0.25, 0.25, 0)
    assert paired.crossed(np.full((6, 3), 0.1) + np.eye(6, 3) * 1e-16).p_value < 1e-9


def test_holm_by_hand():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.5]) == [1, 1]
    assert paired.holm([]) == []


def rows_of(differences):
    """Rows of two modes from differences ``(subjects, slices, repetitions)``."""
    return [
        ScoreRow(100, mode, repetition, f"{subject}", f"{subject}_{number}", "dice", 0.8 + (mode == "frozen") * value)
        for (subject, number, repetition), value in np.ndenumerate(differences)
        for mode in ("frozen", "random")
    ]


def draw(rng, *, subjects=15, slices=1, repetitions=3, seed_sd=0.0, subject_sd=0.0):
    """Return differences without an effect; the slices of a subject share most of their noise in each training."""
    shared = rng.normal(0, 0.02, (subjects, 1, repetitions)) + rng.normal(0, subject_sd, (subjects, 1, 1))
    seeds = rng.normal(0, seed_sd * np.sqrt(2), (1, 1, repetitions))
    noise = rng.normal(0, 0.01, (subjects, slices, repetitions)) if slices > 1 else 0
    return shared + seeds + noise


def share_of_false_positives(count, **design):
    rng = np.random.default_rng(7)
    found = [compare(rows_of(draw(rng, **design)))[0].p_value < 0.05 for _ in range(count)]
    return np.mean(found)


CASES = [
    *({"slices": 8, "subjects": 10}, {"slices": 8, "subjects": 10, "subject_sd": 0.02}),
    *({"seed_sd": sd, "subjects": subjects} for sd in (0.002, 0.005, 0.01) for subjects in (8, 40)),
    *({"seed_sd": sd, "slices": 8, "subjects": 10, "repetitions": 5} for sd in (0.002, 0.005, 0.01)),
    *({"seed_sd": sd, "subjects": subjects, "repetitions": 5} for sd in (0.002, 0.005, 0.01) for subjects in (8, 40)),
    {"seed_sd": 0.01, "subject_sd": 0.03, "subjects": 40},
]


@pytest.mark.parametrize("design", [CASES[0], CASES[6], CASES[-2]], ids=str)
def test_few_simulations_find_an_effect_where_there_is_none(design):
    """By chance 7 % of them may look like 10 %, but 11 % (seeds ignored) or more do not look like 5 %."""
    assert share_of_false_positives(150, **design) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("design", CASES, ids=str)
def test_at_most_7_percent_of_simulations_find_an_effect_where_there_is_none(design):
    assert share_of_false_positives(2000, **design) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("subjects", "repetitions"), [(8, 3), (8, 5), (40, 3), (40, 5)])
def test_where_neither_seeds_nor_subjects_matter_few_simulations_find_an_effect(subjects, repetitions):
    assert share_of_false_positives(2000, subjects=subjects, repetitions=repetitions) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0, 0.002, 0.005, 0.01])
@pytest.mark.parametrize(("subjects", "folds"), [(15, 3), (40, 3), (40, 5)])
def test_at_most_7_percent_of_simulated_cross_validations_find_an_effect(subjects, folds, seed_sd):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(2000):
        parts = np.array_split(rng.normal(0, 0.02, subjects), folds)
        found.append(paired.nested([part + rng.normal(0, seed_sd * np.sqrt(2)) for part in parts]).p_value < 0.05)
    assert np.mean(found) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subjects", "repetitions", "expected"),
    [
        (6, 3, 0.07),
        (6, 5, 0.10),
        (10, 3, 0.06),
        (10, 5, 0.08),
        (15, 3, 0.05),
        (15, 5, 0.07),
        (40, 3, 0.03),
        (40, 5, 0.05),
    ],
)
def test_a_few_subjects_that_make_the_difference_are_taken_for_an_effect_more_often(subjects, repetitions, expected):
    """Their effects are exponentially distributed around none: what the documents say the test cannot hold."""
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        skewed = rng.exponential(0.02, (subjects, 1)) - 0.02
        noise = rng.normal(0, 0.005, (subjects, repetitions)) + rng.normal(0, 0.002 * np.sqrt(2), (1, repetitions))
        found.append(paired.crossed(skewed + noise).p_value < 0.05)
    assert np.mean(found) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("count", "tolerance"), [(150, 0.08), pytest.param(2000, 0.03, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("repetitions", [3, 5])
def test_a_true_effect_is_found_and_covered(count, tolerance, repetitions):
    """The interval may cover it more often than in 95 %, because the variance is never taken for too small."""
    rng, effect = np.random.default_rng(5), 0.025
    design = {"subjects": 30, "repetitions": repetitions, "seed_sd": 0.003, "subject_sd": 0.02}
    effects = [paired.crossed(effect + draw(rng, **design)[:, 0]) for _ in range(count)]
    covered = np.mean([found.low < effect < found.high for found in effects])
    assert 0.95 - tolerance <= covered <= 0.95 + tolerance
    assert np.mean([found.p_value < 0.05 and found.difference > 0 for found in effects]) > 0.8
