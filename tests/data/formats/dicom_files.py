"""Small DICOM series, written slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.folders import trees

STUDY, FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame"])
SPACING = (0.5, 0.75, 2.5)  # between columns, rows and slices
ORIGIN = (-10.0, 20.0, 5.0)
# Directions towards the next column and the next row in LPS.
DIRECTIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "feet_first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "rows_and_columns_exchanged": (0, 1, 0, 1, 0, 0),
    "oblique": (0.96, 0.28, 0, -0.224, 0.768, -0.6),
}


def voxels(shape=(4, 5, 6), seed=0) -> np.ndarray:
    """Return stored values ``(columns, rows, slices)``, int16."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def affine_of(directions, spacing=SPACING, origin=ORIGIN) -> np.ndarray:
    """Return the RAS affine of columns, rows and slices, from the definition in PS3.3 C.7.6.2."""
    row, column = np.reshape(directions, (2, 3)).astype(float)
    affine = np.eye(4)
    for axis, direction in enumerate((row, column, np.cross(row, column))):
        affine[:3, axis] = direction * spacing[axis]
    affine[:3, 3] = origin
    return np.diag([-1, -1, 1, 1]) @ affine


def header(kind=CTImageStorage, *, series="1", uid: str | None = None, **elements) -> Dataset:
    """Return a header without pixels; keyword arguments are its elements, and None takes one away."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID = uid or generate_uid(entropy_srcs=[series])
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = STUDY, FRAME_OF_REFERENCE
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "p1", "Nobody", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "", "", "", "", ""
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription, ds.InstanceNumber = "CT", series, "thin", "1"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def add_pixels(ds: Dataset, stored: np.ndarray) -> None:
    """Add int16 pixels ``(columns, rows)`` or ``(columns, rows, frames)``."""
    ds.Columns, ds.Rows = stored.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelData = np.ascontiguousarray(stored.T.astype("<i2")).tobytes()


def slices(stored=None, *, directions=DIRECTIONS["axial"], spacing=SPACING, **elements) -> list[Dataset]:
    """Return the slices of a series in the order of their positions."""
    stored = voxels() if stored is None else stored
    row, column = np.reshape(directions, (2, 3)).astype(float)
    step = np.cross(row, column) * spacing[2]
    found = []
    for number in range(stored.shape[2]):
        ds = header()
        ds.ImageOrientationPatient = list(map(float, directions))
        ds.ImagePositionPatient = np.round(np.array(ORIGIN) + number * step, 6).tolist()
        ds.PixelSpacing, ds.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        add_pixels(ds, stored[..., number])
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        found.append(ds)
    return found


def save(datasets, folder: Path, *, suffix=".dcm", shuffled=True) -> Path:
    """Write the slices under names, and with instance numbers, that say nothing of their position."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(1).permutation(len(datasets)) if shuffled else range(len(datasets))
    for number, ds in zip(numbers, datasets, strict=True):
        ds.InstanceNumber = str(number)
        ds.save_as(folder / f"im{number:03}{suffix}", enforce_file_format=True)
    return folder


def multi_frame(stored=None, *, order=None, directions=DIRECTIONS["axial"], rescale=None, **elements) -> Dataset:
    """Return an enhanced CT image with the slices as frames, in the given order."""
    stored = voxels() if stored is None else stored
    order = range(stored.shape[2]) if order is None else order
    row, column = np.reshape(directions, (2, 3)).astype(float)
    ds = header(EnhancedCTImageStorage, **elements)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    plane.ImageOrientationPatient = list(map(float, directions))
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], []
    for number in order:
        group, position = Dataset(), Dataset()
        place = np.array(ORIGIN) + number * np.cross(row, column) * SPACING[2]
        position.ImagePositionPatient = np.round(place, 6).tolist()
        group.PlanePositionSequence = [position]
        if rescale:
            transformation = Dataset()
            transformation.RescaleSlope, transformation.RescaleIntercept = rescale(number)
            group.PixelValueTransformationSequence = [transformation]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    ds.NumberOfFrames = len(order)
    add_pixels(ds, stored[..., list(order)])
    return ds


def listed(folder: Path, suffixes: Sequence[str] | None = None, *, masks: bool = False) -> list[Path]:
    """Return the scans, or masks, that are found in a folder."""
    return list(trees.walk(folder, suffixes or formats.volume_suffixes(), masks=masks).files.values())
