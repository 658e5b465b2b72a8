"""Scores of a finetuning sweep, and how pretrained modes compare with training from scratch on the same subjects.

A segmentation is scored case by case; classes and findings of whole scans are scored on all test cases of a repetition
(fold) together, in rows whose case and subject are `WHOLE_SET`. Cases of one subject, such as the slices of a scan, are
alike: they are averaged first, and subjects count the same. A score that is NaN in one mode counts for none.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.scores import paired

MODES = ("frozen", "initialized", "random")
BASELINE = "random"
# In place of the name of a case and of a subject: the score belongs to all test cases of the repetition.
WHOLE_SET = "all"


@dataclass(frozen=True)
class ScoreRow:
    """One score of one test case.

    Attributes:
        split: Percent of the labelled training data that was used, in (0, 100].
        mode: "frozen", "initialized" or "random".
        repetition: Index of the repetition.
        subject: Whose scan the test case is, or `WHOLE_SET`.
        case: Name of the test case, or `WHOLE_SET`.
        metric: Name of the score.
        value: The score, or NaN where it is not defined.
    """

    split: float
    mode: str
    repetition: int
    subject: str
    case: str
    metric: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """A pretrained mode against training from scratch, over the subjects and repetitions that both modes have.

    Subjects are tested in every repetition, or each in one of the folds; see `paired` for both tests. Scores of the
    whole test set are paired by repetition (fold) and have no interval and no p-value: of a single test set repetitions
    say nothing about other subjects, and the few folds of a cross-validation train on overlapping sets, so that their
    differences are not independent, as a test would take them to be.

    Attributes:
        split: Percent of the labelled training data.
        metric: Name of the score.
        mode: The pretrained mode.
        num_subjects: Subjects that have a score in both modes, and unless in folds in each of the repetitions; None for
            scores of the whole test set.
        num_repetitions: Repetitions with a score in both modes.
        difference: Mean over subjects (of the whole set: over repetitions) of (mode - random), None without a pair.
        low: Lower end of its 95 % interval; None where there is no p-value.
        high: Upper end.
        sd: Sample standard deviation over repetitions of the mean difference, None for a single repetition.
        p_value: Two-sided; None below `paired.MIN_SUBJECTS` subjects or `paired.MIN_REPETITIONS` repetitions.
        p_holm: The same, corrected for the number of all comparisons that have one.
    """

    split: float
    metric: str
    mode: str
    num_subjects: int | None
    num_repetitions: int
    difference: float | None
    low: float | None
    high: float | None
    sd: float | None
    p_value: float | None
    p_holm: float | None = None


def defined(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows without those of a case, metric, repetition and split that has NaN in some mode."""
    rows = list(rows)
    missing = {(r.split, r.metric, r.repetition, r.case) for r in rows if math.isnan(r.value)}
    return [r for r in rows if (r.split, r.metric, r.repetition, r.case) not in missing]


def repetition_means(rows: Iterable[ScoreRow]) -> dict[int, float]:
    """Return the mean over subjects of each repetition, in order, without NaN scores and empty repetitions.

    Args:
        rows: scores of one split, mode and metric.
    """
    return {repetition: _mean(means.values()) for repetition, means in _subject_means(rows).items()}


def compare(rows: Iterable[ScoreRow]) -> list[Comparison]:
    """Compare each pretrained mode with training from scratch, per split and metric.

    A difference is taken per case and repetition, because both modes of a repetition train on the same subset with the
    same seed, and is averaged over the cases of the subject.

    Returns:
        One entry per split and metric, in order of appearance, and pretrained mode that was run; none without
        the mode "random".
    """
    rows = list(rows)
    groups, whole_set, comparisons = group(rows), is_whole_set(rows), []
    for split, metric in dict.fromkeys((split, metric) for split, metric, _ in groups):
        baseline = groups.get((split, metric, BASELINE))
        for mode in MODES:
            if mode != BASELINE and baseline is not None and (split, metric, mode) in groups:
                pair = groups[split, metric, mode], baseline
                comparisons.append(_comparison(split, metric, mode, *pair, whole_set=whole_set))
    corrected = iter(paired.holm([c.p_value for c in comparisons if c.p_value is not None]))
    return [c if c.p_value is None else dataclasses.replace(c, p_holm=next(corrected)) for c in comparisons]


def group(rows: Iterable[ScoreRow]) -> defaultdict[tuple[float, str, str], list[ScoreRow]]:
    """Return the `defined` rows of each split, metric and mode, in order of appearance; none where none is defined."""
    rows, groups = list(rows), defaultdict(list)
    for row in rows:
        groups[row.split, row.metric, row.mode] = []
    for row in defined(rows):
        groups[row.split, row.metric, row.mode].append(row)
    return groups


def is_whole_set(rows: Iterable[ScoreRow]) -> bool:
    """Return whether all scores are of whole test sets, not of single cases."""
    return all(row.case == WHOLE_SET for row in rows)


def _comparison(
    split: float,
    metric: str,
    mode: str,
    pretrained: Sequence[ScoreRow],
    baseline: Sequence[ScoreRow],
    *,
    whole_set: bool,
) -> Comparison:
    scratch = {(row.repetition, row.case): row.value for row in baseline}
    pairs = ((row, scratch.get((row.repetition, row.case), math.nan)) for row in pretrained)
    by_repetition = _subject_means(dataclasses.replace(row, value=row.value - other) for row, other in pairs)
    subjects = list(itertools.chain.from_iterable(by_repetition.values()))
    in_folds = len(by_repetition) > 1 and len(set(subjects)) == len(subjects)
    if not in_folds:
        subjects = [s for s in dict.fromkeys(subjects) if all(s in means for means in by_repetition.values())]
    differences = [np.array([means[s] for s in subjects if s in means]) for means in by_repetition.values()]
    num_repetitions, effect = len(differences) if subjects else 0, None
    if not whole_set and len(subjects) >= paired.MIN_SUBJECTS and num_repetitions >= paired.MIN_REPETITIONS:
        effect = paired.nested(differences) if in_folds else paired.crossed(np.transpose(differences))
    return Comparison(
        split,
        metric,
        mode,
        num_subjects=None if whole_set else len(subjects),
        num_repetitions=num_repetitions,
        difference=_mean(np.concatenate(differences)) if subjects else None,
        low=effect and effect.low,
        high=effect and effect.high,
        sd=float(np.std([fold.mean() for fold in differences], ddof=1)) if num_repetitions > 1 else None,
        p_value=effect and effect.p_value,
    )


def _subject_means(rows: Iterable[ScoreRow]) -> dict[int, dict[str, float]]:
    """Return for each repetition, in order, the mean over the cases of each subject; NaN does not count."""
    values = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not math.isnan(row.value):
            values[row.repetition][row.subject].append(row.value)
    return {
        repetition: {subject: _mean(cases) for subject, cases in sorted(values[repetition].items())}
        for repetition in sorted(values)
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
