"""What a second thread, worker or device brings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks import isolated, table
from benchmarks.isolated import Failed
from benchmarks.settings import Settings
from benchmarks.timing import in_turn

TITLE = "From one to two"
COLUMNS = ("what", "1", "2", "2 ÷ 1")
TEXT = """\
Speed with two of a kind over that with one, measured in turn where both fit into one process.

* *pipeline*: samples/s of the input pipeline with so many threads, from memory.
"""
BATCHES = 30


def pipeline(name: str, side: int, steps: int) -> dict[str, Any]:
    """Return the row of a task's pipeline with one thread and with two."""
    import tensorflow as tf

    from benchmarks import task_setup

    with task_setup.task(name, rank=3, side=side, filters=1) as setup:
        reads: list[Callable[[], Any]] = []
        for threads in (1, 2):
            options = tf.data.Options()
            options.threading.private_threadpool_size = threads
            batches = iter(setup.stream().with_options(options))
            reads.append(functools.partial(_read, batches, BATCHES))
        in_turn(reads, 1)
        seconds = in_turn(reads, steps)
    speeds = [BATCHES * setup.scans / one for one in seconds]
    row = {"what": f"pipeline of {name}, samples/s", "1": speeds[0], "2": speeds[1]}
    return row | {"2 ÷ 1": speeds[1] / speeds[0]}


def _read(batches: Any, count: int) -> None:
    for _ in range(count):
        next(batches)


def section(settings: Settings) -> str:
    """Return the text and the table."""
    rows, failures = [], {}
    for name in settings.tasks:
        try:
            rows.append(isolated.call(pipeline, {"name": name, "side": settings.side, "steps": settings.slow_steps}))
        except Failed as error:
            failures[name] = str(error)
    return "\n\n".join(filter(None, (TEXT, table.markdown(COLUMNS, rows), table.reasons(failures))))
