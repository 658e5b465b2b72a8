"""Stops running iterators before the interpreter shuts down.

A thread that reads for a tf.data iterator through Python is ended by the interpreter's shutdown wherever it next needs
the interpreter, and TensorFlow then waits for its result for ever. Measured: one script in eight hung at its end if it
still held an iterator with ``numpy_function``, none with this guard.
"""

import atexit
import functools
import gc

from self_supervised_3d_tasks.lazy import tf


@functools.cache
def stop_iterators_at_exit() -> None:
    """Register `stop_iterators`, once, to run while threads can still finish their work."""
    atexit.register(stop_iterators)


def stop_iterators() -> None:
    """Release what every living tf.data iterator holds: TensorFlow cancels its threads and waits for them."""
    gc.collect()
    # `type` and not `isinstance`: the latter would ask lazily loaded modules for their class, and so load them.
    for iterator in [item for item in gc.get_objects() if issubclass(type(item), tf.data.Iterator)]:
        vars(iterator).clear()
