"""FreeSurfer's MGH files, with (``.mgz``) or without gzip."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.decoding.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import Header, Volume, check_spacing

nib = lazy.load("nibabel")

SUFFIXES = (".mgz", ".mgh")
MASK_SUFFIXES = (".mgz", ".mgh")
HOLDS_VOLUMES = True
_HEADER_BYTES = 284


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    return _open(path).header(rank)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes; frames are channels."""
    return _open(path).image(rank)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    return _open(path).mask(rank)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a mask on the axes of a FreeSurfer scan; without one, on the canonical axes."""
    affine = np.eye(4) if reference.affine is None else reference.affine
    if reference.path.name.lower().endswith(SUFFIXES):
        scan = _open(reference.path)
        mask, affine = scan.grid(mask.ndim).to_stored(mask), scan.affine
    content = nib.MGHImage(mask, affine).to_bytes()
    if _is_compressed(path):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    path.write_bytes(content)


def _open(path: Path) -> StoredScan:
    with gzip.open(path, "rb") if _is_compressed(path) else open(path, "rb") as file:
        block = file.read(_HEADER_BYTES)
    if len(block) < _HEADER_BYTES:
        raise ValueError("it ends within its header")
    header = nib.MGHImage.header_class(block)
    check_spacing(header["delta"], path, "delta")

    shape, itemsize = tuple(map(int, header.get_data_shape())), header.get_data_dtype().itemsize
    stored, offset = path.stat().st_size, header.get_data_offset()
    if _is_compressed(path):
        claims.check(path, shape, itemsize, stored, ratio=claims.DEFLATE)
    else:
        claims.check(path, shape, itemsize, stored - offset, is_end=True)

    def decode(dtype: type | None) -> np.ndarray:
        return np.asanyarray(
            nib.arrayproxy.ArrayProxy(_voxels(path, offset + math.prod(shape) * itemsize), header), dtype=dtype
        )

    return StoredScan(path, shape, header.get_affine(), header.get_data_dtype(), decode)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".mgz")


def _voxels(path: Path, end: int) -> Any:
    """Return what nibabel reads voxels from; a compressed file up to their end, its checksum met."""
    if not _is_compressed(path):
        return str(path)
    with open(path, "rb") as file:
        return io.BytesIO(claims.inflate(file, end))
