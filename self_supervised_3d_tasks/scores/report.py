"""The tables of a finetuning sweep: tidy scores, the predecessor's summary, paired statistics, plain text."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import number, read_table, write_table
from self_supervised_3d_tasks.scores import paired, statistics
from self_supervised_3d_tasks.scores.statistics import BASELINE, MODES, Comparison, ScoreRow, repetition_means

_UNTESTED = {
    "repetitions": "all repetitions share one test set",
    "folds": "few folds, whose training sets overlap, are not independent",
}
_LONG_COLUMNS = [field.name for field in fields(ScoreRow)]


def write_long(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write ``results_long.csv``: one line per score, NaN as an empty cell."""
    cells = ([number(r.split), r.mode, r.repetition, r.subject, r.case, r.metric, number(r.value)] for r in rows)
    write_table(path, _LONG_COLUMNS, cells)


def read_long(path: Path) -> list[ScoreRow]:
    """Read what `write_long` wrote.

    Raises:
        UserError: The file is not such a table.
    """
    remedy, rows = "give the results_long.csv of a finetuning run", []
    for line, (split, mode, repetition, *names, value) in enumerate(read_table(path, _LONG_COLUMNS, remedy), 2):
        try:
            score = float(value) if value else math.nan
            rows.append(ScoreRow(float(split), mode, int(repetition), *names, score))
        except ValueError as error:
            raise UserError(f"{path}, line {line}: expected numbers, received {error}; {remedy}") from error
    return rows


def write_summary(
    path: Path, rows: Iterable[ScoreRow], modes: Sequence[str], metrics: Sequence[str], percents: Sequence[float]
) -> None:
    """Write ``results.csv`` with the predecessor's columns.

    The value of a repetition is the mean over subjects; min, avg and max are taken over repetitions.

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
    """Write ``statistics.csv``; what could not be computed is an empty cell."""
    header = [field.name for field in fields(Comparison)]
    write_table(path, header, ([_cell(getattr(c, name)) for name in header] for c in comparisons))


def table(
    rows: Iterable[ScoreRow],
    *,
    unit: str = "repetitions",
    undefined: str = "not defined",
    distances: Collection[str] = (),
    remarks: Sequence[str] = (),
) -> str:
    """Return the sweep as plain text: a line per split and metric, a column per mode and per comparison.

    Args:
        rows: All scores.
        unit: What a repetition is: "repetitions" or "folds".
        undefined: Why a score can be missing, for the note below the table.
        distances: Scores in mm of which less is better.
        remarks: Further notes, of the test set.
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
        lines.append([f"{split:g}%", f"{metric} (mm) ↓" if metric in distances else metric, *means, *cells])
    notes = [*_notes(rows, unit, differences.values()), *_undefined_note(rows, undefined)]
    if any(row.metric in distances for row in rows):
        notes.append("↓ less is better" + (": a negative difference is a gain" if compared else ""))
    notes += remarks
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
    c, count = comparison, _counted(comparison.num_repetitions, unit)
    tested = "" if c.low is None else f" [{c.low:+.3f}, {c.high:+.3f}]"
    spread = "" if c.sd is None else f" ± {c.sd:.3f}"
    p = c.p_holm
    significance = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
    units = count if c.num_subjects is None else f"{_counted(c.num_subjects, 'subjects')}, {count}"
    return f"{c.difference:+.3f}{tested}{spread}{significance} ({units})"


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def _notes(rows: Sequence[ScoreRow], unit: str, comparisons: Collection[Comparison]) -> list[str]:
    """Return what a reader of the table must know: what the numbers are, and what was tested."""
    whole_set = statistics.is_whole_set(rows)
    scored = f"score on the test cases of the {unit[:-1]}" if whole_set else "mean over test subjects"
    notes = [f"mean ± sd over {unit} (number of {unit}) of the {scored}"]
    if comparisons and whole_set:
        notes.append(f"differences: mean ± sd over {unit}, paired; no interval, no p: {_UNTESTED[unit]}")
    elif comparisons:
        number = sum(c.p_holm is not None for c in comparisons)
        notes += [
            f"differences: mean [95 % interval] ± sd over {unit}, paired; interval and two-sided p over subjects and "
            f"{unit},",
            f"   from {paired.MIN_SUBJECTS} and {paired.MIN_REPETITIONS} on"
            + (f"; p corrected for {_counted(number, 'comparisons')} (Holm), the intervals not" if number else ""),
        ]
    return notes


def _undefined_note(rows: Sequence[ScoreRow], reason: str) -> list[str]:
    left_out = Counter(row.metric for row in rows) - Counter(row.metric for row in statistics.defined(rows))
    counts = ", ".join(f"{metric} {count}" for metric, count in left_out.items())
    scores = f"{left_out.total()} of {len(rows)} {'scores' if statistics.is_whole_set(rows) else 'case scores'}"
    return [f"left out in every mode, {reason}: {scores} ({counts})"] if counts else []


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [text[0], "-" * max(map(len, text)), *text[1:]]


def _cell(value: str | float | None) -> str:
    return value if isinstance(value, str) else number(value)
