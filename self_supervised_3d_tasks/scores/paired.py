"""Tests of paired differences whose units are subjects and trainings, both drawn at random.

Another cohort and another seed would both have given other numbers, so both enter the variance of the mean difference,
which is put together from mean squares. Student's quantile for it is that of Cochran & Cox (1957, "Experimental
Designs"): the mean of the quantiles of both mean squares, each with its own degrees of freedom, weighted by the mean
squares. The degrees of freedom of Satterthwaite (1946), a more usual choice, gave up to 8 % false positives from three
repetitions in simulations, this one up to 6 %.

Trainings of a sweep share their pool of training scans. What another pool would give is in no interval here; of a
cross-validation nothing unbiased is known about that (Bengio & Grandvalet 2004, JMLR 5).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Two repetitions, or a few subjects, say next to nothing of their spread: quantiles are large and little is found.
MIN_REPETITIONS = 3
MIN_SUBJECTS = 6


class Effect(NamedTuple):
    """A mean difference with its 95 % interval, and the two-sided p-value of a t-test against 0."""

    difference: float
    low: float
    high: float
    p_value: float


def crossed(differences: np.ndarray) -> Effect:
    """Test differences of the same subjects in each repetition: two-way random effects without replicates.

    The variance of the mean over S subjects and R repetitions is (MSs + MSr - MSe) / (S R); the larger of MSs and MSr
    takes the place of the sum where that is smaller, which happens by chance only.

    Args:
        differences: ``(subjects, repetitions)``, at least 2 of both.
    """
    subjects, repetitions = differences.shape
    mean = differences.mean()
    rows, columns = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    residuals = differences - mean - rows[:, None] - columns
    by_subject = repetitions * np.sum(rows**2) / (subjects - 1)
    by_repetition = subjects * np.sum(columns**2) / (repetitions - 1)
    error = np.sum(residuals**2) / ((subjects - 1) * (repetitions - 1))
    variance = max(by_subject + by_repetition - error, by_subject, by_repetition) / differences.size
    return _t_test(mean, variance, (by_subject, subjects - 1), (by_repetition, repetitions - 1))


def nested(differences: Sequence[np.ndarray]) -> Effect:
    """Test differences of subjects that each occur in one fold: one-way random effects, subjects nested in folds.

    The variance of the mean over all N subjects is that between folds / N, or that within them where it is larger,
    which happens by chance only.

    Args:
        differences: For each of at least 2 folds those of its subjects, of about equal number.
    """
    values = np.concatenate(differences)
    mean, num_folds = values.mean(), len(differences)
    between = sum(len(fold) * (fold.mean() - mean) ** 2 for fold in differences) / (num_folds - 1)
    within_free = max(1, len(values) - num_folds)  # folds of one subject have nothing within them
    within = sum(np.sum((fold - fold.mean()) ** 2) for fold in differences) / within_free
    variance = max(between, within) / len(values)
    return _t_test(mean, variance, (between, num_folds - 1), (within, within_free))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): the k-th smallest of m times m - k + 1, never falling."""
    order = np.argsort(p_values)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1)))
    return corrected.tolist()


def _t_test(mean: float, variance: float, *squares: tuple[float, int]) -> Effect:
    """Test a mean whose variance comes from mean squares, each given with its degrees of freedom."""
    from scipy.optimize import brentq
    from scipy.stats import t

    weights, free = np.array(squares).T

    def quantile(p_value: float) -> float:
        return np.average(t.isf(p_value / 2, free), weights=weights)

    mean, error = float(mean), math.sqrt(variance)
    if not error:  # all differences are the same
        return Effect(mean, mean, mean, float(not mean))
    half, statistic = float(error * quantile(0.05)), abs(mean) / error
    least = 1e-99
    solvable = statistic < quantile(least)
    p_value = brentq(lambda p_value: quantile(p_value) - statistic, least, 1) if solvable else 0.0
    return Effect(mean, mean - half, mean + half, float(p_value))
