"""What the header of one DICOM file says: what kind of object it is, and where its slice or its frames lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.dicom.slices import Slice
from self_supervised_3d_tasks.data.volumes import readable
from self_supervised_3d_tasks.errors import UserError

pydicom = lazy.load("pydicom")

SUFFIX = ".dcm"
MAGIC_AT, MAGIC = 128, b"DICM"
SEGMENTATIONS = ("Segmentation Storage", "Label Map Segmentation Storage")
_NO_SCANS = (*SEGMENTATIONS, "RT Dose Storage", "Parametric Map Storage")  # which have pixels, too
_GREYSCALE = ("MONOCHROME1", "MONOCHROME2")
_ORTHONORMAL = 0.01  # what the lengths and the angle of two unit vectors may be off


class NoScanError(UserError):
    """A file is no scan and was not meant to be one, such as a report."""


def read(file: Path, *, stop_before_pixels: bool = False) -> pydicom.Dataset:
    """Read a DICOM file.

    Args:
        file: The file.
        stop_before_pixels: Its header alone.

    Raises:
        UserError: It cannot be read.
    """
    with readable(file, SUFFIX):
        try:
            return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
        except pydicom.errors.InvalidDicomError as error:
            raise UserError(
                f"{file}: has no DICOM header (no DICM at byte {MAGIC_AT}, and no file meta information); expected a "
                "file of DICOM PS3.10. Rename it if it is something else, or write it anew with its header (dcmconv of "
                "DCMTK)."
            ) from error


def kind_of(header: pydicom.Dataset) -> str:
    """Return the name of the kind of object that a file holds, such as ``CT Image Storage``."""
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    return pydicom.uid.UID(uid).name


def slices_of(header: pydicom.Dataset, file: Path) -> list[Slice]:
    """Return the slice, or the frames, of a file.

    Raises:
        NoScanError: It holds something else.
        UserError: It does not say where its pixels lie.
    """
    kind = kind_of(header)
    if kind in _NO_SCANS or "Rows" not in header or "Columns" not in header:
        lacks_pixels = kind.endswith("Image Storage")
        raise NoScanError(f"has no pixels ({kind})" if lacks_pixels else f"is no scan but {kind or 'of unknown kind'}")
    colours = header.get("PhotometricInterpretation", "MONOCHROME2")
    if header.get("SamplesPerPixel", 1) != 1 or colours not in _GREYSCALE:
        raise NoScanError(f"is a colour image ({colours}, {kind})")
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
            raise NoScanError(f"{reason} ({kind})")
        raise UserError(f"{file}: {reason}; expected one slice per file, or an enhanced image. Convert it to NIfTI.")
    if "ImagePositionPatient" not in header and "Secondary Capture" in kind:
        raise NoScanError(f"has no position in the patient ({kind})")
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
