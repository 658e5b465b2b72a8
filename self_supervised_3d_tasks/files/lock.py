"""One process at a time works in a folder: the others are told who does.

The kernel holds the lock, so that it ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks.errors import UserError

NAME = ".lock"
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NOT_OFFERED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_MAX_SHOWN = 300  # characters of who holds a lock


@contextlib.contextmanager
def hold(folder: Path, remedy: str, *, name: str = NAME, wait: float = 0) -> Iterator[bool]:
    """Hold the lock of a folder for the length of the block, in a file of the folder that is gone afterwards.

    Missing folders are made, and removed again where nothing else came into them.

    Args:
        folder: Where the lock lies.
        remedy: What the user can do while somebody else holds it, a sentence without its full stop.
        name: Of the file of the lock.
        wait: For how many seconds a lock that is held is waited for.

    Yields:
        Whether the lock is held: False, with one warning, on a file system that offers none.

    Raises:
        UserError: Another process holds it; the message says which. Or nothing can be written there.
    """
    path = folder / name
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, time.monotonic() + wait)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UserError(f"{folder}: files cannot be made here ({reason}); choose another place") from error
    if lock is None:
        raise UserError(f"{folder}: {_holder(path)}; {remedy}")
    held, file = lock
    owner = os.getpid()
    try:
        yield held
    finally:
        # In this order: whoever opens the file before it is gone finds that its lock is of no use, and opens anew.
        if os.getpid() == owner:  # not a copy of this process that ends inside the block
            path.unlink(missing_ok=True)
        os.close(file)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def beside(output: Path, remedy: str) -> Iterator[bool]:
    """Hold the lock of a file or folder that is to be made: it lies beside it, and others beside it have their own."""
    name = f"{NAME}-{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]}"
    with hold(output.parent, remedy, name=name) as held:
        yield held


def _acquire(path: Path, deadline: float) -> tuple[bool, int] | None:
    """Return whether there are locks, and the open file; None where another process has the lock at the deadline."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NOT_OFFERED:
                text = "%s: this file system offers no locks (%s): take care that no other process works here"
                logging.warning(text, path.parent, error.strerror)
                return False, file
            os.close(file)
            if error.errno not in _HELD:
                raise
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)
            continue
        if _is_open(path, file):
            os.ftruncate(file, 0)
            os.pwrite(file, _myself().encode("utf-8", "surrogateescape"), 0)
            return True, file
        os.close(file)  # its last holder has removed it between the two lines above


def _is_open(path: Path, file: int) -> bool:
    """Return whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _myself() -> str:
    since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}: {shlex.join(sys.argv)}"


def _holder(path: Path) -> str:
    """Return who holds a lock, as the lock says it, on one line."""
    try:
        text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        text = ""
    short = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
    return f"another process works here ({short or 'it does not say which'})"
