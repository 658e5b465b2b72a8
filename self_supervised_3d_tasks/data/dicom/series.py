"""What a folder of DICOM files holds: its series, told apart by SeriesInstanceUID, and what is no scan, with reasons.

Only headers are read, once per folder until files are added or taken away.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from self_supervised_3d_tasks.data.dicom.headers import (
    MAGIC,
    MAGIC_AT,
    SEGMENTATIONS,
    SUFFIX,
    NoScanError,
    kind_of,
    read,
    slices_of,
)
from self_supervised_3d_tasks.data.dicom.slices import Slice, Stack, stack
from self_supervised_3d_tasks.data.volumes import readable
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.paths import problem, reading

_OTHER_FORMATS = (".nii", ".gz", ".npy", ".npz", ".json", ".csv", ".txt")  # not opened: folders hold thousands of them
_SHORTEST_UID = 6
_LONGEST_NAME = 60
_MOST_NAMED = 3


@dataclass
class Contents:
    """What the DICOM files of a folder are.

    Args:
        scans: Each series by its name, or the sentence that says why it cannot be read. A multi-frame file among others
            is a scan of its own by the name of the file.
        masks: Files of segmentations, sorted by name.
        left_out: What is no scan: the name of a file and the reason.
        others: How many files are no DICOM.
    """

    scans: dict[str, Stack | str] = field(default_factory=dict)
    masks: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    others: int = 0


def is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM behind a preamble of 128 bytes, or the suffix ``.dcm``."""
    name = path.name.lower()
    if name.startswith(".") or name.endswith(_OTHER_FORMATS) or not path.is_file():
        return False
    if name.endswith(SUFFIX):
        return True
    with reading(path), open(path, "rb") as file:
        file.seek(MAGIC_AT)
        return file.read(len(MAGIC)) == MAGIC


def contents(path: Path) -> Contents:
    """Return what a folder, or one file, holds; sub-folders are not searched."""
    return _contents(path, path.stat().st_mtime_ns)


def find(path: Path) -> Stack:
    """Return the series that a path names: the only one of a folder, one of several, or a file.

    Raises:
        UserError: There is no such series, or it cannot be read.
    """
    if path.exists():
        held = contents(path)
        if len(held.scans) > 1:
            raise UserError(
                f"{path}: holds {len(held.scans)} series, expected one. Say which: {', '.join(held.scans)} "
                f"(such as {path / next(iter(held.scans))})."
            )
        if not held.scans:
            named = list(held.left_out.items())[:_MOST_NAMED]
            reasons = "; ".join(reason if path.is_file() else f"{name} {reason}" for name, reason in named)
            raise UserError(
                f"{path}: {reasons or 'holds no DICOM files'}. Expected greyscale slices, or a multi-frame file that "
                "says where its frames lie. Give the images themselves."
            )
        found = next(iter(held.scans.values()))
    else:
        found = contents(path.parent).scans.get(path.name)
        if found is None:
            raise FileNotFoundError(path)
    if isinstance(found, str):
        raise UserError(found)
    return found


@functools.lru_cache(maxsize=4096)
def _contents(path: Path, changed: int) -> Contents:
    items = [path] if path.is_file() else sorted(path.iterdir())
    items = [item for item in items if item == path or not item.name.startswith(".")]
    files = [item for item in items if item.is_file()]
    ours = [file for file in files if file == path or is_dicom(file)]
    if not ours:
        return Contents()
    for item in items:  # a slice that cannot be fetched would be missed at an end of a series only by its height
        if not item.is_dir() and not item.is_file() and item.suffix.lower() in ("", SUFFIX):
            return Contents({path.name: f"{item}: {problem(item)}"})
    held = Contents(others=len(files) - len(ours))
    try:
        series = _by_series(ours, held)
    except UserError as error:  # any slice may be the one that is damaged, so that no series is known to be complete
        return Contents({path.name: str(error)})
    scans = {name: items for name, items in series.items() if not _is_left_out(items, held)}
    for name, items in scans.items():
        folder_or_file = path if len(scans) == 1 else path / name
        held.scans[name] = _stack_or_reason(items, folder_or_file)
    return held


class _File(NamedTuple):
    """What the header of a file says: its series, and where its slices lie or why they cannot be used."""

    name: str
    key: tuple[str, str]  # UID of the series, and the name of a multi-frame file, which is a scan of its own
    described: str
    slices: list[Slice] | UserError


def _by_series(files: Sequence[Path], held: Contents) -> dict[str, list[_File]]:
    """Return the files of each series by its name; those of segmentations go to ``held``, too."""
    groups: dict[tuple[str, str], list[_File]] = {}
    for file in files:
        header = read(file, stop_before_pixels=True)
        with readable(file, SUFFIX):
            if kind_of(header) in SEGMENTATIONS:
                held.masks.append(file)
            found = _described(header, file)
        groups.setdefault(found.key, []).append(found)
    names = _names({key: items[0].described for key, items in groups.items()}, files[0].parent)
    return {names[key]: items for key, items in groups.items()}


def _described(header: Any, file: Path) -> _File:
    slices: list[Slice] | UserError
    try:
        with readable(file, SUFFIX):
            slices = slices_of(header, file)
    except (UserError, NoScanError) as error:
        slices = error
    is_whole = isinstance(slices, list) and slices[0].frame is not None
    key = (str(header.get("SeriesInstanceUID", "")), file.name if is_whole else "")
    described = f"{header.get('SeriesNumber') or ''}_{header.get('SeriesDescription') or ''}"
    return _File(file.name, key, described[:_LONGEST_NAME], slices)


def _is_left_out(items: Sequence[_File], held: Contents) -> bool:
    """Return whether nothing in a series was meant to be a scan; ``held`` then says so."""
    if not all(isinstance(item.slices, NoScanError) for item in items):
        return False
    held.left_out.update({item.name: str(item.slices) for item in items})
    return True


def _stack_or_reason(items: Sequence[_File], path: Path) -> Stack | str:
    for item in items:
        if isinstance(item.slices, NoScanError):
            return f"{path}: {item.name} {item.slices}, in one series with slices. Move it into a folder of its own."
        if isinstance(item.slices, UserError):
            return str(item.slices)
    try:
        return stack([piece for item in items for piece in item.slices], path)
    except UserError as error:
        return str(error)


def _names(described: dict[tuple[str, str], str], folder: Path) -> dict[tuple[str, str], str]:
    """Return a readable and unique name of each series; that of a multi-frame file is the file's."""
    safe = {key: re.sub(r"[^\w-]+", "_", text).strip("_") for key, text in described.items()}
    taken = [name.lower() for key, name in safe.items() if not key[1]]
    uids = {uid for uid, _ in described}
    length = next(
        size for size in range(_SHORTEST_UID, 66) if len({uid[-size:] for uid in uids}) == len(uids) or size == 65
    )
    names = {}
    for (uid, file), name in safe.items():
        if not name or taken.count(name.lower()) > 1 or (folder / name).exists():
            name = "_".join(part for part in (name, uid[-length:].strip(".").replace(".", "-")) if part) or "series"
        names[uid, file] = file or name
    return names
