"""What is said when JAX ends this process: it aborts where another one is lost, with a page about its own inside."""

import atexit
import functools
import subprocess
import sys

_WAIT = 5  # seconds for a process that has one byte to read
_SAID = (
    "error: JAX has ended this process, because another process of this training has ended or did not come (or it was "
    "killed from outside); see what the others have said, and start all of them again with --resume\n"
)
_PROGRAM = f"import sys\nif not sys.stdin.buffer.read(1):\n    sys.stderr.write({_SAID!r})"


@functools.cache
def prepare() -> None:
    """Start a small process that says so, once this one is gone without `omit`, and that goes with it."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    # In a session of its own it is spared the signals that a terminal sends to all.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    _watchers.append(watcher)
    atexit.register(omit)


def omit() -> None:
    """Let nothing be said: this process ends in its own way."""
    while _watchers:
        watcher = _watchers.pop()
        try:
            watcher.communicate(b".", timeout=_WAIT)
        except (OSError, subprocess.TimeoutExpired):
            watcher.kill()


_watchers: list[subprocess.Popen] = []
