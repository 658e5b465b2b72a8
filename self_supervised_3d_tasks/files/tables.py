"""The CSV files that the package writes and reads back."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.paths import escaped, read_text, unescaped


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically: the names of the columns, then the rows.

    Floats are written with all their digits, None as an empty cell, NaN as ``nan``; `number` writes NaN as an empty
    cell instead.
    """
    atomic_write_bytes(path, encode_table(columns, rows))


def encode_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return the content of the file that `write_table` writes; bytes of names that are no UTF-8 are escaped."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return escaped(text.getvalue()).encode("utf-8")


def read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Return the number and the cells of each line of a CSV file; escaped bytes of names are bytes again.

    Args:
        path: Regular file in UTF-8; a byte order mark may come first.

    Raises:
        UserError: It is no such file, cannot be read, or has quotes that do not end.
    """
    text = io.StringIO(unescaped(read_text(path)), newline="")
    try:
        rows = list(enumerate(csv.reader(text, strict=True), 1))
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV table: {error}; check its quotes and line ends") from error
    if with_nul := next((number for number, cells in rows if any("\0" in cell for cell in cells)), None):
        raise UserError(f"{path}: row {with_nul} has a NUL character; save the table as text in UTF-8")
    return rows


def read_table(path: Path, columns: Sequence[str], remedy: str) -> list[list[str]]:
    """Return the rows of a CSV file that has exactly these columns, in this order.

    Args:
        path: File to read.
        columns: Expected names of the columns.
        remedy: What the user can do if the file is another one, a sentence without its full stop.

    Raises:
        UserError: The file cannot be read, has other columns, or has a row with too few or too many cells.
    """
    try:
        header, *rows = [cells for _, cells in read_cells(path)] or [[]]
    except UserError as error:
        raise UserError(f"{error}; expected a CSV table; {remedy}") from error
    if header != list(columns):
        missing = [column for column in columns if column not in header] if header else []
        received = (",".join(header) or "an empty file") + (f" (without {', '.join(missing)})" if missing else "")
        raise UserError(f"{path}: expected a table with the columns {','.join(columns)}, received {received}; {remedy}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: expected {len(header)} cells, received {len(row)}; {remedy}")
    return rows


def number(value: float | None) -> str:
    """Return the shortest text that reads back as the same number, and an empty text for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    return repr(int(value)) if float(value).is_integer() else repr(float(value))
