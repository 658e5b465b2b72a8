"""NRRD files: ``.nrrd``, or a header ``.nhdr``, which names the scan, with its voxels in another file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.decoding import claims, simple_itk
from self_supervised_3d_tasks.data.decoding.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import Header, Volume, check_spacing, tell_once
from self_supervised_3d_tasks.errors import UserError

SUFFIXES = (".nrrd", ".nhdr")
MASK_SUFFIXES = (".nrrd", ".nhdr")
HOLDS_VOLUMES = True
_IO = "NrrdImageIO"
_LONGEST_HEADER = 2**20
# How many bytes of voxels a byte holds at most, by encoding; a double as text takes a digit and a blank.
_RATIOS = {"raw": 1, "hex": 1, "txt": 4, "text": 4, "ascii": 4, "gz": claims.DEFLATE, "gzip": claims.DEFLATE}
# Those that ITK turns to LPS; a time axis after them keeps it from doing so.
_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
_LPS_AND_TIME = {"left-posterior-superior-time", "lpst"}
_IN_SPACE = ("domain", "space", "time", "???", "none")  # kinds of axes that hold no channels


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the file, and that with the voxels where a header names one."""
    name = _fields(path).get("data file", "")
    return (path,) if not name or _is_several(name) else (path, path.parent / name)


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    return _open(path, rank)[0].header(rank)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes; a list or vector at each voxel is its channels."""
    return _open(path, rank)[0].image(rank)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    return _open(path, rank)[0].mask(rank)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a mask on the axes of an NRRD scan; without one, on the canonical axes."""
    geometry = simple_itk.Geometry.from_affine(reference.affine, mask.ndim)
    if reference.path.name.lower().endswith(SUFFIXES):
        scan, geometry = _open(reference.path, mask.ndim)
        mask = scan.grid(mask.ndim).to_stored(mask)
    simple_itk.write_mask(path, mask, geometry, _IO)


def _open(path: Path, rank: int) -> tuple[StoredScan, simple_itk.Geometry]:
    fields = _fields(path)
    spacings = [float(size) for size in fields.get("spacings", "").split()]
    check_spacing([size for size in spacings if not math.isnan(size)], path, "spacings")  # NaN is that of channels
    _check_axes(fields, path)
    opened = simple_itk.open_scan(path, _IO, rank, _unit(fields, path), **_stored(fields, path))
    if (space := fields.get("space", "").lower()) not in _SPACES | _LPS_AND_TIME:
        tell_once(
            f"{path.parent}: NRRD files here have {f'the space {space!r}' if space else 'no space'}, so that their "
            "headers do not say where left, front and top are; axes are taken to run to the left, back and top (LPS), "
            "as ITK does."
        )
    return opened


def _check_axes(fields: dict[str, str], path: Path) -> None:
    """Raise `UserError` for axes of channels and time that ITK does not tell from those in space."""
    space, directions = fields.get("space", "").lower(), fields.get("space directions", "")
    kinds = fields.get("kinds", "").split() or ["domain"] * int(fields.get("dimension", 0))
    in_space = sum(kind in _IN_SPACE for kind in kinds)
    has_turned_time = space.endswith(("-time", "rast", "last")) and space not in _LPS_AND_TIME
    if has_turned_time or (directions and directions.count("(") != in_space):
        raise UserError(
            f"{path}: has {in_space} axes in space or time and {directions.count('(')} directions in the space "
            f"{space or 'that has no name'}. Expected an axis of channels or times to be a list (kinds: domain domain "
            "domain list) without a direction (none), in a space of 3 axes, such as left-posterior-superior."
        )


def _stored(fields: dict[str, str], path: Path) -> dict[str, int]:
    """Return what is known of the bytes in which the voxels are; nothing where they are a file per slice."""
    name, ratio = fields.get("data file", ""), _RATIOS.get(fields.get("encoding", "").lower())
    if ratio is None or _is_several(name):
        return {}
    return {"stored": (path.parent / name if name else path).stat().st_size, "ratio": ratio}


def _is_several(name: str) -> bool:
    """Return whether a header names a file per slice."""
    return name == "LIST" or name.startswith("LIST ") or "%" in name


def _unit(fields: dict[str, str], path: Path) -> str | None:
    """Return the unit of length that a header states, None where it states none."""
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))) - {""}
    if len(units) > 1:
        raise UserError(f"{path}: its axes have the units {', '.join(sorted(units))}, expected one. Repair the header.")
    return units.pop() if units else None


def _fields(path: Path) -> dict[str, str]:
    """Return the fields of a header, which ends at its first empty line."""
    fields = {}
    with open(path, "rb") as file:
        for line in file.read(_LONGEST_HEADER).splitlines():
            if not line.strip():
                break
            key, colon, value = line.decode("latin-1").partition(": ")
            if colon and not key.startswith("#"):
                fields[{"datafile": "data file"}.get(key, key)] = value.strip()
    return fields
