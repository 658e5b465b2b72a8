"""Work on the scans of a cohort in several processes, for what Python's threads would do one after the other."""

import functools
import logging as standard_logging
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib
from absl import logging
from tqdm import tqdm

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.executors.base import logged_by

MAX_PROCESSES = 8
IDLE_SECONDS = 5


def count() -> int:
    """Return how many processes work at once."""
    return min(MAX_PROCESSES, joblib.cpu_count())


def map_in_processes(function: Callable[[Any], Any], scans: Collection[Any], title: str) -> Iterator[Any]:
    """Yield what a function returns for each scan, in their order, with a progress bar on terminals.

    Closed before its end, after an error or Ctrl-C, it does not begin with any further scan. What the function warns of
    is logged here.

    Args:
        function: Can be sent to another process, as what it returns.
        scans: What it is called with.
        title: What the progress bar says.

    Raises:
        UserError: A process was ended from outside.
    """
    # loky starts fresh processes that do not run the caller's script, and that end when they have had nothing to do.
    parallel = joblib.Parallel(
        count(), backend="loky", return_as="generator", batch_size=1, idle_worker_timeout=IDLE_SECONDS
    )
    work = joblib.delayed(functools.partial(_with_warnings, function))
    results = parallel(map(work, scans))
    try:
        with tqdm(desc=title, total=len(scans), unit="scan", disable=None) as bar:
            for result, records in results:
                for level, message in records:
                    logging.log(level, "%s", message)
                bar.update()
                yield result
    except BrokenProcessPool as error:
        raise UserError(
            f"{title}: one of {count()} processes was ended from outside, as a rule because the memory ran out. What "
            "was finished is kept: start again, with LOKY_MAX_CPU_COUNT=1 in the environment for a single process."
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib regrets the work that is given up
            results.close()


class _Collector(standard_logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[int, str]] = []

    def emit(self, record: standard_logging.LogRecord) -> None:
        """Keep a record."""
        level = logging.converter.standard_to_absl(record.levelno)
        self.records.append((level, record.getMessage()))


def _with_warnings(function: Callable[[Any], Any], scan: Any) -> tuple[Any, list[tuple[int, str]]]:
    """Call a function in a process of its own; return its result and what it logged."""
    collector = _Collector()
    with logged_by(collector):
        return function(scan), collector.records
