"""MetaImage files: ``.mha``, or a header ``.mhd``, which names the scan, with its voxels in another file.

What the header says is compared with the voxels before ITK reads them: its reader prints to stderr what it does not
like, and takes voxels of a damaged compressed file for good.
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from self_supervised_3d_tasks.data import simple_itk
from self_supervised_3d_tasks.data.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import Header, Volume

SUFFIXES = (".mha", ".mhd")
MASK_SUFFIXES = (".mha", ".mhd")
HOLDS_VOLUMES = True
_IO = "MetaImageIO"
_DATA, _LOCAL = "ElementDataFile", ("LOCAL", "Local", "local")
_LONGEST_HEADER = 2**20
_CHUNK, _ZLIB_OR_GZIP = 2**22, 47
_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4}
_BYTES |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
# How many numbers a field has, as a power of the number of axes.
_POWERS = {"DimSize": 1, "ElementSpacing": 1, "ElementSize": 1, "Offset": 1, "Position": 1, "Origin": 1}
_POWERS |= {"CenterOfRotation": 1, "TransformMatrix": 2, "Rotation": 2, "Orientation": 2}


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the file, and that with the voxels where a header names one."""
    name = _fields(path)[0].get(_DATA, _LOCAL[0])
    return (path,) if name in _LOCAL or _is_several(name) else (path, path.parent / name)


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    return _open(path, rank)[0].header(rank)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes."""
    return _open(path, rank)[0].image(rank)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    return _open(path, rank)[0].mask(rank)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a mask on the axes of a MetaImage scan; without one, on the canonical axes."""
    geometry = simple_itk.Geometry.from_affine(reference.affine, mask.ndim)
    if reference.path.name.lower().endswith(SUFFIXES):
        scan, geometry = _open(reference.path, mask.ndim)
        mask = scan.grid(mask.ndim).to_stored(mask)
    simple_itk.write_mask(path, mask, geometry, _IO)


def _open(path: Path, rank: int) -> tuple[StoredScan, simple_itk.Geometry]:
    fields, end = _fields(path)
    _check_fields(fields)
    scan, geometry = simple_itk.open_scan(path, _IO, rank)

    def decode(dtype: type | None) -> np.ndarray:
        _check_voxels(path, fields, end)
        return scan.decode(dtype)

    return replace(scan, decode=decode), geometry


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header and the place of its end, which is the field that says where the voxels are."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while _DATA not in fields and file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
        return fields, file.tell()


def _check_fields(fields: dict[str, str]) -> None:
    if missing := [name for name in ("NDims", "DimSize", "ElementType", _DATA) if name not in fields]:
        raise ValueError(f"its header has no {missing[0]}")
    axes = int(fields["NDims"])
    for name, power in _POWERS.items():
        numbers = [float(number) for number in fields.get(name, "").split()]
        if name in fields and len(numbers) != axes**power:
            raise ValueError(f"its header has {len(numbers)} numbers in {name}, expected {axes**power}")


def _check_voxels(path: Path, fields: dict[str, str], end: int) -> None:
    """Raise ValueError or `zlib.error` if there are fewer voxels than there should be, or their checksum is wrong."""
    name, kind = fields[_DATA], fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")
    if _is_several(name) or kind not in _BYTES or not _is_true(fields, "BinaryData"):
        return
    voxels = math.prod(int(size) for size in fields["DimSize"].split())
    expected = voxels * int(fields.get("ElementNumberOfChannels", 1)) * _BYTES[kind]
    with open(path if name in _LOCAL else path.parent / name, "rb") as file:
        start = file.seek(end if name in _LOCAL else max(int(fields.get("HeaderSize", 0)), 0))
        found = _inflated(file) if _is_true(fields, "CompressedData") else file.seek(0, os.SEEK_END) - start
    if found < expected:
        raise ValueError(f"it has {found} bytes of voxels, expected {expected}")


def _inflated(file: BinaryIO) -> int:
    """Return how many bytes a compressed stream holds, whose checksum is right."""
    stream, found = zlib.decompressobj(_ZLIB_OR_GZIP), 0
    while not stream.eof and (chunk := file.read(_CHUNK)):
        found += len(stream.decompress(chunk))
    if not stream.eof:
        raise ValueError("its compressed voxels end too early")
    return found


def _is_true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").startswith(("T", "t", "1"))


def _is_several(name: str) -> bool:
    """Return whether a header names a file per slice."""
    return name.startswith("LIST") or "%" in name
