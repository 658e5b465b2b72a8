"""The tables of a finetuning sweep: tidy scores, the predecessor's summary, paired statistics, plain text."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import number, read_table, write_table
from self_supervised_3d_tasks.scores import statistics
from self_supervised_3d_tasks.scores.statistics import BASELINE, MODES, Comparison, ScoreRow, repetition_means

_LONG_COLUMNS = [field.name for field in fields(ScoreRow)]


def write_long(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write ``results_long.csv``: one line per score, NaN as an empty cell."""
    cells = ([number(r.split), r.mode, r.repetition, r.case, r.metric, number(r.value)] for r in rows)
    write_table(path, _LONG_COLUMNS, cells)


def read_long(path: Path) -> list[ScoreRow]:
    """Read what `write_long` wrote.

    Raises:
        UserError: The file is not such a table.
    """
    remedy, rows = "give the results_long.csv of a finetuning run", []
    for line, (split, mode, repetition, case, metric, value) in enumerate(read_table(path, _LONG_COLUMNS, remedy), 2):
        try:
            score = float(value) if value else math.nan
            rows.append(ScoreRow(float(split), mode, int(repetition), case, metric, score))
        except ValueError as error:
            raise UserError(f"{path}, line {line}: expected numbers, received {error}; {remedy}") from error
    return rows


def write_summary(
    path: Path, rows: Iterable[ScoreRow], modes: Sequence[str], metrics: Sequence[str], percents: Sequence[float]
) -> None:
    """Write ``results.csv`` with the predecessor's columns.

    The value of a repetition is the mean over cases; min, avg and max are taken over repetitions.

    Args:
        path: The file.
        rows: All scores.
        modes: The modes that were run; columns come in the order frozen, initialized, random.
        metrics: Scores in column order.
        percents: Label fractions in row order.
    """
    groups = statistics.group(rows)
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


def write_statistics(path: Path, comparisons: Iterable[Comparison]) -> None:
    """Write ``statistics.csv``; what could not be computed is an empty cell.

    The column of pairs is ``num_cases``, or ``num_repetitions`` for scores of the whole test set.
    """
    comparisons = list(comparisons)
    unused = "num_cases" if any(c.num_cases is None for c in comparisons) else "num_repetitions"
    header = [field.name for field in fields(Comparison) if field.name != unused]
    write_table(path, header, ([_cell(getattr(c, name)) for name in header] for c in comparisons))


def table(rows: Iterable[ScoreRow], *, unit: str = "repetitions", undefined: str = "not defined") -> str:
    """Return the sweep as plain text: a line per split and metric, a column per mode and per comparison.

    Args:
        rows: All scores.
        unit: What a repetition is: "repetitions" or "folds".
        undefined: Why a score can be missing, for the note below the table.
    """
    rows = list(rows)
    groups = statistics.group(rows)
    if not groups:
        return "No scores."
    modes = [mode for mode in MODES if any(row.mode == mode for row in rows)]
    compared = [mode for mode in modes if mode != BASELINE and BASELINE in modes]
    differences = {(c.split, c.metric, c.mode): c for c in statistics.compare(rows)}
    lines = [["Labels", "Score", *modes, *(f"{mode} - {BASELINE}" for mode in compared)]]
    for split, metric in dict.fromkeys((split, metric) for split, metric, _ in groups):
        means = [_mean_cell(repetition_means(groups[split, metric, mode])) for mode in modes]
        cells = [_difference_cell(differences.get((split, metric, mode)), unit) for mode in compared]
        lines.append([f"{split:g}%", metric, *means, *cells])
    notes = [*_notes(rows, unit, compared=bool(compared)), _undefined_note(rows, undefined)]
    return "\n".join([*_align(lines), *notes])


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
    """Return what a reader of the table must know: what the numbers are, and what was tested."""
    whole_set = statistics.is_whole_set(rows)
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
    return notes


def _undefined_note(rows: Sequence[ScoreRow], reason: str) -> str:
    undefined = defaultdict(int)
    for row in rows:
        undefined[row.metric] += math.isnan(row.value)
    counts = ", ".join(f"{metric} {count}" for metric, count in undefined.items() if count)
    scores = f"{sum(undefined.values())} of {len(rows)} {'scores' if statistics.is_whole_set(rows) else 'case scores'}"
    return f"left out, {reason}: {scores}" + (f" ({counts})" if counts else "")


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [text[0], "-" * max(map(len, text)), *text[1:]]


def _cell(value: str | float | None) -> str:
    return value if isinstance(value, str) else number(value)
