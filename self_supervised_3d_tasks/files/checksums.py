"""Checksums beside files, in the format of the ``sha256sum`` program."""

import hashlib
import os
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError, describe
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.paths import check_file, shown

_LONGEST = 10_000  # bytes of such a file


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
    atomic_write_bytes(target, line.encode())
    return target


def verify_checksum(path: Path) -> None:
    """Compare a file with its ``<name>.sha256``.

    Raises:
        UserError: Either file is missing, or the file is not the one that was written.
    """
    sidecar = checksum_path(path)
    for file in (path, sidecar):
        if not os.path.lexists(file):
            raise UserError(f"{file}: no such file; it is needed to check {path.name}")
        check_file(file)
    try:
        with open(sidecar, "rb") as file:
            expected = (file.read(_LONGEST).decode("utf-8", "replace").split() or [""])[0]
        received = checksum(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be checked: {describe(error)}") from error
    if received != expected:
        raise UserError(
            f"{path}: damaged or changed since it was written: its SHA-256 is {received}, but {sidecar.name} "
            f"says {shown(expected) or 'nothing'}. Copy it again; delete {sidecar.name} if the change was meant"
        )
