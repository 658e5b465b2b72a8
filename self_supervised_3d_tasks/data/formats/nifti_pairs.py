"""Scans in two files: a header ``.hdr``, which names the scan, and its voxels in the ``.img`` file beside it.

They are NIfTI pairs, or Analyze 7.5 files. Both files of a pair may be compressed with gzip.
"""

import gzip
import io
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import nifti_files
from self_supervised_3d_tasks.data.volumes import Header, Volume

nib = lazy.load("nibabel")

SUFFIXES = nifti_files.PAIR
VOXEL_SUFFIXES = {".img": ".hdr", ".img.gz": ".hdr.gz"}
MASK_SUFFIXES = nifti_files.PAIR
HOLDS_VOLUMES = True


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the header and the file with its voxels."""
    return path, nifti_files.voxel_file(path)


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
    """Write a NIfTI pair with axes, shape, affine and voxel sizes of a NIfTI or Analyze scan, or on canonical axes."""
    contents = {"header": io.BytesIO(), "image": io.BytesIO()}
    image = nifti_files.mask_image(mask, reference, pair=True)
    image.to_file_map({name: nib.FileHolder(fileobj=file) for name, file in contents.items()})
    for name, target in zip(contents, files_of(path), strict=True):
        content = contents[name].getvalue()
        is_compressed = path.name.lower().endswith(".gz")
        target.write_bytes(gzip.compress(content, compresslevel=6, mtime=0) if is_compressed else content)
