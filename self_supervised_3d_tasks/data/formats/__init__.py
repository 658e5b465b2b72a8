"""File formats: each file in this folder is one of them, and a new file is a new format.

A format offers

- ``SUFFIXES``: the endings of its files, in lower case;
- ``MASK_SUFFIXES``: the endings that the mask of such a scan may have, the usual one first; they may be those of
  another format;
- ``HOLDS_VOLUMES``: whether its files can have three spatial axes;
- ``read_header(path, rank)``: a `volumes.Header`, no voxel decoded; ``rank`` is the number of spatial axes;
- ``read_image(path, rank)``: a `volumes.Volume` with ``(*spatial, channels)`` float32;
- ``read_mask(path, rank)``: a `volumes.Volume` with ``(*spatial)`` int32;
- ``write_mask(path, mask, reference)``: writes ``(*spatial)``, uint8 or int32, on the grid of the scan with the header
  ``reference``, and raises ValueError for a mask that the format cannot hold;
- where they differ from an image's, ``read_mask_header(path, rank)``;
- where a scan has more files than the one that names it, ``files_of(path)``, that one first; ``write_mask`` writes them
  all in the folder of ``path``. ``VOXEL_SUFFIXES`` are endings of such files that no other files have, with those of
  the files that name them.

Whatever its library raises about a damaged file becomes one message here. A format whose scans are no files of their
own says by ``is_scan(path)`` which paths are theirs. One whose scans are folders of files also offers

- ``scans_in(folder)``: the paths of the scans whose files lie in a folder, and ``masks_in(folder)`` of the masks;
- ``on_stored_axes(mask, reference)``: a mask on canonical axes, and its header, on the axes of the scan as stored, for
  another format to write.
"""

import contextlib
import functools
import importlib
import os
import pkgutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from self_supervised_3d_tasks.data.volumes import Header, Volume, check_same_grid, readable, wrong_rank
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write_files
from self_supervised_3d_tasks.files.paths import check_file


