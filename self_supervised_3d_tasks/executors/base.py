"""What every executor is given, says, and does around the work itself."""

from __future__ import annotations

import contextlib
import glob
import logging as standard_logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib
from absl import logging

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.scratch import own_temporary_folder

_PLAIN = re.compile(r"[\w.,:=+\-\[\]/@]*")
MAX_REASON = 500  # characters
# Read by TensorFlow and the libraries below it when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class Ended(NamedTuple):
    """How one item of the work ended.

    Attributes:
        item: What ``work`` was called with.
        reason: None: ``work`` returned; else why it did not.
    """

    item: str
    reason: str | None


class Settings(Protocol):
    """The keys of an experiment that say who does its work."""

    workers: int
    executor: str
    executor_options: dict[str, Any]
    use_gpu: list[int] | None


@dataclass(frozen=True)
class Resources:
    """What the processes that do the work may use.

    Attributes:
        workers: Processes at once, at least 1.
        logs: Folder of one log per item, made if missing.
        gpus: Names of the GPUs of this machine, of which each process has one; empty: all work is done by the CPU.
        options: The executor's own options.
        folder: The current folder, from which relative paths are looked up; it is theirs, too.
        cores: Of one process; None: its share of this machine's.
        verbosity: Of what the processes log; default: as this one.
    """

    workers: int
    logs: Path
    gpus: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)
    cores: int | None = None
    verbosity: int = field(default_factory=logging.get_verbosity)

    @classmethod
    def of(cls, settings: Settings, items: int, logs: Path) -> Resources:
        """Return the resources that an experiment asks for, for so many items: of this machine one GPU each."""
        gpus = gpus_of_this_machine(settings.use_gpu) if settings.executor == "local" else []
        workers = min(settings.workers, items, len(gpus) or items)
        return cls(workers, logs.absolute(), gpus, settings.executor_options)

    @property
    def threads(self) -> int:
        """Threads of one process: as many as it has cores."""
        return self.cores or max(1, joblib.cpu_count() // self.workers)


def check_options(executor: str, options: dict[str, Any], allowed: Collection[str]) -> None:
    """Raise `UserError` for options that are not among those that only say which machines and how much of them.

    An experiment file may come from a stranger, and others of these libraries' options run commands.
    """
    for key, value in options.items():
        if key not in allowed:
            raise UserError(
                f"executor_options: {key} is none of executor {executor}{nearest(key, allowed)}; it has "
                f"{', '.join(sorted(allowed)) or 'none'}"
            )
        if isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise UserError(
                f"executor_options: {key}: expected letters, digits and .,:=+-[]/@_, received {value!r:.100}"
            )


def gpus_of_this_machine(allowed: Sequence[int] | None) -> list[str]:
    """Return the names of the GPUs that may be used, as ``CUDA_VISIBLE_DEVICES`` has them; CUDA is not loaded.

    Args:
        allowed: Their indices; None: those of ``CUDA_VISIBLE_DEVICES``, or all of NVIDIA's.
    """
    if allowed is not None:
        return [str(index) for index in allowed]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    return sorted(path.removeprefix("/dev/nvidia") for path in glob.glob("/dev/nvidia[0-9]*"))


def do(work: Callable[[str], None], item: str, resources: Resources) -> Ended:
    """Do one item in the process that was made for it: with its share of the threads, one GPU, and a log of its own.

    Number of threads and GPU are those of the first call in a process: TensorFlow asks once.
    """
    resources.logs.mkdir(parents=True, exist_ok=True)
    try:
        _set_up(resources)
        with _logging_to(resources.logs / f"{item}.log"), own_temporary_folder():
            work(item)
    except Exception as error:
        return Ended(item, reason(error))
    return Ended(item, None)


def prepare(call: Callable[[], None], resources: Resources) -> None:
    """Call what all items need in a process that will do some, set up as for them; their logs say what goes wrong."""
    with contextlib.suppress(Exception), _logging_to(Path(os.devnull)):
        _set_up(resources)
        call()


def _set_up(resources: Resources) -> None:
    for name in _THREADS:
        os.environ.setdefault(name, str(resources.threads))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(resources.verbosity)
    os.chdir(resources.folder)
    if resources.gpus:
        _take_gpu(resources)


_taken = contextlib.ExitStack()  # holds the lock of this process's GPU until the process ends
_gpu = None  # its name


def _take_gpu(resources: Resources) -> None:
    """Make one GPU, which no other process of this work has, the only one that this process sees."""
    global _gpu
    for name in resources.gpus if _gpu is None else ():
        with contextlib.suppress(UserError):  # another process has this one
            _taken.enter_context(lock.hold(resources.logs, "take another one", name=f".gpu_{name}.lock"))
            _gpu = os.environ["CUDA_VISIBLE_DEVICES"] = name
            break
    if _gpu is None:
        raise RuntimeError(f"{len(resources.gpus)} GPUs, and each has a process already")


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send what is logged, and what libraries write to stderr, to the end of a file: on the terminal it would mix."""
    handler = standard_logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(standard_logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    stderr = os.dup(2)
    os.dup2(handler.stream.fileno(), 2)
    try:
        with logged_by(handler):
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        handler.close()


@contextlib.contextmanager
def logged_by(handler: standard_logging.Handler) -> Iterator[None]:
    """Give what is logged in the block to one handler alone."""
    logger = logging.get_absl_logger()
    shown, logger.handlers, propagates, logger.propagate = logger.handlers, [handler], logger.propagate, False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = shown, propagates


def reason(error: BaseException) -> str:
    """Return in one line why work that raised ``error`` failed."""
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__


def let_processes_find_the_package() -> None:
    """Let fresh Pythons that are started from here import the package from a checkout that is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, *path]))
