"""Names of temporary files that say which process they belong to, so that those of dead processes can be removed."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

from self_supervised_3d_tasks import lazy

psutil = lazy.load("psutil")

UNTOUCHED = 7 * 24 * 3600  # seconds after which a file of a machine that cannot be asked is nobody's any more


def owned_name(prefix: str, ending: str = "") -> str:
    """Return a new name of at most 60 characters, with what `remove_leftovers` needs.

    It holds this machine, this process with the time of its start, and a random number.

    Args:
        prefix: What the name begins with; tells kinds of temporary files apart.
        ending: What it ends with, because many writers choose the format by it; of a long one the last 11 characters.
    """
    start = f"{_start_of(os.getpid()) or 0:04x}"
    return f"{prefix}{_machine()}-{os.getpid()}-{start}{secrets.token_hex(3)}{ending[-11:]}"


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the files and folders with a name of `owned_name` whose process has ended, as far as that is allowed.

    What another machine has made may be in use there, and so may what carries no owner: it is removed when nobody has
    touched it for a week.

    Args:
        folder: Where to look; not in its sub-folders. It need not exist.
        prefix: Which names.
    """
    owner = re.compile(rf"{re.escape(prefix)}([0-9a-f]{{8}})-(\d{{1,10}})-([0-9a-f]{{4}})[0-9a-f]{{6}}(?!\w)")
    # Two processes may clear up at once: what is gone is gone.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if entry.name.startswith(prefix)]:
            with contextlib.suppress(OSError):
                match = owner.match(entry.name)
                if match and match[1] == _machine():
                    is_in_use = _start_of(int(match[2])) == int(match[3], 16)
                else:
                    is_in_use = time.time() - entry.stat(follow_symlinks=False).st_mtime < UNTOUCHED
                if not is_in_use:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)


def _start_of(process: int) -> int | None:
    """Return when a process began, in seconds modulo 2**16, by which it is told from others of its number; or None.

    One that has ended is none, also while its number is kept until somebody asks how it ended: in a container
    perhaps nobody ever does.
    """
    try:
        asked = psutil.Process(process)
        return None if asked.status() == psutil.STATUS_ZOMBIE else int(asked.create_time()) % 2**16
    except psutil.Error:  # there is none
        return None


def _machine() -> str:
    """Return what tells machines apart, and containers, whose processes have numbers of their own: 8 digits."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        numbers = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]
