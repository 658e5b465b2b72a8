"""Arrays as compressed files that are read in parts, for cohorts that do not fit into memory.

A file's name holds a fingerprint of its source files and of what was done to them, so that a stale one is never
read; a file is moved into place when it is complete, so that several processes may share the folder, and what a
stopped one had finished is kept.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes

blosc2 = lazy.load("blosc2")

SUFFIX = ".b2nd"
_VERSION = 4  # raise it when what is computed changes
# Voxels along an edge of a chunk, and of the blocks that it is decompressed by, for each number of spatial axes.
_EDGES = {1: (2**14, 2**10), 2: (256, 64), 3: (64, 16)}
_LEVEL = 1  # of zstd: a higher one takes five times as long and saves nothing on scans
_THREADS = 1  # of each reader: several readers run at once


class DamagedFileError(Exception):
    """A file of the cache is missing or cannot be read."""


@dataclass(frozen=True)
class DiskArray:
    """An array in a file; slices of it are decompressed alone.

    Args:
        path: The file.
        shape: Its shape.
        dtype: Its type.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, place: Any) -> np.ndarray:
        """Return a part of the array as a new one.

        The file is opened for each use: an open one holds a file descriptor, and a cohort has more files than a process
        may open.

        Raises:
            DamagedFileError: The file is gone or cannot be decompressed.
        """
        try:
            return _open(self.path)[place]
        except Exception as error:  # blosc2 agrees with itself on no exception for damaged files
            raise DamagedFileError(f"{self.path}: {type(error).__name__}: {error}") from error


def fingerprint(files: Iterable[Path], *settings: Any) -> str:
    """Return a short hash of everything that an array depends on.

    Args:
        files: Its source files, which are told from others by place, size and time of change.
        settings: What was done to them; their repr says all of it.
    """
    sources = []
    for path in files:
        holder = archives.file_of(path)
        # A link to a scan, and a folder that is named otherwise, are the same scan.
        if holder.is_dir():
            parts = [holder, *sorted(holder.iterdir())]
        else:
            parts = formats.files_of(path) if holder == path else [holder]
        states = [(str(part.resolve()), (state := part.stat()).st_size, state.st_mtime_ns) for part in parts]
        sources.append((str(path.relative_to(holder)), states))
    return hashlib.sha256(repr((_VERSION, settings, sources)).encode()).hexdigest()[:20]


def pack(array: np.ndarray, rank: int, notes: Mapping[str, Any]) -> bytes:
    """Return the content of the file of an array.

    Args:
        array: ``(*spatial)`` or ``(*spatial, channels)``.
        rank: Number of spatial axes.
        notes: What is kept with it: numbers, texts and lists of them.
    """
    chunk, block = _EDGES[rank]
    spatial, channels = array.shape[:rank], array.shape[rank:]
    packed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=(*(min(chunk, size) for size in spatial), *channels),
        # The numbers of one channel resemble each other.
        blocks=(*(min(block, size) for size in spatial), *(1 for _ in channels)),
        cparams=blosc2.CParams(
            codec=blosc2.Codec.ZSTD, clevel=_LEVEL, filters=[blosc2.Filter.SHUFFLE], nthreads=_THREADS
        ),
    )
    packed.schunk.vlmeta["notes"] = dict(notes)
    return packed.to_cframe()


def write(path: Path, content: bytes) -> None:
    """Write a file of `pack`; tell by a warning that it takes the place of a damaged one."""
    if path.exists() and find(path) is None:
        logging.warning("%s: is damaged; it is made again.", path)
    atomic_write_bytes(path, content)


def find(path: Path) -> tuple[DiskArray, dict[str, Any]] | None:
    """Return the array in a file and its notes, no voxel read; None where there is no such file, or a damaged one."""
    if not path.exists():
        return None
    try:
        array = _open(path)
        return DiskArray(path, array.shape, array.dtype), array.schunk.vlmeta["notes"]
    except Exception:  # see `DiskArray`
        return None


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
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    atomic_write_bytes(path, content.getbuffer())
    return array


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk on which a folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _open(path: Path) -> Any:
    return blosc2.open(str(path), mode="r", dparams=blosc2.DParams(nthreads=_THREADS))
