"""The tables of a finetuning sweep: tidy scores, the predecessor's summary, paired statistics, plain text.

A segmentation is scored case by case; classes and findings of whole scans are scored on all test cases of a repetition
(fold) together, in rows whose case is `WHOLE_SET`. A score of NaN is not defined: of a segmentation, because the class
is absent from both the truth and the prediction of the case; of classes, because all test cases are of one class; of a
finding, because all or none of the test cases have it. Such a score is left out of every mean, and `table` says how
many there were.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import number, read_table, write_table
from self_supervised_3d_tasks.scores import findings as finding_scores

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
        split: percent of the labelled training data that was used, in (0, 100].
        mode: "frozen", "initialized" or "random".
        repetition: index of the repetition.
        case: name of the test case, or `WHOLE_SET`.
        metric: name of the score.
        value: the score, or NaN where it is not defined.
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
        split: percent of the labelled training data.
        metric: name of the score.
        mode: the pretrained mode.
        num_cases: cases with a score in both modes; None for scores of the whole test set.
        num_repetitions: repetitions with a score in both modes.
        difference: mean over cases (of the whole set: over repetitions) of (mode - random), None without a pair.
        sd: sample standard deviation over repetitions of the mean difference, None for a single repetition.
        p_value: two-sided Wilcoxon signed-rank test over cases, each averaged over repetitions; None below six cases
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


def write_long(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write ``results_long.csv``: one line per score, NaN as an empty cell."""
    header = [field.name for field in fields(ScoreRow)]
    write_table(
        path,
        header,
        ([number(r.split), r.mode, r.repetition, r.case, r.metric, number(r.value)] for r in rows),
    )


def read_long(path: Path) -> list[ScoreRow]:
    """Read what `write_long` wrote.

    Raises:
        UserError: the file is not such a table.
    """
    header = [field.name for field in fields(ScoreRow)]
    rows = read_table(path, header, "give the results_long.csv of a finetuning run")
    return [_row(path, line, cells) for line, cells in enumerate(rows, start=2)]


def write_summary(
    path: Path,
    rows: Iterable[ScoreRow],
    modes: Sequence[str],
    metrics: Sequence[str],
    percents: Sequence[float],
) -> None:
    """Write ``results.csv`` with the predecessor's columns.

    The value of a repetition is the mean over cases; min, avg and max are taken over repetitions.

    Args:
        path: the file.
        rows: all scores.
        modes: the modes that were run; columns come in the order frozen, initialized, random.
        metrics: scores in column order.
        percents: label fractions in row order.
    """
    groups = _group(rows)
    columns = [(mode, metric) for mode in MODES if mode in modes for metric in metrics]
    header = ["Train Split"]
    for mode, metric in columns:
        header += [f"Weights_{mode}_{metric}_{suffix}" for suffix in ("min", "avg", "max")]
    lines = []
    for percent in percents:
        line = [f"{percent:g}%"]
        for mode, metric in columns:
            values = list(repetition_means(groups[percent, metric, mode]).values())
            line += map(number, (min(values), sum(values) / len(values), max(values))) if values else ["", "", ""]
        lines.append(line)
    write_table(path, header, lines)


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


def statistics(rows: Iterable[ScoreRow]) -> list[Comparison]:
    """Compare each pretrained mode with training from scratch, per split and metric.

    A difference is taken per case and repetition, because both modes of a repetition train on the same
    subset, and is averaged over the repetitions of the case: cases, not repetitions, are the units of the
    test. A score that is NaN in one of the modes gives no pair. p-values are not corrected for the
    number of comparisons.

    Returns:
        One entry per split and metric, in order of appearance, and pretrained mode that was run; none without
        the mode "random".
    """
    groups = _group(rows)
    comparisons = []
    for split, metric in dict.fromkeys((split, metric) for split, metric, _ in groups):
        baseline = groups.get((split, metric, BASELINE))
        for mode in MODES:
            if mode != BASELINE and baseline and (split, metric, mode) in groups:
                comparisons.append(_compare(split, metric, mode, groups[split, metric, mode], baseline))
    return comparisons


