"""How long training waited for data."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from self_supervised_3d_tasks.lazy import tf


class WaitClock:
    """Adds up the time from each request for a batch to its arrival.

    It sits at the very end of the pipeline, behind the prefetch buffer: a full buffer costs microseconds, an
    empty one shows. On a GPU the next batch may be requested while the device still computes, so the sum is
    an upper bound.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def seconds(self) -> float:
        """Return the seconds waited since the clock was made, over all attached datasets."""
        return self._seconds

    def attach(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the dataset, timed; append nothing that runs ahead of the consumer, such as a prefetch."""
        # `zip` asks its parts from left to right: the request is stamped, then the data is waited for.
        requests = tf.data.Dataset.counter().map(lambda _: tf.numpy_function(_now, [], tf.float64))
        timed = tf.data.Dataset.zip(requests, dataset).map(self._arrived)
        options = tf.data.Options()
        # Either would stamp requests before they are made.
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        return timed.with_options(options)

    def _arrived(self, requested: tf.Tensor, element: Any) -> Any:
        total = tf.numpy_function(self._add, [requested], tf.float64)
        with tf.control_dependencies([total]):
            return tf.nest.map_structure(tf.identity, element)

    def _add(self, requested: np.float64) -> np.float64:
        self._seconds += float(_now() - requested)
        return np.float64(self._seconds)


def _now() -> np.float64:
    """Return a monotonic time in seconds; ``tf.timestamp`` is refused while determinism is on."""
    return np.float64(time.perf_counter())
