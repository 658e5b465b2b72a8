"""Decoded scans as .npy files on disk, for cohorts that do not fit into memory.

A file's name holds a fingerprint of its source files and of the preprocessing, so that a stale one is never
read; a file is moved into place when it is complete, so that several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.run_folder import atomic_write

_VERSION = 1  # raise it when preprocessing changes what it computes
_GIB = 2**30

Arrays = tuple[np.ndarray, np.ndarray | None]
Paths = tuple[Path, Path | None]


def fingerprint(case: Case, preprocessing: Preprocessing, num_classes: int | None) -> str:
    """Return a short hash of everything that the decoded arrays of a case depend on."""
    files = [*case.images, *([case.mask] if num_classes and case.mask else [])]
    sources = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr((_VERSION, preprocessing, num_classes, sources)).encode()).hexdigest()[:20]


def keep(folder: Path, name: str, *, labelled: bool, decode: Callable[[], Arrays]) -> Paths:
    """Return the files of an image and its mask, decoding them only where no complete file exists.

    Args:
        folder: made if missing.
        name: unique for the arrays, with their `fingerprint`.
        labelled: there is a mask.
        decode: gives the arrays.
    """
    image_path = folder / f"{name}.image.npy"
    mask_path = folder / f"{name}.mask.npy" if labelled else None
    if not _is_complete(image_path) or (mask_path and not _is_complete(mask_path)):
        for path, array in zip((image_path, mask_path), decode(), strict=True):
            if path is not None:
                _write(path, array)
    return image_path, mask_path


def open_array(array: np.ndarray | Path) -> np.ndarray:
    """Return the array, or a read-only map of its file.

    Maps are opened for each use: each one holds a file descriptor, and a cohort has more files than a process
    may open.
    """
    return np.load(array, mmap_mode="r", allow_pickle=False) if isinstance(array, Path) else array


def check_space(folder: Path, num_bytes: int) -> None:
    """Check before hours of decoding that the disk can hold the result.

    Raises:
        UserError: There is less free space than ``num_bytes``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    already_there = sum(path.stat().st_size for path in folder.glob("*.npy"))
    if num_bytes > free + already_there:
        raise UserError(
            f"{folder}: the decoded scans need {num_bytes / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free. "
            "Choose another cache_dir or free some space."
        )


def _is_complete(path: Path) -> bool:
    try:
        open_array(path)
    except (OSError, ValueError):
        return False
    return True


def _write(path: Path, array: np.ndarray) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
