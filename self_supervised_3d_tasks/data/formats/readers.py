"""Scan files to arrays with their geometry, and masks back to files.

NIfTI voxels are reoriented to the closest canonical (RAS) axes, so that one array axis means the same
direction in every scan; the affine follows. `write_mask` undoes it. A path may also be that of a scan in an archive
(`archives`).
"""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from self_supervised_3d_tasks.data.formats import archives, photographs
from self_supervised_3d_tasks.data.grids import Header, StoredGrid, check_same_grid
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import atomic_write

SUFFIXES = (".npy", ".nii", ".nii.gz", *photographs.SUFFIXES)
_MASK_SUFFIXES = (".npy", ".nii", ".nii.gz", ".png")  # that can be written
_LARGEST_LABEL = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Volume:
    """A decoded file.

    Args:
        array: image ``(*spatial, channels)`` float32, or mask ``(*spatial)`` int32, on canonical axes.
        affine: ``(4, 4)``, canonical voxel index to mm; None where the file is no NIfTI.
        spacing: voxel size in mm, one number per spatial axis; ones where the file is no NIfTI.
        path: the file (of several, the first).
    """

    array: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    path: Path

    @property
    def header(self) -> Header:
        """Shape and affine; of an image."""
        return Header(self.array.shape, self.path, self.affine)


def suffix_of(path: Path) -> str:
    """Return the one of `SUFFIXES` that a file has, in upper or lower case, or an empty string."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the file name without its suffix; ``.nii.gz`` is one suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_photograph(path: Path) -> bool:
    """Return whether a file is PNG, JPEG or TIFF, by its suffix."""
    return suffix_of(path) in photographs.SUFFIXES


def list_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the files of a flat folder with one of the suffixes, sorted by name; hidden files are ignored.

    Raises:
        UserError: The folder does not exist or holds no such file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: this folder of scans does not exist. Check the path.")
    visible = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    files = sorted(path for path in visible if suffix_of(path) in suffixes)
    if not files:
        raise UserError(
            f"{folder}: expected a flat folder with {' or '.join(suffixes)} files, found none "
            f"({len(visible)} other files; sub-folders are not searched)."
        )
    return files


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine of an image or mask file without decoding its voxels.

    Args:
        path: a file with one of `SUFFIXES`, or a scan in an archive.
        rank: number of spatial axes, 2 or 3.

    Raises:
        UserError: The file cannot be read or has another rank.
    """
    if archives.is_scan(path):
        return Header(_with_channels(archives.read_shape(path), path, rank), path)
    if suffix_of(path) == ".npy":
        return Header(_with_channels(_open_npy(path).shape, path, rank), path)
    if is_photograph(path):
        return Header(_photograph_shape(path, rank), path)
    image = _open_nifti(path)
    grid = _stored_grid(image, path, rank)
    return Header((*grid.canonical_shape, grid.num_channels), path, grid.canonical_affine)


def read_mask_header(path: Path, rank: int) -> Header:
    """Return shape ``(*spatial, 1)`` and affine of a mask file without decoding its voxels.

    Raises:
        UserError: As `read_header`, or the mask has several channels.
    """
    if archives.is_scan(path):
        raise UserError(f"{path}: an archive has no masks, but masks are needed here. Use a folder of masks.")
    if is_photograph(path):
        return Header(_photograph_shape(path, rank, labels=True), path)
    header = read_header(path, rank)
    if header.shape[-1] != 1:
        raise UserError(f"{path}: has {header.shape[-1]} channels, expected one integer label per voxel.")
    return header


