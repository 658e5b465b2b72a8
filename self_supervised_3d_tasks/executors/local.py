"""Processes of this machine."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib

from self_supervised_3d_tasks.executors import base
from self_supervised_3d_tasks.executors.base import Ended, Resources


def run(work: Callable[[str], None], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    """See `executors.run`; takes no options."""
    base.check_options("local", resources.options, ())
    done = set()
    with _results((joblib.delayed(base.do)(work, item, resources) for item in items), resources) as results:
        try:
            for ended in results:
                done.add(ended.item)
                yield ended
        except BrokenProcessPool:
            # It does not say whose process it was; whoever comes again does what is left.
            why = "its process, or that of another one, was ended from outside, as a rule because the memory ran out"
            yield from (Ended(item, why) for item in items if item not in done)


@contextlib.contextmanager
def ready(prepare: Callable[[], None], resources: Resources) -> Iterator[None]:
    """See `executors.ready`."""
    if resources.workers == 1:  # joblib does what one process is to do in this one
        yield
        return
    calls = (joblib.delayed(base.prepare)(prepare, resources) for _ in range(resources.workers))
    with _results(calls, resources):
        yield


@contextlib.contextmanager
def _results(calls: Iterator[Any], resources: Resources) -> Iterator[Iterator[Any]]:
    """Yield what calls in processes return, as they end; those that nobody has waited for are given up."""
    # loky starts fresh processes, which have loaded no TensorFlow, and which do not run the caller's script.
    parallel = joblib.Parallel(resources.workers, backend="loky", return_as="generator_unordered", batch_size=1)
    results = parallel(calls)
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib regrets the work that is given up
            results.close()
