"""A CSV file with the class, or the findings, of every scan.

Rows are counted as a spreadsheet counts them: the names of the columns stand in row 1.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from absl import logging

from self_supervised_3d_tasks.data.formats import suffix_of
from self_supervised_3d_tasks.data.labels import findings
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files import tables as csv_files
from self_supervised_3d_tasks.files.paths import as_path, composed, shown

Label = int | tuple[int, ...]
"""A class; or for each of some findings 1 where there is one, else 0."""

_INTEGER = re.compile(r"([+-]?[0-9]{1,9})(\.0*)?")  # pandas writes 2.0 into columns with gaps


class Row(NamedTuple):
    """One scan of a table.

    Attributes:
        number: Number of the row, from 1.
        file: File name, or a name without suffix where the table has those.
        label: Class, after ``label_map``; or findings, see `findings`.
        subject: None without a column of subjects.
    """

    number: int
    file: str
    label: Label
    subject: str | None


@dataclass(frozen=True)
class Classes:
    """Which classes labels stand for.

    Args:
        num_classes: Every class is below it.
        label_map: Source label to class, for the labels that change.

    Attributes:
        met: The labels that were looked up.
    """

    num_classes: int
    label_map: Mapping[int, int] = field(default_factory=dict)
    met: set[int] = field(default_factory=set, init=False, compare=False)

    def of(self, label: int, where: str) -> int:
        """Return the class of a label.

        Args:
            label: The label as it is stored.
            where: What has the label, for messages.

        Raises:
            UserError: The class is out of range.
        """
        self.met.add(label)
        mapped = self.label_map.get(label, label)
        if not 0 <= mapped < self.num_classes:
            turned, remedy = "", "map the label with"
            if label in self.label_map:
                turned, remedy = f", which label_map turns into {mapped}", "correct"
            raise UserError(
                f"{where} has label {label}{turned}, expected 0 to {self.num_classes - 1} (num_classes = "
                f"{self.num_classes}). Change num_classes, or {remedy} label_map."
            )
        return mapped


@dataclass(frozen=True)
class LabelTable:
    """A table of the labels of scans.

    Args:
        path: CSV file: UTF-8, comma-separated, with the names of the columns first.
        num_classes: Every class is below it.
        image_column: Name of the column of scans.
        label_column: Name of the column of integer labels, or of findings.
        subject_column: Name of the column of subjects.
        suffix: What follows the name of a scan in the name of its file, such as ``".png"``; it replaces a suffix that
            the name has already. None: the table holds file names, with or without their suffix.
        label_map: Source label to class, for the labels that change.
        positional: The first two columns are scan and label unless they are named, as the predecessor has it.
        findings: Names that a cell may hold, in the order of the labels, which are then vectors, see `findings.parse`;
            empty: labels are integers.

    Attributes:
        classes: Turns labels into classes.
    """

    path: Path
    num_classes: int
    image_column: str | None = None
    label_column: str | None = None
    subject_column: str | None = None
    suffix: str | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    positional: bool = False
    findings: tuple[str, ...] = ()
    classes: Classes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Accept what JSON has: a text for the path."""
        object.__setattr__(self, "path", as_path(self.path))
        object.__setattr__(self, "classes", Classes(self.num_classes, self.label_map))

    def suffixes(self, allowed: Sequence[str]) -> tuple[str, ...]:
        """Return which of the suffixes of a layout the files of the table can have.

        Raises:
            UserError: ``suffix`` ends in none of them.
        """
        if self.suffix is None:
            return tuple(allowed)
        suffix = suffix_of(Path(f"name{self.suffix}"))
        if suffix not in allowed:
            raise UserError(f"suffix: expected an ending in {', '.join(allowed)}, received {self.suffix!r}.")
        return (suffix,)

    def read(self) -> list[Row]:
        """Return the rows in their order.

        Raises:
            UserError: The file cannot be read, a column is missing, or a cell does not hold what it should.
        """
        (_, cells), *rows = read_cells(self.path, "csv_file")
        header = [name.strip() for name in cells]
        if self.positional and len(header) < 2:
            raise UserError(
                f"{self.path}: has one column, {header[0]!r}; expected scan and label, separated by a comma."
            )
        image = self._column("image_column", 0, header)
        label = self._column("label_column", 1, header)
        if self.positional and _INTEGER.fullmatch(header[label]):
            raise UserError(f"{self.path}: row 1 has label {header[label]}; expected the names of the columns there.")
        subject = self.subject_column and self._column("subject_column", 2, header)
        if not rows:
            raise UserError(f"{self.path}: has no rows below the names of the columns; expected one per scan.")
        return [self._row(number, cells, (image, label, subject), len(header)) for number, cells in rows]

    def rows_by_name(self, folder: Path, scans: Mapping[str, Sequence[Path]]) -> dict[str, Row]:
        """Return the row of each scan that the table names.

        Args:
            folder: Where the scans lie, for messages.
            scans: The files of each scan by its name.

        Raises:
            UserError: As `read`, or a row names no scan, or two name the same.
        """
        # A path below the folder, or a file name that is the only one of its kind.
        paths = {_without_case(files[0].relative_to(folder).as_posix()): name for name, files in scans.items()}
        by_file = {path[: len(path) - len(suffix_of(Path(path)))]: name for path, name in paths.items()} | paths
        names = [_without_case(files[0].name) for files in scans.values()]
        counts = Counter(names)
        by_file |= {file: name for file, name in zip(names, scans, strict=True) if counts[file] == 1}
        found: dict[str, Row] = {}
        missing: list[Row] = []
        rows = self.read()
        for row in rows:
            name = by_file.get(_without_case(row.file), row.file)
            if name not in scans and counts[_without_case(row.file)] > 1:
                raise UserError(
                    f"{self.path}: row {row.number} names {row.file!r}, of which {folder} has several in its "
                    "sub-folders; expected the path below the folder."
                )
            if name not in scans:
                missing.append(row)
            elif name in found:
                raise UserError(
                    f"{self.path}: rows {found[name].number} and {row.number} are both about {row.file!r}; expected "
                    "one row per scan. Remove one of the two."
                )
            else:
                found[name] = row
        if missing:
            raise UserError(
                f"{self.path}: {len(missing)} of {len(rows)} rows have no file in {folder}; the first is row "
                f"{missing[0].number}, {missing[0].file!r}. Add the files, remove the rows, or set suffix (what the "
                'name of a file has more than that of its scan, as ".png").'
            )
        if len(found) < len(scans):
            logging.info("%s: %d scans are not in %s; left out.", folder, len(scans) - len(found), self.path)
        return found

    def _column(self, key: str, position: int, header: list[str]) -> int:
        """Return where the column is that a key names, or that stands at its position where it need not be named."""
        name = getattr(self, key)
        if name is None and self.positional:
            return position
        if name is not None and header.count(name) == 1:
            return header.index(name)
        if name is None:
            problem, hint = "is not set, but the table needs it", ""
        elif name in header:
            problem, hint = f"{name!r} is the name of several columns", ""
        else:
            problem, hint = f"there is no column {name!r}", nearest(name, header)
        raise UserError(f"{key}: {problem}. {self.path} has the columns {', '.join(map(repr, header))}.{hint}")

    def _row(self, number: int, cells: list[str], columns: tuple[int, int, int | None], expected: int) -> Row:
        where = f"{self.path}: row {number}"
        check_length(where, cells, expected)
        image, label, subject = (None if column is None else cells[column].strip() for column in columns)
        if not image:
            raise UserError(f"{where} has no name of a scan. Fill it in, or remove the row.")
        if "\\" in image or image.startswith("/") or ".." in image.split("/"):
            raise UserError(f"{where}: {image!r} is no plain file name, nor a path below the folder of scans.")
        if subject == "":
            raise UserError(f"{where} has no subject (subject_column {self.subject_column!r}). Fill it in.")
        stem = image[: len(image) - len(suffix_of(Path(image)))]
        file = image if self.suffix is None else f"{stem}{self.suffix}"
        if self.findings:
            return Row(number, file, findings.parse(label, self.findings, where), subject)
        return Row(number, file, self.classes.of(integer(label, where), where), subject)


