"""What a folder of DICOM files holds: its series, told apart by SeriesInstanceUID, and what is no scan, with reasons.

Only headers are read, once per folder until files are added or taken away.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.dicom_slices import Slice, Stack, stack
from self_supervised_3d_tasks.errors import UserError

pydicom = lazy.load("pydicom")

SUFFIX = ".dcm"
_MAGIC_AT, _MAGIC = 128, b"DICM"
_OTHER_FORMATS = (".nii", ".gz", ".npy", ".npz", ".json", ".csv", ".txt")  # not opened: folders hold thousands of them
_SEGMENTATIONS = ("Segmentation Storage", "Label Map Segmentation Storage")
_NO_SCANS = (*_SEGMENTATIONS, "RT Dose Storage", "Parametric Map Storage")  # which have pixels, too
_GREYSCALE = ("MONOCHROME1", "MONOCHROME2")
_ORTHONORMAL = 0.01  # what the lengths and the angle of two unit vectors may be off
_SHORTEST_UID = 6
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


class _NoScanError(ValueError):
    """A file is no scan and was not meant to be one, such as a report."""


def is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM behind a preamble of 128 bytes, or the suffix ``.dcm``."""
    name = path.name.lower()
    if name.startswith(".") or name.endswith(_OTHER_FORMATS) or not path.is_file():
        return False
    if name.endswith(SUFFIX):
        return True
    with open(path, "rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


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
    files = [path] if path.is_file() else sorted(item for item in path.iterdir() if item.is_file())
    files = [file for file in files if file == path or not file.name.startswith(".")]
    ours = [file for file in files if file == path or is_dicom(file)]
    if not ours:
        return Contents()
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


Item = tuple[str, list[Slice] | ValueError]  # name of a file, and what it has, or why it cannot be used


def _by_series(files: Sequence[Path], held: Contents) -> dict[str, list[Item]]:
    """Return the files of each series by its name; segmentations, and files without a series, go to ``held``."""
    groups: dict[tuple[str, str], list[Item]] = {}
    described: dict[tuple[str, str], str] = {}
    for file in files:
        header = read(file, stop_before_pixels=True)
        kind = _kind(header)
        if kind in _SEGMENTATIONS:
            held.masks.append(file)
        slices: list[Slice] | ValueError
        try:
            slices = _slices(header, file, kind)
        except _NoScanError as error:
            slices = error
        except (UserError, ValueError, TypeError, IndexError, AttributeError) as error:
            slices = error if isinstance(error, UserError) else UserError(f"{file}: has a damaged header ({error}).")
        is_whole = isinstance(slices, list) and slices[0].frame is not None
        key = (str(header.get("SeriesInstanceUID", "")), file.name if is_whole else "")
        groups.setdefault(key, []).append((file.name, slices))
        described.setdefault(key, f"{header.get('SeriesNumber') or ''}_{header.get('SeriesDescription') or ''}")
    names = _names(described, files[0].parent)
    return {names[key]: items for key, items in groups.items()}


def _is_left_out(items: Sequence[Item], held: Contents) -> bool:
    """Return whether nothing in a series was meant to be a scan; ``held`` then says so."""
    if not all(isinstance(found, _NoScanError) for _, found in items):
        return False
    held.left_out.update({name: str(found) for name, found in items})
    return True


def _stack_or_reason(items: Sequence[Item], path: Path) -> Stack | str:
    for name, found in items:
        if isinstance(found, _NoScanError):
            return f"{path}: {name} {found}, in one series with slices. Move it into a folder of its own."
        if isinstance(found, ValueError):
            return str(found)
    try:
        return stack([piece for _, found in items for piece in found], path)
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


def read(file: Path, **options: bool) -> pydicom.Dataset:
    """Read a DICOM file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return pydicom.dcmread(file, **options)
    except pydicom.errors.InvalidDicomError as error:
        raise UserError(
            f"{file}: has no DICOM header (no DICM at byte {_MAGIC_AT}, and no file meta information); expected a file "
            "of DICOM PS3.10. Rename it if it is something else, or write it anew with its header (dcmconv of DCMTK)."
        ) from error
    except Exception as error:  # of a damaged header pydicom raises what its parser happens to meet
        raise UserError(f"{file}: cannot be read ({type(error).__name__}: {error}). Copy the file again.") from error


def _kind(header: pydicom.Dataset) -> str:
    """Return the name of the kind of object that a file holds, such as ``CT Image Storage``."""
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    return pydicom.uid.UID(uid).name


def _slices(header: pydicom.Dataset, file: Path, kind: str) -> list[Slice]:
    """Return the slice, or the frames, of a file."""
    if kind in _NO_SCANS or "Rows" not in header or "Columns" not in header:
        lacks_pixels = kind.endswith("Image Storage")
        raise _NoScanError(f"has no pixels ({kind})" if lacks_pixels else f"is no scan but {kind or 'of unknown kind'}")
    colours = header.get("PhotometricInterpretation", "MONOCHROME2")
    if header.get("SamplesPerPixel", 1) != 1 or colours not in _GREYSCALE:
        raise _NoScanError(f"is a colour image ({colours}, {kind})")
    if "MOSAIC" in (header.get("ImageType") or ()):
        raise UserError(
            f"{file}: is a mosaic, a volume whose slices lie side by side in one picture; expected one slice per file. "
            "Convert it, for example with dcm2niix."
        )
    if "PerFrameFunctionalGroupsSequence" in header:
        return frames_of(header, file)
    if int(header.get("NumberOfFrames") or 1) > 1:
        reason = f"has {header.NumberOfFrames} frames and no PerFrameFunctionalGroupsSequence that says where they lie"
        if "Multi-frame" in kind:
            raise _NoScanError(f"{reason} ({kind})")
        raise UserError(f"{file}: {reason}; expected one slice per file, or an enhanced image. Convert it to NIfTI.")
    if "ImagePositionPatient" not in header and "Secondary Capture" in kind:
        raise _NoScanError(f"has no position in the patient ({kind})")
    return [_slice(header, file, None)]


def frames_of(header: pydicom.Dataset, file: Path) -> list[Slice]:
    """Return where each frame of a multi-frame file lies, in the order of the file.

    Raises:
        UserError: There are no frames, or one does not say where it lies.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        raise UserError(f"{file}: its header tells of no frames, expected one or more. Copy it again.")
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    return [_slice(_flat(header, shared, group), file, number) for number, group in enumerate(groups)]


def _flat(header: pydicom.Dataset, shared: pydicom.Dataset, frame: pydicom.Dataset) -> pydicom.Dataset:
    """Return what the functional groups say of a frame as the header of a single slice says it."""
    flat = pydicom.Dataset()
    flat.Rows, flat.Columns = header.Rows, header.Columns
    for group in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
        found = frame.get(group) or shared.get(group)
        if found:
            flat.update(found[0])
    return flat


def _slice(header: pydicom.Dataset, file: Path, frame: int | None) -> Slice:
    position, directions, spacing = (
        _numbers(header, keyword, count, file)
        for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    if not (spacing > 0).all():
        raise UserError(
            f"{file}: PixelSpacing is {spacing.tolist()}, expected positive numbers in mm. Repair the header."
        )
    directions = directions.reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), rtol=0, atol=_ORTHONORMAL):
        raise UserError(
            f"{file}: ImageOrientationPatient is {directions.ravel().tolist()}, expected two unit vectors at right "
            "angles. Repair the header."
        )
    thickness = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    return Slice(
        file=file,
        frame=frame,
        size=(int(header.Columns), int(header.Rows)),
        spacing=(float(spacing[1]), float(spacing[0])),  # the header has that between rows first
        directions=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        position=position,
        thickness=None if thickness is None else abs(float(thickness)),
    )


def _numbers(header: pydicom.Dataset, keyword: str, count: int, file: Path) -> np.ndarray:
    values = header.get(keyword)
    numbers = np.array([] if values is None else values, float).ravel()
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise UserError(
            f"{file}: {keyword} is {'absent' if values is None else values}, expected {count} numbers, without which "
            "nobody knows where its pixels lie. Export the series again, with its geometry."
        )
    return numbers