@functools.cache
def known() -> list[ModuleType]:
    """Return the formats, sorted by name."""
    return [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


@functools.cache
def suffixes() -> tuple[str, ...]:
    """Return the endings of all files that can be read."""
    return tuple(suffix for module in known() for suffix in module.SUFFIXES)


def volume_suffixes() -> tuple[str, ...]:
    """Return the endings of the files that can have three spatial axes."""
    return tuple(suffix for module in known() if module.HOLDS_VOLUMES for suffix in module.SUFFIXES)


def suffix_of(path: Path) -> str:
    """Return the one of `suffixes` that a file has, in upper or lower case, or an empty string."""
    return next((suffix for suffix in suffixes() if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the file name without its suffix; ``.nii.gz`` is one suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def of(path: Path) -> ModuleType:
    """Return the format of a scan.

    Raises:
        UserError: No format has files that end so.
    """
    suffix = suffix_of(path)
    for module in known():
        if suffix in module.SUFFIXES:
            return module
    for module in known():
        if hasattr(module, "is_scan") and module.is_scan(path):
            return module
    if header := _header_of(path):
        raise UserError(f"{path}: holds the voxels of a scan that its header names. Give {header.name}.")
    raise UserError(f"{path}: expected a file that ends in {' or '.join(suffixes())}. Convert the file.")


def scans_in(folder: Path) -> list[Path]:
    """Return the scans that files of a folder make together, as a series of slices; sub-folders are not searched."""
    return [scan for module in known() if hasattr(module, "scans_in") for scan in module.scans_in(folder)]


def is_series(path: Path) -> bool:
    """Return whether a path is that of one scan of several files: a folder, or a name in a folder."""
    if path.is_dir():
        return scans_in(path) == [path]
    return not path.exists() and path.parent.is_dir() and path in scans_in(path.parent)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a scan, the one that names it first; of a folder of slices, all of them.

    Raises:
        UserError: One of them does not exist, or the file that names the others cannot be read.
    """
    module = of(path)
    if not (hasattr(module, "is_scan") and module.is_scan(path)):
        check_file(path)  # before anything opens it, for a pipe would be waited for
    if not hasattr(module, "files_of"):
        return (path,)
    with readable(path, suffix_of(path)):
        files = module.files_of(path)
    if missing := [file for file in files if not os.path.lexists(file)]:
        raise UserError(
            f"{missing[0]}: does not exist, but {path.name} says that the voxels are there. Copy both files, under the "
            f"names that they had, or remove {path.name}."
        )
    return tuple(map(check_file, files))


def read_header(path: Path, rank: int) -> Header:
    """Return shape and affine of an image without decoding its voxels.

    Args:
        path: A file with one of `suffixes`, a scan in an archive, or a folder of slices.
        rank: Number of spatial axes, 2 or 3.

    Raises:
        UserError: The file cannot be read or has another rank.
    """
    with _complete(path):
        return _with_rank(of(path).read_header(path, rank), rank)


def read_mask_header(path: Path, rank: int) -> Header:
    """Return shape ``(*spatial, 1)`` and affine of a mask without decoding its voxels.

    Raises:
        UserError: As `read_header`, or the mask has several channels.
    """
    module = of(path)
    with _complete(path):
        header = _with_rank(getattr(module, "read_mask_header", module.read_header)(path, rank), rank)
    if header.shape[-1] != 1:
        raise UserError(f"{path}: has {header.shape[-1]} channels, expected one integer label per voxel.")
    return header


def read_image(path: Path, rank: int) -> Volume:
    """Read an image as float32 ``(*spatial, channels)``, values as stored.

    Raises:
        UserError: The file cannot be read, has another rank, or holds NaN or infinite voxels.
    """
    with _complete(path):
        volume = of(path).read_image(path, rank)
    _with_rank(volume.header, rank)
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
        UserError: As `read_image`, or the files lie on different grids.
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
    read_mask_header(path, rank)
    with _complete(path):
        return of(path).read_mask(path, rank)


def write_mask(path: Path, mask: np.ndarray, reference: Path) -> None:
    """Write a mask, given on the canonical grid of ``reference``, on that file's original axes; atomic.

    Args:
        path: Its ending chooses the format, which keeps of the grid what it can hold.
        mask: ``(*spatial)``, non-negative integers, on the grid that `read_image` gives for ``reference``.
        reference: The scan that the mask belongs to.

    Raises:
        UserError: ``reference`` cannot be read, the shapes differ, or ``path`` has a suffix that cannot hold the
            mask.
    """
    writable = tuple(dict.fromkeys(suffix for module in known() for suffix in module.MASK_SUFFIXES))
    if suffix_of(path) not in writable:
        raise UserError(f"{path}: expected a mask file that ends in {' or '.join(writable)}. Change its name.")
    header = read_header(reference, mask.ndim)
    if header.shape[:-1] != mask.shape:
        raise UserError(f"{path}: the mask has shape {mask.shape}, but {reference} has {header.shape[:-1]}.")
    mask = mask.astype(np.uint8 if mask.max(initial=0) < 256 else np.int32)
    source = of(reference)
    if of(path) is not source and suffix_of(path) in source.MASK_SUFFIXES and hasattr(source, "on_stored_axes"):
        mask, header = source.on_stored_axes(mask, header)
    try:
        with atomic_write_files(path) as temporary:
            of(path).write_mask(temporary, mask, header)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Do what `readable` does, once all files of the scan are there."""
    files_of(path)
    # Numbers of a damaged header overflow; what comes of them is refused.
    with readable(path, suffix_of(path)), np.errstate(all="ignore"):
        yield


def _header_of(path: Path) -> Path | None:
    """Return what names a scan whose voxels are in a file with one of the ``VOXEL_SUFFIXES``."""
    pairs = {voxels: header for module in known() for voxels, header in getattr(module, "VOXEL_SUFFIXES", {}).items()}
    ending = next((ending for ending in pairs if path.name.lower().endswith(ending)), None)
    return ending and path.with_name(f"{path.name[: -len(ending)]}{pairs[ending]}")


def check_headers(files: Sequence[Path], suffixes: Collection[str]) -> None:
    """Raise `UserError` where voxels of a pair lie without their header, so that no scan is left out in silence.

    Args:
        files: Of one folder.
        suffixes: Endings of the scans that are looked for.
    """
    there = {path.name.lower() for path in files}
    for path in sorted(files):
        header = _header_of(path)
        if header and suffix_of(header) in suffixes and header.name.lower() not in there:
            raise UserError(f"{path}: its header {header.name} is missing. Copy both files, or remove this one.")


def _with_rank(header: Header, rank: int) -> Header:
    if header.rank != rank:
        raise wrong_rank(header.shape, header.path, rank)
    return header
