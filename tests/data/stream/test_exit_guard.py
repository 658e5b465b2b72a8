from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from self_supervised_3d_tasks.data.stream.exit_guard import stop_iterators


def test_stopped_iterators_read_no_more() -> None:
    reads = []

    def read(index: int) -> np.int64:
        time.sleep(0.001)
        reads.append(index)
        return index

    dataset = tf.data.Dataset.counter().map(lambda index: tf.numpy_function(read, [index], tf.int64), 2)
    iterator = iter(dataset.prefetch(10**9))
    next(iterator)
    stop_iterators()
    finished = len(reads)
    time.sleep(0.05)
    assert len(reads) == finished > 0
    stop_iterators()  # nothing is left: no error
