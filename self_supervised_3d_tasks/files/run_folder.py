"""Run folders, and files in them that are never half written."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from self_supervised_3d_tasks.errors import UserError

TEMPORARY_PREFIX = ".unfinished-"
_RECORDED_PACKAGES = (
    "self_supervised_3d_tasks",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "numpy",
    "nibabel",
    "scikit-image",
    "SimpleITK",
)


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


def environment(*, seed: int | None = None) -> dict[str, Any]:
    """Return what a run needs to be repeated: package versions, Python, platform, seed and command line."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seed": seed,
        "command": shlex.join(sys.argv),
    }


@dataclass(frozen=True)
class RunFolder:
    """The folder that holds everything one run reads back or leaves behind.

    Attributes:
        path: The folder; it exists.
    """

    path: Path

    @classmethod
    def create(cls, base: Path | str, name: str) -> RunFolder:
        """Make a new folder ``<base>/<name>``, with the first free suffix ``_1``, ``_2``, … if it exists.

        Two runs that start at the same moment get different folders, because making a folder is atomic.

        Raises:
            UserError: ``name`` is not a plain folder name, or ``base`` cannot be written to.
        """
        if name in ("", ".", "..") or Path(name).name != name:
            raise UserError(f"run name: expected a folder name without separators, received {name!r}")
        base = Path(base).expanduser()
        try:
            base.mkdir(parents=True, exist_ok=True)
            number = 0
            while True:
                path = base / (f"{name}_{number}" if number else name)
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    return cls(path)
                number += 1
        except OSError as error:
            raise UserError(f"{base}: no run folder can be made here ({error}); choose another place") from error

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return an existing run folder.

        Raises:
            UserError: No such folder.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise UserError(f"{path}: expected the folder of an earlier run, but there is no such folder")
        return cls(path)

    @classmethod
    def all(cls, base: Path | str, name: str) -> list[RunFolder]:
        """Return the folders that `create` has made for ``name``, oldest first (by number: ``_10`` follows ``_9``)."""
        base = Path(base).expanduser()
        pattern = re.compile(rf"{re.escape(name)}(?:_([1-9]\d*))?")
        found = {}
        for path in base.iterdir() if base.is_dir() else ():
            match = pattern.fullmatch(path.name)
            if match and path.is_dir():
                found[int(match[1] or 0)] = path
        return [cls(found[number]) for number in sorted(found)]

    def write_json(self, name: str, data: Any) -> None:
        """Write ``data`` atomically as the folder's file ``name``."""
        write_json(self.path / name, data)

    def read_json(self, name: str) -> Any:
        """Return the content of the folder's JSON file ``name``; `UserError` if it is missing or damaged."""
        return read_json(self.path / name)

    def pin_json(self, name: str, data: Any) -> None:
        """Write the file ``name`` once; later it must hold the same.

        Raises:
            UserError: It holds something else: what it describes has changed since the run began.
        """
        if not (self.path / name).exists():
            self.write_json(name, data)
        elif self.read_json(name) != json.loads(json.dumps(data)):
            raise UserError(
                f"{self.path / name}: the run was started with other scans than it finds now, so that going on would "
                "mix two splits; restore the folders of scans, or start a new run without --resume"
            )

    def mark(self, status: Literal["running", "finished"]) -> None:
        """Record how far the run is in ``status.json``."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.write_json("status.json", {"status": status, "since": now})

    @property
    def is_finished(self) -> bool:
        """Whether the run was marked as finished."""
        marked = (self.path / "status.json").exists()
        return marked and self.read_json("status.json").get("status") == "finished"