def read_image(path: Path, rank: int) -> Volume:
    """Read an image as float32 ``(*spatial, channels)``, values as stored; an .npy of ``rank`` axes is one channel.

    Raises:
        UserError: The file cannot be read, has another rank, or holds NaN or infinite voxels.
    """
    if suffix_of(path) == ".npy" or archives.is_scan(path):
        stored = archives.read(path) if archives.is_scan(path) else _open_npy(path)
        shape = _with_channels(stored.shape, path, rank)
        volume = Volume(np.ascontiguousarray(_float32(stored)).reshape(shape), None, (1.0,) * rank, path)
    elif is_photograph(path):
        _photograph_shape(path, rank)
        with _readable(path):
            volume = Volume(_float32(photographs.read_pixels(path)), None, (1.0,) * rank, path)
    else:
        image = _open_nifti(path, checked=True)
        grid = _stored_grid(image, path, rank)
        # As in `_float32`, and found by the check below.
        with _readable(path), np.errstate(over="ignore"):
            array = _float32(image.get_fdata(dtype=np.float32, caching="unchanged"))
        volume = Volume(grid.to_canonical(array), grid.canonical_affine, grid.canonical_spacing, path)
    bad = volume.array.size - np.count_nonzero(np.isfinite(volume.array))
    if bad:
        raise UserError(
            f"{path}: {bad} of {volume.array.size} voxels are NaN or infinite; expected finite float32 "
            'values. Repair the file, remove it, or set on_bad_file to "skip".'
        )
    return volume


def read_channels(paths: Sequence[Path], rank: int) -> Volume:
    """Read images on one grid and concatenate their channels in the given order.

    Raises:
        UserError: As `read_image`, or the files differ in shape.
    """
    volumes = [read_image(path, rank) for path in paths]
    first = volumes[0]
    for volume in volumes[1:]:
        check_same_grid(first.header, volume.header)
    if len(volumes) == 1:
        return first
    return replace(first, array=np.concatenate([volume.array for volume in volumes], axis=-1))


def read_mask(path: Path, rank: int) -> Volume:
    """Read a mask as int32 ``(*spatial)``, stored so or as ``(*spatial, 1)``; fractions are rounded.

    Raises:
        UserError: The file cannot be read, has another rank, or holds values that are no labels.
    """
    shape = read_mask_header(path, rank).shape[:-1]
    if suffix_of(path) == ".npy":
        return Volume(_labels(_open_npy(path), path).reshape(shape), None, (1.0,) * rank, path)
    if is_photograph(path):
        with _readable(path):
            pixels = photographs.read_pixels(path, labels=True)
        return Volume(_labels(pixels, path)[..., 0], None, (1.0,) * rank, path)
    image = _open_nifti(path, checked=True)
    grid = _stored_grid(image, path, rank)
    with _readable(path):
        array = np.asanyarray(image.dataobj)
    array = grid.to_canonical(_labels(array, path))[..., 0]
    return Volume(array, grid.canonical_affine, grid.canonical_spacing, path)


def write_mask(path: Path, mask: np.ndarray, reference: Path) -> None:
    """Write a mask, given on the canonical grid of ``reference``, on that file's original axes; atomic.

    Args:
        path: .nii or .nii.gz: axes, shape, affine and voxel sizes of ``reference``; .npy: the array as it is;
            .png: grey values 0 to 255, in 2D.
        mask: ``(*spatial)``, non-negative integers, on the grid that `read_image` gives for ``reference``.
        reference: the scan that the mask belongs to. If it is no NIfTI, a NIfTI mask gets the identity affine.

    Raises:
        UserError: ``reference`` cannot be read, the shapes differ, or ``path`` has a suffix that cannot hold the
            mask.
    """
    if suffix_of(path) not in _MASK_SUFFIXES:
        raise UserError(f"{path}: expected a mask file that ends in {' or '.join(_MASK_SUFFIXES)}. Change its name.")
    header = read_header(reference, mask.ndim)
    if header.shape[:-1] != mask.shape:
        raise UserError(f"{path}: the mask has shape {mask.shape}, but {reference} has {header.shape[:-1]}.")
    mask = mask.astype(np.uint8 if mask.max(initial=0) < 256 else np.int32)
    if suffix_of(path) == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, mask, allow_pickle=False)
        content = buffer.getvalue()
    elif suffix_of(path) == ".png":
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise UserError(
                f"{path}: a PNG file holds 2 axes and labels up to 255, but the mask has {mask.ndim} axes and labels "
                f"up to {mask.max(initial=0)}. Write .npy or .nii.gz."
            )
        content = photographs.encode_png(mask)
    else:
        content = _mask_image(mask, reference).to_bytes()
    if suffix_of(path) == ".nii.gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)  # no time stamp: same mask, same bytes
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _stored_grid(image: nib.Nifti1Image, path: Path, rank: int) -> StoredGrid:
    """Return the grid of (x, y, z), (x, y, z, channels), or vector-valued (x, y, z, 1, channels)."""
    padded = (*image.shape, 1, 1, 1)
    spatial, others = padded[:3], padded[3:]
    has_rank = spatial[2] == 1 if rank == 2 else len(image.shape) >= rank
    if not has_rank or sum(size > 1 for size in others) > 1 or min(padded) < 1:
        raise _wrong_rank(image.shape, path, rank)
    finite = np.isfinite(image.affine).all()
    orientation = nib.io_orientation(image.affine) if finite else np.full((3, 2), np.nan)
    if np.isnan(orientation).any():
        raise UserError(f"{path}: its affine is degenerate; expected three independent axes. Repair the header.")
    return StoredGrid(spatial, int(np.prod(others)), image.affine, orientation, rank)


