"""A CSV file with one row per case: where its scans are, its mask or class, and whose it is."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from absl import logging

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.labels import tables
from self_supervised_3d_tasks.data.labels.tables import Classes
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.paths import as_path, on_disk, problem

ID, SUBJECT, SESSION, IMAGE, MASK, LABEL = "id", "subject", "session", "image", "mask", "label"
_OWN = (ID, SUBJECT, SESSION, MASK, LABEL)
SUFFIX = ".csv"


class Row(NamedTuple):
    """One case of an index.

    Attributes:
        where: File and number of the row, for messages.
        name: The id, or the stem of the first image.
        subject: None where the index does not say it.
        images: One file per channel column.
        mask: None where the cell is empty, or was not asked for.
        label: Class; None as for the mask.
        columns: Name and cell of every other column, the session among them.
    """

    where: str
    name: str
    subject: str | None
    images: tuple[Path, ...]
    mask: Path | None
    label: int | None
    columns: tuple[tuple[str, str], ...]


def read(
    path: Path, *, channel_columns: Sequence[str] | None = None, masks: bool = False, classes: Classes | None = None
) -> list[Row]:
    """Return the rows of an index, in their order. Files are looked up in their folders, not opened.

    Args:
        path: CSV file in UTF-8. Paths in it are relative to its folder.
        channel_columns: The columns of images, in the order of the channels; None: ``image``, or else every column that
            is not one of the index's own and holds names of scans.
        masks: Whether rows without a mask are left out.
        classes: What labels stand for; rows without a label are left out. None: labels are not read.

    Raises:
        UserError: The file or a row cannot be used, or a row names a file that does not exist.
    """
    if path.is_dir():
        raise UserError(
            f'{path}: is a folder, but dataset_name is "index"; expected a CSV file with a row per case. Make one: '
            f"python prepare.py index {path} --output index.csv"
        )
    (_, cells), *rows = tables.read_cells(path, "data_dir")
    header = [cell.strip() for cell in cells]
    _check_header(path, header)
    if not rows:
        raise UserError(f"{path}: has no rows below the names of the columns; expected one per case.")
    for number, row in rows:
        tables.check_length(f"{path}: row {number}", row, len(header))
    table = _Table(path, header, [(number, [cell.strip() for cell in row]) for number, row in rows])
    kept = table.with_cells(MASK if masks else LABEL if classes else None)
    channels = table.channels(channel_columns)
    found = [table.row(*row, channels, masks=masks, classes=classes) for row in kept]
    _check_names(found)
    _check_files(path, len(kept), _files(found, [header[channel] for channel in channels]))
    _check_shared_files(found)
    return found


@dataclass(frozen=True)
class _Table:
    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def with_cells(self, column: str | None) -> list[tuple[int, list[str]]]:
        """Return the rows with something in a column, and count the others; None: all rows."""
        if column is None:
            return self.rows
        if column not in self.header:
            raise UserError(
                f"{self.path}: there is no column {column!r}, from which to learn; the columns are "
                f"{', '.join(self.header)}. Add it."
            )
        position = self.header.index(column)
        kept = [row for row in self.rows if row[1][position]]
        if not kept:
            raise UserError(
                f"{self.path}: no row has a {column}; expected one in the rows to learn from. Fill them in."
            )
        if len(kept) < len(self.rows):
            text = "%s: %d of %d rows have no %s; left out."
            logging.info(text, self.path, len(self.rows) - len(kept), len(self.rows), column)
        return kept

    def channels(self, names: Sequence[str] | None) -> list[int]:
        """Return where the columns of images are."""
        if names:
            for name in names:
                if name not in self.header:
                    raise UserError(
                        f"channel_columns: {self.path} has no column {name!r}; its columns are "
                        f"{', '.join(self.header)}.{nearest(name, self.header)}"
                    )
            return [self.header.index(name) for name in names]
        if IMAGE in self.header:
            return [self.header.index(IMAGE)]
        others = [position for position, name in enumerate(self.header) if name not in _OWN]
        found = [
            position
            for position in others
            if any(formats.suffix_of(Path(cells[position])) for _, cells in self.rows if cells[position])
        ]
        if not found:
            raise UserError(
                f"{self.path}: no column holds names of scans ({', '.join(formats.suffixes())}); expected one called "
                "image, or one per channel. Add them, or set channel_columns."
            )
        return found

    def row(self, number: int, cells: list[str], channels: list[int], *, masks: bool, classes: Classes | None) -> Row:
        """Return a row whose cells are checked, but for whether its files are there."""
        where, values = f"{self.path}: row {number}", dict(zip(self.header, cells, strict=True))
        for channel in channels:
            if not cells[channel]:
                raise UserError(
                    f"{where} has nothing in the column {self.header[channel]!r}, expected the file of a scan. Fill it "
                    "in, remove the row, or choose the channels by channel_columns."
                )
        for column in (ID, SUBJECT):
            if values.get(column) == "":
                raise UserError(f"{where} has nothing in the column {column!r}. Fill it in, or remove the column.")
        images = tuple(self._absolute(cells[channel]) for channel in channels)
        name = values.get(ID) or formats.stem_of(images[0])
        if "/" in name or "\\" in name or name.startswith("."):
            raise UserError(f"{where} has the id {name!r}, which cannot be part of a file's name. Change it.")
        others = {ID, SUBJECT, MASK, LABEL, *(self.header[channel] for channel in channels)}
        return Row(
            where,
            name,
            values.get(SUBJECT),
            images,
            self._absolute(values[MASK]) if masks else None,
            classes.of(tables.integer(values[LABEL], where), where) if classes else None,
            tuple((column, cell) for column, cell in values.items() if column not in others),
        )

    def _absolute(self, cell: str) -> Path:
        return Path(os.path.abspath(on_disk(self.path.parent / as_path(cell))))


def _check_header(path: Path, header: list[str]) -> None:
    double = [name for name, count in Counter(header).items() if count > 1]
    if double:
        raise UserError(f"{path}: several columns are called {double[0]!r}; expected different names. Rename them.")


def _check_names(rows: list[Row]) -> None:
    found: dict[str, Row] = {}
    for row in rows:
        if row.name in found:
            raise UserError(
                f"{row.where} has the id {row.name!r} of {found[row.name].where.rpartition(': ')[2]}; expected one row "
                f"per case. Give each its own in a column {ID!r}."
            )
        found[row.name] = row


def _check_shared_files(rows: list[Row]) -> None:
    """Raise `UserError` for a scan of two people: a split could put it on two sides."""
    owners: dict[Path, Row] = {}
    for row in rows:
        for image in row.images:
            other = owners.setdefault(image, row)
            if (other.subject or other.name) != (row.subject or row.name):
                raise UserError(
                    f"{row.where} has the scan {image} of {other.where.rpartition(': ')[2]}, but another subject. "
                    "Correct the scan, or give both rows one subject."
                )


def _files(rows: list[Row], channels: list[str]) -> Iterator[tuple[Row, str, Path]]:
    for row in rows:
        yield from ((row, column, image) for column, image in zip(channels, row.images, strict=True))
        if row.mask:
            yield row, MASK, row.mask


def _check_files(path: Path, number: int, files: Iterator[tuple[Row, str, Path]]) -> None:
    """Raise `UserError` for files that are not there: by one listing of each folder."""
    listings: dict[str, dict[str, os.DirEntry]] = {}
    problems: dict[str, str] = {}
    for row, column, file in files:
        folder, name = os.path.split(file)
        if folder not in listings:
            listings[folder] = _listing(folder)
        entry = listings[folder].get(name)
        if wrong := _problem(file, entry):
            problems.setdefault(row.where, f"column {column!r}: {file}: {wrong}")
    if problems:
        where, text = next(iter(problems.items()))
        raise UserError(
            f"{where}, {text}. {len(problems)} of {number} rows of {path.name} have files that cannot be used; paths "
            "are relative to the index."
        )


def _listing(folder: str) -> dict[str, os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except OSError:
        return {}


def _problem(file: Path, entry: os.DirEntry | None) -> str:
    """Return what is wrong with a file, or an empty string."""
    if entry is not None and (entry.is_file(follow_symlinks=False) or not problem(file)):
        return "" if formats.suffix_of(file) else f"does not end in {' or '.join(formats.suffixes())}; convert it"
    if any(module.is_scan(file) for module in formats.known() if hasattr(module, "is_scan")):
        return ""  # no file of its own
    return problem(file)
