"""The family of NIfTI: one file, or a pair of a header and its voxels, in which form Analyze 7.5 files come too."""

from __future__ import annotations

import gzip
import io
import logging as standard_logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.decoding.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import Header, check_spacing, corner_distance, tell_once
from self_supervised_3d_tasks.errors import UserError

nib = lazy.load("nibabel")

SINGLE, PAIR = (".nii", ".nii.gz"), (".hdr", ".hdr.gz")
_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_LARGEST_EXCESS = 1e-3  # of a quaternion's length over 1; headers that were rounded have 1e-6
_MM = {1: 1000.0, 3: 0.001}  # by the code of the unit; mm is 2, and what files without a unit mean
_LARGEST_SPACING = 100  # mm
_HEADER_BYTES = 540  # of NIfTI-2, the longest

# nibabel prints what it repairs, such as a bit count that was never filled in.
_QUIET = standard_logging.getLogger(f"{__name__}.quiet")
_QUIET.setLevel(standard_logging.CRITICAL + 1)


@dataclass(frozen=True)
class NiftiFile:
    """An opened file of the family.

    Args:
        scan: What is stored, with the affine in mm.
        header: nibabel's header, in the file's own unit.
        kind: nibabel's class of such images.
    """

    scan: StoredScan
    header: Any
    kind: Any


def voxel_file(path: Path) -> Path:
    """Return where the voxels of a header lie: in the same file, or in the twin of a ``.hdr`` file."""
    if path.name.lower().endswith(SINGLE):
        return path
    stem, ending = _parts_of_pair(path)
    twin = ending.replace("hdr", "img")
    candidates = [path.with_name(f"{stem}{twin}"), path.with_name(f"{stem}{twin.upper()}")]
    return next((candidate for candidate in candidates if candidate.exists()), candidates[0])


def open_file(path: Path) -> NiftiFile:
    """Open a file of the family; its header is checked, its voxels are read when they are asked for.

    Raises:
        UserError: The voxel sizes are not positive, or no affine can be made of the header.
        Exception: What nibabel raises about a damaged header.
    """
    with _open(path) as file:
        block = file.read(_HEADER_BYTES)
    if path.name.lower().endswith(SINGLE):
        kinds = (nib.Nifti2Image, nib.Nifti1Image)
    else:
        kinds = (nib.Nifti2Pair, nib.Nifti1Pair, nib.Spm2AnalyzeImage)
    kind = next((kind for kind in kinds if kind.header_class.may_contain_header(block)), None)
    if kind is None:
        raise ValueError("it does not begin with the header of such a file")
    header = kind.header_class(block[: kind.header_class.sizeof_hdr], check=False)
    sizes = [size for size, length in zip(header["pixdim"][1:4], header["dim"][1:4], strict=True) if length > 1]
    check_spacing(sizes, path, "pixdim")
    header.check_fix(logger=_QUIET, error_level=40)
    if path.name.lower().endswith(SINGLE) and header["vox_offset"] < header.sizeof_hdr:
        raise UserError(
            f"{path}: its header says that voxels begin at byte {int(header['vox_offset'])} (vox_offset), inside the "
            f"header itself; expected {header.sizeof_hdr + 4} or more. Repair the header."
        )
    affine = _analyze_affine(header, kind, path) if kind is nib.Spm2AnalyzeImage else _nifti_affine(header, path)

    shape, kind_of_voxels, voxels = header.get_data_shape(), header.get_data_dtype(), voxel_file(path)
    _check_size(path, shape, kind_of_voxels.itemsize, voxels, int(header.get_data_offset()))

    def decode(dtype: type | None) -> np.ndarray:
        end = int(header.get_data_offset()) + math.prod(shape) * kind_of_voxels.itemsize
        return np.asanyarray(nib.arrayproxy.ArrayProxy(_readable(voxels, end), header), dtype=dtype)

    return NiftiFile(StoredScan(path, shape, affine, kind_of_voxels, decode), header, kind)


