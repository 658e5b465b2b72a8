"""DICOM segmentation objects: masks that refer to the slices of their scan, a segment per label."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.dicom import headers as dicom_headers
from self_supervised_3d_tasks.data.dicom import pixels as dicom_pixels
from self_supervised_3d_tasks.data.dicom import series as dicom_series
from self_supervised_3d_tasks.data.dicom.slices import Slice, Stack, stack
from self_supervised_3d_tasks.errors import UserError

highdicom = lazy.load("highdicom")
pydicom = lazy.load("pydicom")

_NAME = "self_supervised_3d_tasks"
_SERIES_NUMBER = 300  # behind those of a scanner


def is_segmentation(path: Path) -> bool:
    """Return whether a path is a file of segments."""
    return path.is_file() and bool(dicom_series.contents(path).masks)


def grid(path: Path) -> Stack:
    """Return the grid of the planes that a segmentation has frames for; no pixel is decoded.

    Raises:
        UserError: A frame does not say where it lies, or the planes are no even grid.
    """
    image = dicom_headers.read(path, stop_before_pixels=True)
    return stack(list(_planes(image, path).values()), path)


def read(path: Path) -> np.ndarray:
    """Return ``(columns, rows, slices)`` int32 on `grid`: each voxel has the number of its segment, or 0.

    Raises:
        UserError: The segments overlap or are fractions, or the pixels are damaged.
    """
    image = dicom_headers.read(path)
    kind = image.get("SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise UserError(f"{path}: holds segments of type {kind}, expected BINARY or LABELMAP. Threshold the segments.")
    whole = stack(list(_planes(image, path).values()), path)
    frames, slices = dicom_pixels.stored_frames(image, path), dicom_headers.frames_of(image, path)
    if len(frames) != len(slices):
        raise UserError(f"{path}: has {len(frames)} frames, but its header tells of {len(slices)}. Copy it again.")
    number_of = {tuple(slices[frame].position): number for number, (_, frame) in enumerate(whole.places)}
    labels = np.zeros(whole.shape[::-1], np.int32)
    for frame, piece, group in zip(frames, slices, image.PerFrameFunctionalGroupsSequence, strict=True):
        plane = labels[number_of[tuple(piece.position)]]
        inside = frame > 0
        values = frame if kind == "LABELMAP" else _segment(group, image)
        if (clash := inside & (plane > 0) & (plane != values)).any():
            raise UserError(
                f"{path}: segments {plane[clash][0]} and {np.broadcast_to(values, clash.shape)[clash][0]} overlap in "
                f"{piece.name}; expected one label per voxel. Give each segment a mask of its own."
            )
        np.copyto(plane, values, where=inside, casting="unsafe")
    return labels.transpose(2, 1, 0)


def write(path: Path, mask: np.ndarray, scan: Stack) -> None:
    """Write a binary segmentation with a segment ``class 1``, ``class 2``, … for each label up to the largest.

    Every slice has a frame per segment, so that the mask has the grid of the whole scan.

    Args:
        path: The file.
        mask: ``(columns, rows, slices)``, uint8 or int32.
        scan: The series that the mask belongs to.

    Raises:
        ValueError: The library highdicom is missing, or the headers of the series lack what a segmentation must repeat
            of them.
    """
    try:
        segmentation = highdicom.seg.Segmentation
        logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells of every attribute that it copies
    except ImportError as error:
        raise ValueError(
            f"writing a DICOM segmentation needs highdicom. Install it: pip install {_NAME}[dicom], or write .nii.gz."
        ) from error
    files = list(dict.fromkeys(file for file, _ in scan.places))
    planes = np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint16 if mask.dtype != np.uint8 else np.uint8)
    if scan.places[0][1] is not None:  # the frames of the file in their own order
        planes = planes[np.argsort([frame for _, frame in scan.places])]
    try:
        with warnings.catch_warnings():
            # The pseudonym of an anonymized patient has one part.
            warnings.filterwarnings("ignore", message=".*unlikely to represent the intended person name")
            segmentation(
                source_images=[dicom_headers.read(file, stop_before_pixels=True) for file in files],
                pixel_array=planes,
                segmentation_type="BINARY",
                segment_descriptions=[_description(label) for label in range(1, max(1, int(mask.max(initial=0))) + 1)],
                series_instance_uid=pydicom.uid.generate_uid(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=pydicom.uid.generate_uid(),
                instance_number=1,
                manufacturer=_NAME,
                manufacturer_model_name=_NAME,
                software_versions=_version(),
                device_serial_number="none",
                omit_empty_frames=False,
            ).save_as(path)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"no DICOM segmentation can refer to the slices of {files[0].parent} ({error}). Write .nii.gz."
        ) from error


def _version() -> str:
    """Return the version of this package, which a checkout that is not installed does not have."""
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _description(label: int) -> highdicom.seg.SegmentDescription:
    tissue = pydicom.sr.codedict.codes.SCT.Tissue
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_NAME, version=_version(), family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence
    )
    return highdicom.seg.SegmentDescription(
        segment_number=label,
        segment_label=f"class {label}",
        segmented_property_category=tissue,
        segmented_property_type=tissue,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )


def _planes(image: pydicom.Dataset, path: Path) -> dict[tuple[float, ...], Slice]:
    """Return one frame of each position: those of several segments lie at the same one."""
    return {tuple(piece.position): piece for piece in reversed(dicom_headers.frames_of(image, path))}


def _segment(group: pydicom.Dataset, image: pydicom.Dataset) -> int:
    shared = (image.get("SharedFunctionalGroupsSequence") or [{}])[0]
    found = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    return int(found[0].ReferencedSegmentNumber)
