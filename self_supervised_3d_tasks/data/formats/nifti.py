"""NIfTI files, with or without gzip.

Voxels are turned to the closest canonical (RAS) axes, so that one array axis means the same direction in every scan;
the affine follows. A written mask lies on the axes of its scan again.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels, check_numbers, wrong_rank
from self_supervised_3d_tasks.errors import UserError

nib = lazy.load("nibabel")

SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (".nii.gz", ".nii")
HOLDS_VOLUMES = True


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine on canonical axes."""
    grid = _Grid.of(_open(path), path, rank)
    return Header((*grid.on_canonical_axes(grid.shape[:3]), grid.shape[3]), path, grid.canonical_affine)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32 on canonical axes, scaled as the header says."""
    image = _open(path, checked=True)
    grid = _Grid.of(image, path, rank)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        array = as_float32(image.get_fdata(dtype=np.float32, caching="unchanged"))
    return grid.volume(array, path)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32 on canonical axes."""
    image = _open(path, checked=True)
    volume = _Grid.of(image, path, rank).volume(as_labels(np.asanyarray(image.dataobj), path), path)
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
    stored = _Grid.of(image, reference, mask.ndim).to_stored(mask)
    header = image.header.copy()
    header.extensions.clear()  # they describe the acquisition and may name the patient
    header.set_data_dtype(mask.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0  # the display window of the scan would show the labels as black
    return type(image)(stored.reshape(image.shape[:3]), image.affine, header)


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


@dataclass(frozen=True)
class _Grid:
    """The three stored axes of a scan and their way to the closest canonical (RAS) axes and back.

    Args:
        shape: ``(x, y, z, channels)`` as stored.
        affine: ``(4, 4)``, stored voxel index to mm.
        orientation: ``(3, 2)``; row i is the canonical axis of stored axis i and its direction, 1 or -1.
        rank: 3; or 2, which drops the third stored axis (of length 1), whichever canonical axis that is.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    orientation: np.ndarray
    rank: int

    @classmethod
    def of(cls, image: nib.Nifti1Image, path: Path, rank: int) -> _Grid:
        """Return the grid of (x, y, z), (x, y, z, channels), or vector-valued (x, y, z, 1, channels)."""
        padded = (*image.shape, 1, 1, 1)
        spatial, others = padded[:3], padded[3:]
        has_rank = spatial[2] == 1 if rank == 2 else len(image.shape) >= rank
        if not has_rank or sum(size > 1 for size in others) > 1 or min(padded) < 1:
            raise wrong_rank(image.shape, path, rank)
        finite = np.isfinite(image.affine).all()
        orientation = nib.io_orientation(image.affine) if finite else np.full((3, 2), np.nan)
        if np.isnan(orientation).any():
            raise UserError(f"{path}: its affine is degenerate; expected three independent axes. Repair the header.")
        return cls((*spatial, int(np.prod(others))), image.affine, orientation, rank)

    @property
    def canonical_affine(self) -> np.ndarray:
        """The affine ``(4, 4)`` from canonical voxel index to mm."""
        return self.affine @ nib.orientations.inv_ornt_aff(self.orientation, self.shape[:3])

    def on_canonical_axes(self, values: Sequence) -> tuple:
        """Return the values of the three stored axes for each axis that a volume of this grid has."""
        return tuple(values[axis] for axis in np.argsort(self.orientation[:, 0]) if axis < self.rank)

    def volume(self, array: np.ndarray, path: Path) -> Volume:
        """Return the volume, on canonical axes, of the voxels of a file as they are stored."""
        array = nib.apply_orientation(array.reshape(self.shape), self.orientation)
        if self.rank == 2:
            array = array.take(0, axis=int(self.orientation[2, 0]))
        spacing = self.on_canonical_axes(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())
        return Volume(np.ascontiguousarray(array), self.canonical_affine, spacing, path)

    def to_stored(self, mask: np.ndarray) -> np.ndarray:
        """Return ``(x, y, z)`` as stored from a mask ``(*spatial)`` on canonical axes."""
        if self.rank == 2:
            mask = np.expand_dims(mask, int(self.orientation[2, 0]))
        canonical = nib.orientations.axcodes2ornt("RAS")
        return nib.apply_orientation(mask, nib.orientations.ornt_transform(canonical, self.orientation))