def mask_image(mask: np.ndarray, reference: Header, *, pair: bool) -> Any:
    """Return nibabel's image of a mask, one file or with ``pair`` two.

    It has the stored axes, shape, affine, unit and voxel sizes of a scan of the family, and lies on the canonical axes
    of any other. For an Analyze scan it is a NIfTI pair, which says what the scan leaves open: left and right.

    Args:
        mask: ``(*spatial)`` on canonical axes, uint8 or int32.
        reference: Header of the scan.
        pair: Whether header and voxels are files of their own.
    """
    one, two = (nib.Nifti1Pair, nib.Nifti2Pair) if pair else (nib.Nifti1Image, nib.Nifti2Image)
    if not reference.path.name.lower().endswith(SINGLE + PAIR):
        return _in_mm(one(mask, np.eye(4) if reference.affine is None else reference.affine))
    file = open_file(reference.path)
    stored = file.scan.grid(mask.ndim).to_stored(mask).reshape(file.scan.shape[:3])
    if file.kind is nib.Spm2AnalyzeImage:
        return _in_mm(one(stored, file.scan.affine))
    header = file.header.copy()
    header.set_data_dtype(mask.dtype)
    header.set_data_offset(0)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0  # the display window of the scan would show the labels as black
    return (two if file.kind in (nib.Nifti2Image, nib.Nifti2Pair) else one)(stored, None, header)


def _in_mm(image: Any) -> Any:
    image.header.set_xyzt_units("mm")
    return image


def _parts_of_pair(path: Path) -> tuple[str, str]:
    """Return the stem and the ending, in lower case, of a header's name."""
    ending = next(suffix for suffix in PAIR if path.name.lower().endswith(suffix))
    return path.name[: -len(ending)], ending


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")


def _check_size(path: Path, shape: Sequence[int], itemsize: int, voxels: Path, offset: int) -> None:
    """Check what a header claims of the file with its voxels, which begin at an offset, see `claims.check`."""
    stored = voxels.stat().st_size
    if voxels.name.lower().endswith(".gz"):
        claims.check(path, shape, itemsize, stored, ratio=claims.DEFLATE)
    else:
        claims.check(path, shape, itemsize, stored - offset, is_end=True)


def _readable(path: Path, end: int) -> str | io.BytesIO:
    """Return what nibabel reads voxels from; a compressed file is decompressed up to their end, and its checksum met.

    nibabel stops after the last voxel and so never meets the checksum at the end of the stream.
    """
    if not path.name.lower().endswith(".gz"):
        return str(path)
    with open(path, "rb") as file:
        return io.BytesIO(claims.inflate(file, end))


def _nifti_affine(header: Any, path: Path) -> np.ndarray:
    """Return the affine to mm: the sform where there is one, or else the qform, or else voxel sizes alone."""
    length = np.linalg.norm([float(header[name]) for name in _QUATERNION])
    if 1 < length <= 1 + _LARGEST_EXCESS:
        for name in _QUATERNION:
            header[name] /= length
    has_forms = header["sform_code"] > 0, header["qform_code"] > 0
    if has_forms == (False, True) and length > 1 + _LARGEST_EXCESS:
        raise UserError(
            f"{path}: its qform is no rotation (a quaternion of length {length:.3g}, expected at most 1). Repair the "
            "header."
        )
    mm = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if all(has_forms):
        _compare_forms(header, path, mm)
    affine = np.diag([mm, mm, mm, 1]) @ header.get_best_affine()
    if (largest := np.linalg.norm(affine[:3, :3], axis=0).max()) > _LARGEST_SPACING:
        tell_once(f"{path}: by its unit of length, a voxel measures {largest:g} mm. Is the unit in its header right?")
    return affine


def _compare_forms(header: Any, path: Path, mm: float) -> None:
    """Warn where sform and qform place the corners of the scan more than half a voxel apart."""
    try:
        qform = header.get_qform()
    except ValueError:
        tell_once(f"{path}: its qform is no rotation; the sform is taken.")
        return
    sform, shape = header.get_sform(), (*header.get_data_shape(), 1, 1)[:3]
    distance = corner_distance(shape, sform, qform)
    if not distance <= 0.5 * np.linalg.norm(sform[:3, :3], axis=0).min():
        tell_once(
            f"{path}: its sform and its qform contradict each other: they place voxels up to {distance * mm:.3g} mm "
            "apart. The sform is taken; check that the scan is not mirrored or turned."
        )


def _analyze_affine(header: Any, kind: Any, path: Path) -> np.ndarray:
    """Return the affine of SPM's ``.mat`` file beside an Analyze header, or what such headers commonly mean."""
    mat = path.with_name(f"{_parts_of_pair(path)[0]}.mat")
    if mat.exists():
        files = {"header": path, "image": voxel_file(path), "mat": mat}
        holders = {name: nib.FileHolder(filename=str(file)) for name, file in files.items()}
        return kind.from_file_map(holders).affine
    tell_once(
        f"{path.parent}: Analyze headers here do not tell left from right; the first axis is taken to run from right "
        "to left, as SPM and FSL do. Convert the scans to NIfTI to be sure."
    )
    return header.get_best_affine()
