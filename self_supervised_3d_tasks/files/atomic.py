"""Files that are never half written: every file of the package comes about here."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from self_supervised_3d_tasks.files.leftovers import owned_name, remove_leftovers

TEMPORARY_PREFIX = ".unfinished-"
_ENDING = re.compile(r"(\.\w{1,7}){0,2}$")
_PROBE = 2**16  # bytes
_looked_into: set[Path] = set()


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends without an error.

    A process killed at any moment leaves the old file or the new one, never a part: the temporary file lies
    in the same folder, so that the rename cannot cross file systems, and is on the disk before it is renamed.
    It keeps the endings of ``path``, because many writers choose the format by them. Missing parent folders
    are made. What a killed process has left in a folder is removed when another one first writes there.

    Args:
        path: File to write or replace.

    Yields:
        Path to write to. After an error it is removed and the old file is as it was.

    Raises:
        OSError: The system refuses; ``filename`` is ``path``, whatever the writer made of the refusal.
    """
    path = Path(path)
    temporary = _temporary(path, _ENDING.search(path.name)[0])
    try:
        with _naming(path, temporary):
            yield temporary
            _sync_file(temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def atomic_write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write a file at once, see `atomic_write`.

    Content that was made in memory is safer than a library that writes to the disk: on a full one HDF5 ends the
    process, and others raise what does not say why.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


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

    Raises:
        OSError: As in `atomic_write`.
    """
    with _temporary_folder(path) as folder, _naming(path, folder / path.name):
        yield folder / path.name
        others = sorted(file for file in folder.iterdir() if file.name != path.name)
        for file in (*others, folder / path.name):
            _sync_file(file)
        if others:
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)
        for file in (*others, folder / path.name):
            os.replace(file, path.with_name(file.name))
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an error.

    Args:
        path: Folder to make; where it exists, it must be empty by the end of the block.

    Yields:
        Folder to write into. After an error nothing is left of it.

    Raises:
        OSError: As in `atomic_write`.
    """
    with _temporary_folder(path) as folder, _naming(path, folder / "probe"):
        yield folder
        os.replace(folder, path)
    _sync_folder(path.parent)


def _temporary(path: Path, ending: str = "") -> Path:
    """Return a name beside ``path`` that nobody has; remove there what dead processes left, once per process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    folder = path.parent.resolve()
    if folder not in _looked_into:
        _looked_into.add(folder)
        remove_leftovers(folder, TEMPORARY_PREFIX)
    return path.with_name(owned_name(TEMPORARY_PREFIX, ending))


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    folder = _temporary(path)
    with _naming(path, folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Raise what the system refuses as an `OSError` with its number, which names ``path`` and no temporary file."""
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, OSError) and error.errno else _refusal(temporary)
        if cause is None:
            raise
        if cause.filename is None or TEMPORARY_PREFIX in os.fsdecode(cause.filename):
            raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error
        if cause is error:
            raise
        raise cause from error


def _refusal(temporary: Path) -> OSError | None:
    """Return what the system says to writing on, None where it takes more: many writers keep that to themselves."""
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _sync_file(path: Path) -> None:
    """See that a file is on the disk; some systems say only now that there is no room for it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system offers that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
