"""NIfTI files, with or without gzip.

Voxels are turned to the closest canonical (RAS) axes, so that one array axis means the same direction in every scan;
the affine follows. A written mask lies on the axes of its scan again.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.grid import Grid
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels, check_numbers

nib = lazy.load("nibabel")

SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (".nii.gz", ".nii")
HOLDS_VOLUMES = True


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    return _grid(_open(path), path, rank).header(path)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes, scaled as the header says."""
    image = _open(path, checked=True)
    grid = _grid(image, path, rank)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        array = as_float32(image.get_fdata(dtype=np.float32, caching="unchanged"))
    return grid.volume(array, path)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    image = _open(path, checked=True)
    volume = _grid(image, path, rank).volume(as_labels(np.asanyarray(image.dataobj), path), path)
    return replace(volume, array=volume.array[..., 0])


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a mask with axes, shape, affine and voxel sizes of a NIfTI scan; without one, on the canonical axes."""
    if reference.path.name.lower().endswith(SUFFIXES):
        image = _mask_image(mask, reference.path)
    else:
        image = nib.Nifti1Image(mask, np.eye(4) if reference.affine is None else reference.affine)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)  # no time stamp: same mask, same bytes
    path.write_bytes(content)


def _mask_image(mask: np.ndarray, reference: Path) -> nib.Nifti1Image:
    image = _open(reference)
    stored = _grid(image, reference, mask.ndim).to_stored(mask)
    header = image.header.copy()
    header.extensions.clear()  # they describe the acquisition and may name the patient
    header.set_data_dtype(mask.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0  # the display window of the scan would show the labels as black
    return type(image)(stored.reshape(image.shape[:3]), image.affine, header)


def _grid(image: nib.Nifti1Image, path: Path, rank: int) -> Grid:
    return Grid.of(image.shape, image.affine, path, rank)


def _open(path: Path, *, checked: bool = False) -> nib.Nifti1Image:
    """Open a NIfTI file; with ``checked`` a compressed one is decompressed wholly.

    nibabel stops after the last voxel and so never meets the checksum at the end of the stream.
    """
    if checked and path.name.lower().endswith(".gz"):
        content = gzip.decompress(path.read_bytes())
        nifti2 = nib.Nifti2Image.header_class.may_contain_header(content[:540])
        image = (nib.Nifti2Image if nifti2 else nib.Nifti1Image).from_bytes(content)
    else:
        image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError(f"a {type(image).__name__} is no volume")
    check_numbers(image.get_data_dtype(), path)
    return image
