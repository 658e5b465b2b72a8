"""Files that are never half written, JSON files and checksums."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError

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


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` atomically as indented JSON."""
    text = json.dumps(data, indent=2) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {path.parent} a run folder?") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: expected a JSON file, but it cannot be read ({error})") from error


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_path(path: Path) -> Path:
    """Return where the checksum of ``path`` is kept: ``<name>.sha256`` beside it."""
    return path.with_name(f"{path.name}.sha256")


def write_checksum(path: Path) -> Path:
    """Write ``<name>.sha256`` in the format of the ``sha256sum`` program and return its path."""
    target = checksum_path(path)
    line = f"{checksum(path)}  {path.name}\n"
    with atomic_write(target) as temporary:
        temporary.write_text(line, encoding="utf-8")
    return target


def verify_checksum(path: Path) -> None:
    """Compare a file with its ``<name>.sha256``.

    Raises:
        UserError: Either file is missing, or the file is not the one that was written.
    """
    sidecar = checksum_path(path)
    for file in (path, sidecar):
        if not file.is_file():
            raise UserError(f"{file}: no such file; it is needed to check {path.name}")
    expected = (sidecar.read_text(encoding="utf-8", errors="replace").split() or [""])[0]
    received = checksum(path)
    if received != expected:
        raise UserError(
            f"{path}: damaged or changed since it was written: its SHA-256 is {received}, but {sidecar.name} "
            f"says {expected or 'nothing'}. Copy it again; delete {sidecar.name} if the change was meant"
        )
