"""Commands in forked processes: TensorFlow is imported once, and a hang, an abort or a kill ends one child alone.

The parent must never run an operation of TensorFlow: its threads would be missing in the children.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import pkgutil
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

MEMORY = 8 * 2**30  # address space of a child, of which an imported TensorFlow takes 1.6 GiB
IDLE_SECONDS = 15
OUTPUT_READ = 200_000  # characters of the output that are looked at

LIBRARIES = (
    "tensorflow",
    "keras",
    "matplotlib.pyplot",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "scipy.ndimage",
    "PIL.Image",
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal, None for one that had to be stopped."""

    code: int | None
    out: str
    err: str
    seconds: float


def preload() -> None:
    """Import what the commands import, without running any of it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    package = importlib.import_module("self_supervised_3d_tasks")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def command(name: str, *arguments: object) -> Callable[[], None]:
    """Return a function that runs a command in the current folder, as ``python <name>.py ARGUMENTS`` does."""

    def run() -> None:
        program = [f"{name}.py", *map(str, arguments)]
        sys.argv = program
        importlib.import_module(f"self_supervised_3d_tasks.commands.{name}").main(program)

    return run


class Forked:
    """A function that runs in a child with a folder, files for its output, and limits of its own.

    Args:
        function: What to run.
        folder: Its current folder.
        seconds: After so many of processor time it is stopped, and after `IDLE_SECONDS` without any.
        stop: Called in the child before the function.
    """

    def __init__(self, function: Callable[[], None], folder: Path, *, seconds: float = 60, stop=None):
        self._log = folder.parent / f"{folder.name}-{time.monotonic_ns()}"
        self._began, self._seconds = time.monotonic(), seconds
        arguments = (function, folder, self._log, stop)
        self._process = multiprocessing.get_context("fork").Process(target=_child, args=arguments)
        self._process.start()

    def send(self, number: int) -> None:
        """Send a signal, unless the child has ended."""
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def wait(self) -> Ended:
        """Wait for the end; whatever the child itself has started is ended too."""
        hung = not self._ends()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.join()
        seconds = time.monotonic() - self._began
        texts = []
        for stream in ("out", "err"):
            path = Path(f"{self._log}.{stream}")
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                texts.append(file.read(OUTPUT_READ))
            path.unlink()
        return Ended(None if hung else self._process.exitcode, *texts, seconds)

    def _ends(self) -> bool:
        """Return whether the child ends before it has computed for too long, or waited for nothing too long.

        Other programs may have the machine: its own time counts, not that of the clock.
        """
        seen, idle_since = 0.0, time.monotonic()
        while self._process.is_alive():
            self._process.join(0.05 if time.monotonic() - self._began < 1 else 0.5)
            computed = self._computed()
            if computed > seen + 0.02:
                seen, idle_since = computed, time.monotonic()
            if computed > self._seconds or time.monotonic() - idle_since > IDLE_SECONDS:
                return not self._process.is_alive()
        return True

    def _computed(self) -> float:
        """Return the seconds of processor time of the child and of what it has started."""
        total = 0.0
        try:
            child = psutil.Process(self._process.pid)
            for process in (child, *child.children(recursive=True)):
                times = process.cpu_times()
                total += times.user + times.system
        except psutil.Error:
            pass
        return total


def run(function: Callable[[], None], folder: Path, *, seconds: float = 60, stop=None) -> Ended:
    """Run a function in a child and say how it ended; see `Forked`."""
    return Forked(function, folder, seconds=seconds, stop=stop).wait()


def _child(function: Callable[[], None], folder: Path, log: Path, stop: Callable[[], None] | None) -> None:
    os.setsid()
    os.chdir(folder)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder.with_name("tmp"))
    os.makedirs(tempfile.tempdir, exist_ok=True)
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{stream}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    renew_streams()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if stop:
        stop()
    function()


def renew_streams() -> None:
    """Open stdout and stderr anew, after the files below them have changed."""
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)


def no_training() -> None:
    """Let a command end where its training would begin."""
    import keras

    def fit(*_, **__) -> None:
        sys.exit(0)

    keras.Model.fit = fit


class AtWrite:
    """Sends this process a signal at the n-th event at which it makes, opens, renames or removes a file of a folder.

    Args:
        folder: The folder.
        number: Number of the event, from 0; None: none, they are only recorded.
        kill: The signal.
        delay: Seconds between the event and the signal.
        record: File that gets a line per event.
    """

    def __init__(
        self,
        folder: Path,
        number: int | None,
        *,
        kill: int = signal.SIGKILL,
        delay: float = 0.0,
        record: Path | None = None,
    ):
        self._folder, self._number, self._kill, self._delay = f"{folder.resolve()}{os.sep}", number, kill, delay
        self._record, self._count, self._lines = record, 0, []

    def __call__(self) -> None:
        """Begin to listen."""
        if self._record:
            self._lines = open(self._record, "w", buffering=1)  # noqa: SIM115 - open until the process ends
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event not in _EVENTS or (event == "open" and not arguments[2] & _WRITING):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(self._folder):
            return
        if self._record:
            name = re.sub(r"\.unfinished-[0-9a-f]+-?|\d+", "#", os.path.basename(os.fsdecode(path)))
            self._lines.write(f"{event} {name}\n")
        elif self._count == self._number:
            send = functools.partial(os.kill, os.getpid(), self._kill)
            if self._delay:
                timer = threading.Timer(self._delay, send)
                timer.daemon = True
                timer.start()
            else:
                send()
        self._count += 1
