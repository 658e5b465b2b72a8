"""Processes of this machine."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

import joblib

from self_supervised_3d_tasks.executors import base
from self_supervised_3d_tasks.executors.base import Ended, Resources


def run(work: Callable[[str], None], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    """See `executors.run`; takes no options."""
    base.check_options("local", resources.options, ())
    # loky starts fresh processes, which have loaded no TensorFlow, and which do not run the caller's script.
    parallel = joblib.Parallel(resources.workers, backend="loky", return_as="generator_unordered", batch_size=1)
    results = parallel(joblib.delayed(base.do)(work, item, resources) for item in items)
    done = set()
    try:
        for ended in results:
            done.add(ended.item)
            yield ended
    except BrokenProcessPool:
        # It does not say whose process it was; whoever comes again does what is left.
        why = "its process, or that of another one, was ended from outside, as a rule because the memory ran out"
        yield from (Ended(item, why) for item in items if item not in done)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib regrets the work that is given up
            results.close()
