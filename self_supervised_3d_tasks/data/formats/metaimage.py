"""MetaImage files: ``.mha``, or a header ``.mhd``, which names the scan, with its voxels in another file.

They are read here, unless the voxels are text or a file per slice: ITK takes the voxels of a damaged compressed file,
or of one whose header leaves out the compressed size, for good, and prints to stderr what it does not like.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.decoding import claims, simple_itk
from self_supervised_3d_tasks.data.decoding.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import Header, Volume

SUFFIXES = (".mha", ".mhd")
MASK_SUFFIXES = (".mha", ".mhd")
HOLDS_VOLUMES = True
_IO = "MetaImageIO"
_CHANNELS, _DATA, _LOCAL = "ElementNumberOfChannels", "ElementDataFile", ("LOCAL", "Local", "local")
_LONGEST_HEADER = 2**20
_BLANKS = " \t\r\n"
_TYPES = {"CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4"}
_TYPES |= {"ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8"}
_TYPES = {f"MET_{name}{ending}": kind for name, kind in _TYPES.items() for ending in ("", "_ARRAY")}
# Other names of the same field, the usual one first.
_SPACING = ("ElementSpacing", "ElementSize")
_ORIGIN = ("Offset", "Position", "Origin")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")


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
    if _is_several(fields[_DATA]) or not _is_true(fields, "BinaryData", missing="True"):
        return simple_itk.open_scan(path, _IO, rank)
    size, channels = [int(length) for length in fields["DimSize"].split()], int(fields.get(_CHANNELS, 1))
    geometry = _geometry(fields, len(size))
    is_big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if is_big else "<")

    is_deflated = _is_true(fields, "CompressedData")
    stored = (path if fields[_DATA] in _LOCAL else path.parent / fields[_DATA]).stat().st_size
    claims.check(path, (*size, channels), dtype.itemsize, stored, ratio=claims.DEFLATE if is_deflated else 1)

    def decode() -> np.ndarray:
        content = _voxels(path, fields, end, math.prod(size) * channels * dtype.itemsize)
        # The channels of a voxel lie side by side, then comes the next voxel along x.
        return np.moveaxis(np.frombuffer(content, dtype).reshape(channels, *size, order="F"), 0, -1)

    return simple_itk.scan_of(path, size, channels, geometry, rank, decode), geometry


def _geometry(fields: dict[str, str], axes: int) -> simple_itk.Geometry:
    def numbers(names: tuple[str, ...], default: np.ndarray) -> np.ndarray:
        found = next((fields[name] for name in names if name in fields), None)
        return default if found is None else np.array(found.split(), float).reshape(default.shape)

    spacing, origin = numbers(_SPACING, np.ones(axes)), numbers(_ORIGIN, np.zeros(axes))
    # A row of the file is the direction of an axis.
    direction = numbers(_DIRECTION, np.eye(axes)).T
    return simple_itk.Geometry(spacing, origin, direction, fields.get("DistanceUnits", ""))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header and the place of its end, which is the field that says where the voxels are."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while _DATA not in fields and file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
            key, _, value = line.decode("latin-1").replace(":", "=", 1).partition("=")
            fields[key.strip(_BLANKS)] = value.strip(_BLANKS)
        return fields, file.tell()


def _check_fields(fields: dict[str, str]) -> None:
    """Raise ValueError for a header that is incomplete or contradicts itself."""
    if missing := [name for name in ("NDims", "DimSize", "ElementType", _DATA) if not fields.get(name)]:
        raise ValueError(f"its header has no {missing[0]}")
    if fields["ElementType"] not in _TYPES:
        raise ValueError(f"its header has the unknown ElementType {fields['ElementType']}")
    if fields.get("BinaryData", "True").lower() not in ("true", "false", "t", "f", "1", "0"):
        raise ValueError(f"its header has BinaryData {fields['BinaryData']}, expected True or False")
    axes = int(fields["NDims"])
    for name in {"DimSize", *_SPACING, *_ORIGIN, *_DIRECTION} & fields.keys():
        found, expected = len(fields[name].split()), axes**2 if name in _DIRECTION else axes
        if found != expected:
            raise ValueError(f"its header has {found} numbers in {name}, expected {expected}")


def _voxels(path: Path, fields: dict[str, str], end: int, expected: int) -> bytes:
    """Return the bytes of the voxels.

    Raises:
        ValueError: Their number is another.
        zlib.error: They are compressed, and damaged.
    """
    name, skipped = fields[_DATA], int(fields.get("HeaderSize", 0))
    with open(path if name in _LOCAL else path.parent / name, "rb") as file:
        if skipped < 0:  # the voxels are at the end, whatever is before
            skipped = max(file.seek(0, os.SEEK_END) - expected, 0)
        file.seek(end if name in _LOCAL else skipped)
        content = claims.inflate(file, expected) if _is_true(fields, "CompressedData") else file.read(expected)
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes of voxels, expected {expected}")
    return content


def _is_true(fields: dict[str, str], name: str, *, missing: str = "False") -> bool:
    return fields.get(name, missing).startswith(("T", "t", "1"))


def _is_several(name: str) -> bool:
    """Return whether a header names a file per slice."""
    return name.startswith("LIST") or "%" in name
