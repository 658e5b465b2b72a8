"""Files that are never half written."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_PREFIX = ".unfinished-"


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    A process killed at any moment leaves the old file or the new one, never a part: the temporary file lies
    in the same folder, so that the rename cannot cross file systems, and is on the disk before it is renamed.
    It keeps the suffixes of ``path``, because many writers choose the format by them. Missing parent folders
    are made.

    Args:
        path: File to write or replace.

    Yields:
        Path to write to. After an error it is removed and the old file is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_write_files(path: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder, beside which more files may be written, such as the voxels of a header.

    When the block ends without an error, all files of that folder are moved beside ``path``, ``path`` itself last, and
    where it existed already with others, it is removed first. A process killed at any moment leaves a ``path`` that
    belongs to the files beside it, or none.

    Args:
        path: File that names all of them.

    Yields:
        Path of the same name to write to. After an error nothing is left of it, and the old files are as they were.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder / path.name
        others = sorted(file for file in folder.iterdir() if file.name != path.name)
        for file in (*others, folder / path.name):
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        if others:
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)
        for file in (*others, folder / path.name):
            os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system offers that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
