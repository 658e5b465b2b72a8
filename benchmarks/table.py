"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.isolated import Failed
from benchmarks.settings import Settings


def measured(
    settings: Settings, columns: Sequence[str], parts: Iterable[tuple[str, dict[str, Any], Callable[[dict], None]]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Fill the rows of a table, print each, and return them and the reasons of those that were not measured.

    Args:
        settings: Say when the time is over.
        columns: Of the table.
        parts: For each row what a failure of it is called, the row so far, and what adds the numbers to it.
    """
    rows, failures = [], {}
    for name, row, fill in parts:
        try:
            settings.check_time()
            fill(row)
        except Failed as error:
            failures[name] = str(error)
        rows.append(row)
        settings.tell(line(columns, row))
    return rows, failures


def section(text: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], failures: Mapping[str, str]) -> str:
    """Return a text with its table, and why cells are empty."""
    return "\n\n".join(filter(None, (text.strip(), markdown(columns, rows), reasons(failures))))


def markdown(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table; a row without a value has a dash there."""
    names = {column: column for column in columns}
    rule = "|" + " --- |" * len(columns)
    return "\n".join([line(columns, names), rule, *(line(columns, row) for row in rows)])


def line(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(shown(row.get(column)) for column in columns) + " |"


def shown(value: Any) -> str:
    """Return a cell: numbers with three digits that count."""
    if not isinstance(value, float):
        return "—" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def reasons(failures: Mapping[str, str]) -> str:
    """Return a paragraph that says why cells are empty, or nothing."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in failures.items():
        by_reason.setdefault(" ".join(reason.split()).replace("|", "\\|")[:200], []).append(name)
    return "\n".join(f"* no number for {', '.join(names)}: {reason}" for reason, names in by_reason.items())
