"""Work on the scans of a cohort, several at a time."""

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

MAX_THREADS = 8


def map_in_threads(function: Callable[[Any], Any], scans: Collection[Any], title: str) -> Iterator[Any]:
    """Yield what a function returns for each scan, in their order, with a progress bar on terminals.

    Closed before its end, after an error or Ctrl-C, it does not begin with any further scan.
    """
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        yield from tqdm(pool.map(function, scans), title, len(scans), unit="scan", disable=None)
    finally:
        pool.shutdown(cancel_futures=True)
