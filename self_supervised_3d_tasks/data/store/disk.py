"""Decoded scans as .npy files on disk, for cohorts that do not fit into memory, and what was computed from them.

A file's name holds a fingerprint of its source files and of the preprocessing, so that a stale one is never
read; a file is moved into place when it is complete, so that several processes may share the folder.
"""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write

_VERSION = 2  # raise it when preprocessing changes what it computes
_GIB = 2**30


def fingerprint(case: Case, preprocessing: Preprocessing, num_classes: int | None, *, computed: str = "") -> str:
    """Return a short hash of everything that the decoded arrays of a case depend on, or what is computed from them.

    Args:
        case: The case, whose files are told from others by name, size and time of change.
        preprocessing: What decoding does to them.
        num_classes: The masks are decoded too; None: the images only.
        computed: What else was done, with every parameter of it.
    """
    files = [*case.images, *([case.mask] if num_classes and case.mask else [])]
    states = [(path, archives.file_of(path).stat()) for path in files]
    sources = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    return hashlib.sha256((repr((_VERSION, preprocessing, num_classes, sources)) + computed).encode()).hexdigest()[:20]


def keep(paths: list[Path], decode: Callable[[], list[np.ndarray]]) -> list[Path]:
    """Return the files of the arrays of a case, decoding them only where a file is missing or incomplete.

    Args:
        paths: A .npy file for each array, with their `fingerprint` in its name.
        decode: Gives the arrays.
    """
    if not all(map(_is_complete, paths)):
        for path, array in zip(paths, decode(), strict=True):
            _write(path, array)
    return paths


def recall(path: Path, compute: Callable[[], np.ndarray], is_valid: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Return the small array of a file; compute and write it where there is none, or with a warning a damaged one.

    Args:
        path: .npy, with a `fingerprint` in its name.
        compute: Gives the array.
        is_valid: Whether an array of a file can be one that ``compute`` gave.
    """
    if path.exists():
        try:
            # Through memory: numpy leaves a file open that begins like an archive and is none.
            array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            if isinstance(array, np.ndarray) and is_valid(array):
                return array
            problem = "not what was written"
        except Exception as error:  # numpy agrees with itself on no exception for damaged files
            problem = f"{type(error).__name__}: {error}"
        logging.warning("%s: is damaged (%s); it is computed again.", path, problem)
    array = compute()
    _write(path, array)
    return array


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