def _mask_image(mask: np.ndarray, reference: Path) -> nib.Nifti1Image:
    if suffix_of(reference) == ".npy" or is_photograph(reference):
        return nib.Nifti1Image(mask, np.eye(4))
    image = _open_nifti(reference)
    stored = _stored_grid(image, reference, mask.ndim).to_stored(mask)
    header = image.header.copy()
    header.extensions.clear()  # they describe the acquisition and may name the patient
    header.set_data_dtype(mask.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0  # the display window of the scan would show the labels as black
    return type(image)(stored.reshape(image.shape[:3]), image.affine, header)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what numpy, gzip, nibabel and Pillow raise about a damaged file into one message with its name.

    They agree on no exception: bytes changed at random in small files raised ten unrelated types.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: this file does not exist. Check the path.") from error
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}: {error}). Expected a complete {suffix_of(path)} file"
            f"{' without pickled objects' if suffix_of(path) == '.npy' else ''}: copy it again, remove it, or set "
            'on_bad_file to "skip".'
        ) from error


def _open_npy(path: Path) -> np.ndarray:
    """Return the array as a read-only map: opening checks the header and the length, not the voxels."""
    with _readable(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("this is an .npz archive")
    _check_numbers(array.dtype, path)
    return array


def _open_nifti(path: Path, *, checked: bool = False) -> nib.Nifti1Image:
    """Open a NIfTI file; with ``checked`` a compressed one is decompressed wholly.

    nibabel stops after the last voxel and so never meets the checksum at the end of the stream.
    """
    with _readable(path):
        if checked and suffix_of(path) == ".nii.gz":
            content = gzip.decompress(path.read_bytes())
            nifti2 = nib.Nifti2Image.header_class.may_contain_header(content[:540])
            image = (nib.Nifti2Image if nifti2 else nib.Nifti1Image).from_bytes(content)
        else:
            image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ValueError(f"a {type(image).__name__} is no volume")
    _check_numbers(image.get_data_dtype(), path)
    return image


def _photograph_shape(path: Path, rank: int, *, labels: bool = False) -> tuple[int, ...]:
    with _readable(path):
        shape = photographs.read_shape(path, labels=labels)
    if rank != 2:
        raise _wrong_rank(shape, path, rank)
    return shape


def _with_channels(shape: tuple[int, ...], path: Path, rank: int) -> tuple[int, ...]:
    if len(shape) not in (rank, rank + 1) or min(shape) < 1:
        raise _wrong_rank(shape, path, rank)
    return shape if len(shape) == rank + 1 else (*shape, 1)


def _wrong_rank(shape: tuple[int, ...], path: Path, rank: int) -> UserError:
    return UserError(
        f"{path}: has shape {shape}, expected {rank} spatial axes, with or without one axis of channels "
        "after. Convert the file, or change data_dim (its length is the number of spatial axes)."
    )


def _check_numbers(dtype: np.dtype, path: Path) -> None:
    if dtype.kind not in "biuf":
        raise UserError(f"{path}: voxels are of type {dtype}, expected integers or real numbers.")


def _float32(array: np.ndarray) -> np.ndarray:
    """Return a copy in memory (``array`` may map the file); what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, subok=False)


def _labels(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            array = np.rint(array)
    # NaN fails both comparisons, so it is refused as well.
    if not (array.min() >= -_LARGEST_LABEL and array.max() <= _LARGEST_LABEL):
        raise UserError(f"{path}: values range from {array.min()} to {array.max()}, expected integer labels.")
    return np.array(array, np.int32, order="C", subok=False)