def read_cells(path: Path, key: str) -> list[tuple[int, list[str]]]:
    """Return number and cells of each row of a CSV file that is not blank; the first one is the header.

    Args:
        path: A byte order mark may come first.
        key: The key that names the file, for messages.

    Raises:
        UserError: The file is missing, empty, or no CSV file in UTF-8.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path}: this table does not exist. Check the path ({key}).")
    rows = [row for row in csv_files.read_cells(path) if any(map(str.strip, row[1]))]
    if not rows:
        raise UserError(f"{path}: is empty; expected a row with the names of the columns.")
    return rows


def check_length(where: str, cells: Sequence[str], expected: int) -> None:
    """Raise `UserError` for a row that has not as many cells as the header."""
    if len(cells) != expected:
        raise UserError(f"{where} has {len(cells)} cells, expected {expected} as in row 1. Are there quotes missing?")


def integer(cell: str, where: str) -> int:
    """Return the integer of a cell, ``2.0`` too; `UserError` for anything else."""
    match = _INTEGER.fullmatch(cell)
    if match is None:
        raise UserError(f"{where} has label {shown(cell)!r}, expected an integer.")
    return int(match[1])


def _without_case(name: str) -> str:
    """Return a file name with its suffix in lower case: a table says ``a.jpg`` and a camera ``a.JPG``."""
    name = composed(name)
    suffix = suffix_of(Path(name))
    return f"{name[: len(name) - len(suffix)]}{suffix}"
