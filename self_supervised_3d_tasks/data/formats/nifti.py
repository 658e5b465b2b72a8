"""NIfTI files, with or without gzip.

Voxels are turned to the closest canonical (RAS) axes, so that one array axis means the same direction in every scan;
the affine follows. A written mask lies on the axes of its scan again.
"""

import gzip
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.decoding import nifti_files
from self_supervised_3d_tasks.data.volumes import Header, Volume

SUFFIXES = nifti_files.SINGLE
MASK_SUFFIXES = (".nii.gz", ".nii")
HOLDS_VOLUMES = True


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    return nifti_files.open_file(path).scan.header(rank)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes, scaled as the header says."""
    return nifti_files.open_file(path).scan.image(rank)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    return nifti_files.open_file(path).scan.mask(rank)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a mask with axes, shape, affine and voxel sizes of a NIfTI scan; without one, on the canonical axes."""
    content = nifti_files.mask_image(mask, reference, pair=False).to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)  # no time stamp: same mask, same bytes
    path.write_bytes(content)
