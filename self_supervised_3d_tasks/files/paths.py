r"""Paths as people write them, names as disks keep them, and which of them can be opened.

A name may hold bytes that are no UTF-8. Python keeps such a byte as a lone surrogate, which neither a CSV file nor an
experiment can hold: in these it is written as six letters, ``\udcfc`` for the byte fc, and read back as the byte.
"""

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError, describe

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes; what Linux takes
_SHOWN = 200  # characters of a received value
_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


def as_path(text: str | os.PathLike[str]) -> Path:
    """Return the path that a text names: with ``~`` expanded, and accents written as on the disk.

    Raises:
        UserError: The text cannot be a path, or the home folder is not known.
    """
    text = unescaped(os.fspath(text))
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raise UserError(f"{shown(escaped(text))}: expected a path, but it holds no valid text; correct it") from None
    if b"\0" in raw:
        raise UserError(f"{shown(text)!r}: expected a path, but it holds a NUL character; remove that")
    if len(raw) > LONGEST_PATH or max(map(len, raw.split(b"/"))) > LONGEST_NAME:
        raise UserError(
            f"{shown(text)}: has {len(raw)} bytes; expected a path of at most {LONGEST_PATH}, and {LONGEST_NAME} "
            "between two slashes; shorten it"
        )
    try:
        return on_disk(Path(text).expanduser())
    except RuntimeError:
        raise UserError(f"{text}: whose home folder ~ means is not known; write the path without ~") from None


def on_disk(path: Path) -> Path:
    """Return a path with the names of the disk, where letters such as ä are composed in another way there."""
    if os.fspath(path).isascii() or os.path.lexists(path):
        return path
    path = on_disk(path.parent) / path.name
    try:
        names = os.listdir(path.parent) if not os.path.lexists(path) else []
    except OSError:
        return path
    alike = [name for name in names if composed(name) == composed(path.name)]
    return path.with_name(alike[0]) if len(alike) == 1 else path


def composed(name: str) -> str:
    """Return a name with its accents composed (NFC), for comparisons: some disks and programs take them apart."""
    return unicodedata.normalize("NFC", name)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of what the system refuses in the block which file it was: when it reads, it says so only of some."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def problem(path: Path, *, folder: bool = False) -> str:
    """Return why a path cannot be opened as a regular file, as what follows its name, or ``""``; never blocks.

    Args:
        path: What to look at; links are followed.
        folder: Whether a folder is expected instead.
    """
    expected = "folder" if folder else "file"
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        if os.path.islink(path):
            return (
                f"is a link to {os.readlink(path)}, which is not there; fetch what it stands for (git annex get, "
                "datalad get), or remove the link"
            )
        return f"this {expected} does not exist; check the path"
    except (OSError, ValueError) as error:
        return describe(OSError(error.errno, error.strerror) if isinstance(error, OSError) else error)
    if kind == (stat.S_IFDIR if folder else stat.S_IFREG):
        return ""
    return f"is {_KINDS.get(kind, 'neither a file nor a folder')}, expected a {expected}; give another path"


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry of a listing is a folder, or a link to one; links that lead in a circle are none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_file(path: Path, where: str | None = None) -> Path:
    """Return the path of a regular file.

    Args:
        path: The file.
        where: What messages call it; default: its path.

    Raises:
        UserError: It is none: it does not exist, may not be looked at, or is a folder, pipe, socket or device.
    """
    if found := problem(path):
        raise UserError(f"{where or path}: {found}")
    return path


def check_folder(path: Path) -> Path:
    """Return the path of a folder.

    Raises:
        UserError: It is none.
    """
    if found := problem(path, folder=True):
        raise UserError(f"{path}: {found}")
    return path


def read_text(path: Path, where: str | None = None) -> str:
    """Return the content of a regular file in UTF-8; a byte order mark may come first.

    Args:
        path: The file.
        where: What messages call it; default: its path.

    Raises:
        UserError: It is no such file, or cannot be read.
    """
    check_file(path, where)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = describe(OSError(error.errno, error.strerror))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        reason = f"byte {error.object[error.start]:02x} in line {line} is no UTF-8; save it as UTF-8"
    raise UserError(f"{where or path}: cannot be read: {reason}")


def escaped(text: str) -> str:
    """Return a text with lone surrogates as six letters, which every file and program can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unescaped(text: str) -> str:
    """Return what `escaped` was given, for bytes that are no UTF-8."""
    return _ESCAPED.sub(lambda match: chr(int(f"dc{match[1]}", 16)), text)


def shown(text: str) -> str:
    """Return a received text as messages show it: of a long one the beginning."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
