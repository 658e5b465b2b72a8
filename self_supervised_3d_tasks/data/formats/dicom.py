"""DICOM series: folders of slices, or multi-frame files, as volumes on canonical axes; and DICOM segmentations.

The path of a scan is the folder of its slices. Where a folder holds several series, each has the path
``<folder>/<SeriesNumber>_<SeriesDescription>``, which is no file of its own; a multi-frame file among others has its
own path. See `dicom_series` for what counts as a scan, and `dicom_slices` for how slices become a grid.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.decoding.grid import Grid
from self_supervised_3d_tasks.data.dicom import pixels as dicom_pixels
from self_supervised_3d_tasks.data.dicom import segmentations as dicom_seg
from self_supervised_3d_tasks.data.dicom import series as dicom_series
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_labels
from self_supervised_3d_tasks.errors import UserError

SUFFIXES = (dicom_series.SUFFIX,)
MASK_SUFFIXES = (".nii.gz", ".nii", dicom_series.SUFFIX)
HOLDS_VOLUMES = True


def is_scan(path: Path) -> bool:
    """Return whether a path is a folder with DICOM files, one of them, or one of several series in a folder."""
    if path.is_dir():
        return any(dicom_series.is_dicom(file) for file in path.iterdir())
    if path.exists():
        return dicom_series.is_dicom(path)
    return path.parent.is_dir() and path.name in dicom_series.contents(path.parent).scans


def scans_in(folder: Path) -> list[Path]:
    """Return the paths of the series in a folder, sorted; sub-folders are not searched."""
    held = dicom_series.contents(folder)
    names = sorted(held.scans)
    if names and held.others:
        logging.info("%s: %d files that are no DICOM belong to no series.", folder, held.others)
    reasons = [reason for name, reason in held.left_out.items() if names or folder / name not in held.masks]
    if reasons:
        counts = ", ".join(f"{count} × {reason}" for reason, count in Counter(reasons).most_common())
        logging.warning("%s: %d DICOM files are no scans and are left out: %s.", folder, len(reasons), counts)
    return [folder] if len(names) == 1 else [folder / name for name in names]


def masks_in(folder: Path) -> list[Path]:
    """Return the files of DICOM segmentations in a folder, sorted; sub-folders are not searched."""
    return dicom_series.contents(folder).masks


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that hold the slices of a scan, in their order in space."""
    if dicom_seg.is_segmentation(path):
        return (path,)
    return tuple(dict.fromkeys(file for file, _ in dicom_series.find(path).places))


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes; no pixel is decoded."""
    return _grid(path, rank).header(path)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, 1)`` float32 on canonical axes, rescaled as each slice says (CT: Hounsfield units)."""
    grid = _grid(path, rank)
    return grid.volume(_voxels(path), path)


def read_mask_header(path: Path, rank: int) -> Header:
    """Return shape and affine of a segmentation, or of a series of labels; no pixel is decoded."""
    if not dicom_seg.is_segmentation(path):
        return read_header(path, rank)
    return _grid_of(dicom_seg.grid(path), path, rank).header(path)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes: segment numbers, or the values of a series of labels."""
    if dicom_seg.is_segmentation(path):
        grid, labels = _grid_of(dicom_seg.grid(path), path, rank), dicom_seg.read(path)
    else:
        grid, labels = _grid(path, rank), as_labels(_voxels(path), path)
    volume = grid.volume(labels, path)
    return replace(volume, array=volume.array[..., 0])


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a DICOM segmentation that refers to the slices of ``reference``, with a segment per label."""
    if not is_scan(reference.path):
        raise ValueError(
            f"a DICOM segmentation refers to the slices of a series, but {reference.path} is none. Write .nii.gz."
        )
    stored = _grid(reference.path, mask.ndim).to_stored(mask)
    dicom_seg.write(path, stored, dicom_series.find(reference.path))


def on_stored_axes(mask: np.ndarray, reference: Header) -> tuple[np.ndarray, Header]:
    """Return a mask and its header as other formats write them: columns, rows and slices in the order of the series."""
    grid = _grid(reference.path, mask.ndim)
    return grid.to_stored(mask), Header(grid.shape, reference.path, grid.affine)


def _grid(path: Path, rank: int) -> Grid:
    return _grid_of(dicom_series.find(path), path, rank)


def _grid_of(stack: dicom_series.Stack, path: Path, rank: int) -> Grid:
    claims.check_memory(path, stack.shape)
    return Grid.of(stack.shape, stack.affine, path, rank)


def _voxels(path: Path) -> np.ndarray:
    """Return ``(columns, rows, slices)`` float32, rescaled."""
    stack = dicom_series.find(path)
    voxels = np.empty(stack.shape[::-1], np.float32)
    whole: dict[Path, np.ndarray] = {}
    for number, (file, frame) in enumerate(stack.places):
        if frame is not None and file not in whole:
            whole[file] = dicom_pixels.frames(file)
        pixels = dicom_pixels.pixels(file) if frame is None else whole[file][frame]
        if pixels.shape != voxels.shape[1:]:
            raise UserError(f"{file}: has {pixels.shape} pixels, but the series has {voxels.shape[1:]}. Copy it again.")
        voxels[number] = pixels
    return voxels.transpose(2, 1, 0)