def write_statistics(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write ``statistics.csv``; what could not be computed is an empty cell.

    The column of pairs is ``num_cases``, or ``num_repetitions`` for scores of the whole test set.
    """
    comparisons = list(comparisons)
    unused = "num_cases" if any(c.num_cases is None for c in comparisons) else "num_repetitions"
    header = [field.name for field in fields(Comparison) if field.name != unused]
    write_table(path, header, ([_cell(getattr(c, name)) for name in header] for c in comparisons))


def table(rows: Iterable[ScoreRow], *, unit: str = "repetitions") -> str:
    """Return the sweep as plain text: a line per split and metric, a column per mode and per comparison.

    Args:
        rows: all scores.
        unit: what a repetition is: "repetitions" or "folds".
    """
    rows = list(rows)
    groups = _group(rows)
    if not groups:
        return "No scores."
    modes = [mode for mode in MODES if any(row.mode == mode for row in rows)]
    compared = [mode for mode in modes if mode != BASELINE and BASELINE in modes]
    differences = {(c.split, c.metric, c.mode): c for c in statistics(rows)}
    lines = [["Labels", "Score", *modes, *(f"{mode} - {BASELINE}" for mode in compared)]]
    for split, metric in dict.fromkeys((split, metric) for split, metric, _ in groups):
        means = [_mean_cell(repetition_means(groups[split, metric, mode])) for mode in modes]
        cells = [_difference_cell(differences.get((split, metric, mode)), unit) for mode in compared]
        lines.append([f"{split:g}%", metric, *means, *cells])
    notes = _notes(rows, unit, compared=bool(compared))
    return "\n".join([*_align(lines), *notes])


def _group(rows: Iterable[ScoreRow]) -> defaultdict[tuple[float, str, str], list[ScoreRow]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row.split, row.metric, row.mode].append(row)
    return groups


def _compare(
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
    whole_set = _is_whole_set(pretrained)
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


def _is_whole_set(rows: Iterable[ScoreRow]) -> bool:
    return all(row.case == WHOLE_SET for row in rows)


def _signed_rank(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    # Zero differences carry no sign; with nothing else the statistic is 0 / 0.
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _mean_cell(means: dict[int, float]) -> str:
    values = list(means.values())
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} ({len(values)})"


def _difference_cell(comparison: Comparison | None, unit: str) -> str:
    if comparison is None or comparison.difference is None:
        return "-"
    if comparison.num_cases is None:
        spread = "" if comparison.sd is None else f" ± {comparison.sd:.3f}"
        return f"{comparison.difference:+.3f}{spread} ({comparison.num_repetitions} {unit})"
    p = comparison.p_value
    significance = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
    return f"{comparison.difference:+.3f}{significance} ({comparison.num_cases} cases)"


def _notes(rows: Sequence[ScoreRow], unit: str, *, compared: bool) -> list[str]:
    """Return what a reader of the table must know: what the numbers are, what was tested, what was left out."""
    whole_set = _is_whole_set(rows)
    scored = f"score on the test cases of the {unit[:-1]}" if whole_set else "mean over test cases"
    notes = [f"mean ± sd over {unit} (number of {unit}) of the {scored}"]
    if compared and whole_set:
        notes.append(
            f"differences: mean ± sd over {unit}, paired; no p-value, because the differences of a handful of {unit}\n"
            "   are not independent: their training sets overlap"
        )
    elif compared:
        notes.append(
            f"p: two-sided Wilcoxon signed-rank test over cases, uncorrected, from six cases and three {unit} on;\n"
            f"   other seeds are not part of the test: compare the difference with the sd over {unit}"
        )
    return [*notes, _undefined_note(rows, whole_set=whole_set)]


def _undefined_note(rows: Sequence[ScoreRow], *, whole_set: bool) -> str:
    undefined = defaultdict(int)
    for row in rows:
        undefined[row.metric] += math.isnan(row.value)
    counts = ", ".join(f"{metric} {count}" for metric, count in undefined.items() if count)
    if not whole_set:
        reason = "class absent from truth and prediction"
    elif all(map(finding_scores.is_name, undefined)):
        reason = "finding of all or none of the test cases, which has no AUROC and does not count in mean_auroc"
    else:
        reason = "all test cases of one class"
    scores = f"{sum(undefined.values())} of {len(rows)} {'scores' if whole_set else 'case scores'}"
    return f"left out, {reason}: {scores}" + (f" ({counts})" if counts else "")


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [text[0], "-" * max(map(len, text)), *text[1:]]


def _row(path: Path, line: int, cells: Sequence[str]) -> ScoreRow:
    try:
        split, mode, repetition, case, metric, value = cells
        return ScoreRow(float(split), mode, int(repetition), case, metric, float(value) if value else math.nan)
    except ValueError as error:
        raise UserError(f"{path}, line {line}: expected split,mode,repetition,case,metric,value; {error}.") from error


def _cell(value: str | float | None) -> str:
    return value if isinstance(value, str) else number(value)
