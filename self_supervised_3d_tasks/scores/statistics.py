"""Scores of a finetuning sweep, and how pretrained modes compare with training from scratch on the same cases.

A segmentation is scored case by case; classes and findings of whole scans are scored on all test cases of a repetition
(fold) together, in rows whose case is `WHOLE_SET`. A score of NaN is not defined and is left out of every mean.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MODES = ("frozen", "initialized", "random")
BASELINE = "random"
# With five pairs the smallest two-sided p of the signed-rank test is 2 / 2**5 = 0.06: never significant.
MIN_PAIRS = 6
MIN_REPETITIONS = 3
# In place of the name of a case: the score belongs to all test cases of the repetition.
WHOLE_SET = "all"


@dataclass(frozen=True)
class ScoreRow:
    """One score of one test case.

    Attributes:
        split: Percent of the labelled training data that was used, in (0, 100].
        mode: "frozen", "initialized" or "random".
        repetition: Index of the repetition.
        case: Name of the test case, or `WHOLE_SET`.
        metric: Name of the score.
        value: The score, or NaN where it is not defined.
    """

    split: float
    mode: str
    repetition: int
    case: str
    metric: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """A pretrained mode against training from scratch, on the same cases.

    Scores of the whole test set are paired by repetition (fold). They have no p-value: the training sets of a handful
    of repetitions overlap, so that their differences are not independent, as a test would take them to be.

    Attributes:
        split: Percent of the labelled training data.
        metric: Name of the score.
        mode: The pretrained mode.
        num_cases: Cases with a score in both modes; None for scores of the whole test set.
        num_repetitions: Repetitions with a score in both modes.
        difference: Mean over cases (of the whole set: over repetitions) of (mode - random), None without a pair.
        sd: Sample standard deviation over repetitions of the mean difference, None for a single repetition.
        p_value: Two-sided Wilcoxon signed-rank test over cases, each averaged over repetitions; None below six cases
            or three repetitions. It tests the cases; what another seed would give is seen in ``sd``.
    """

    split: float
    metric: str
    mode: str
    num_cases: int | None
    num_repetitions: int
    difference: float | None
    sd: float | None
    p_value: float | None


def repetition_means(rows: Iterable[ScoreRow]) -> dict[int, float]:
    """Return the mean over cases of each repetition, in order, without NaN scores and empty repetitions.

    Args:
        rows: scores of one split, mode and metric.
    """
    values = defaultdict(list)
    for row in rows:
        if not math.isnan(row.value):
            values[row.repetition].append(row.value)
    return {repetition: sum(values[repetition]) / len(values[repetition]) for repetition in sorted(values)}


def compare(rows: Iterable[ScoreRow]) -> list[Comparison]:
    """Compare each pretrained mode with training from scratch, per split and metric.

    A difference is taken per case and repetition, because both modes of a repetition train on the same
    subset, and is averaged over the repetitions of the case: cases, not repetitions, are the units of the
    test. A score that is NaN in one of the modes gives no pair. p-values are not corrected for the
    number of comparisons.

    Returns:
        One entry per split and metric, in order of appearance, and pretrained mode that was run; none without
        the mode "random".
    """
    groups = group(rows)
    comparisons = []
    for split, metric in dict.fromkeys((split, metric) for split, metric, _ in groups):
        baseline = groups.get((split, metric, BASELINE))
        for mode in MODES:
            if mode != BASELINE and baseline and (split, metric, mode) in groups:
                comparisons.append(_comparison(split, metric, mode, groups[split, metric, mode], baseline))
    return comparisons


def group(rows: Iterable[ScoreRow]) -> defaultdict[tuple[float, str, str], list[ScoreRow]]:
    """Return the rows of each split, metric and mode, in order of appearance."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.split, row.metric, row.mode].append(row)
    return groups


def is_whole_set(rows: Iterable[ScoreRow]) -> bool:
    """Return whether all scores are of whole test sets, not of single cases."""
    return all(row.case == WHOLE_SET for row in rows)


def _comparison(
    split: float, metric: str, mode: str, pretrained: Sequence[ScoreRow], baseline: Sequence[ScoreRow]
) -> Comparison:
    scratch = {(row.repetition, row.case): row.value for row in baseline}
    by_case, by_repetition = defaultdict(list), defaultdict(list)
    for row in pretrained:
        difference = row.value - scratch.get((row.repetition, row.case), math.nan)
        if not math.isnan(difference):
            by_case[row.case].append(difference)
            by_repetition[row.repetition].append(difference)
    cases = np.array([np.mean(values) for values in by_case.values()])
    repetitions = [np.mean(values) for values in by_repetition.values()]
    whole_set = is_whole_set(pretrained)
    tested = not whole_set and len(cases) >= MIN_PAIRS and len(repetitions) >= MIN_REPETITIONS
    return Comparison(
        split,
        metric,
        mode,
        num_cases=None if whole_set else len(cases),
        num_repetitions=len(repetitions),
        difference=float(cases.mean()) if len(cases) else None,
        sd=float(np.std(repetitions, ddof=1)) if len(repetitions) > 1 else None,
        p_value=_signed_rank(cases) if tested else None,
    )


def _signed_rank(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    # Zero differences carry no sign; with nothing else the statistic is 0 / 0.
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0
