"""Which tasks of an array job SLURM still has: by its queue, since not every cluster keeps accounts (``sacct``)."""

import os
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from absl import logging

POLL_SECONDS = 5  # between two looks at the results
QUEUE_SECONDS = 15  # between two questions to SLURM, which is everybody's
ANSWER_SECONDS = 60  # for an answer of a SLURM that has much to do
# A task without a result has ended when SLURM has said so twice: the result may take a moment on a shared disk.
TIMES_GONE = 2
ENDED = frozenset("BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT".split())
# How the reasons begin for which a task may wait without anything being wrong; Assoc and QOS are limits of a user.
USUAL = tuple("None Priority Resources JobArrayTaskLimit BeginTime Cleaning Licenses Reservation Assoc QOS".split())


def as_they_end(results: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Wait for tasks, and say of each when it has ended, and its last state, "" where SLURM does not know it any more.

    Args:
        results: The file that a task writes when it has finished, by the task's number, such as ``"17_3"``.
    """
    waiting, gone, states, told, asked = dict(results), dict.fromkeys(results, 0), {}, set(), time.monotonic()
    while waiting:
        # To list a folder asks the server of a shared disk; whether a file exists may be answered from memory.
        names = {name for folder in {path.parent for path in waiting.values()} for name in os.listdir(folder)}
        for task in [task for task, path in waiting.items() if path.name in names or gone[task] >= TIMES_GONE]:
            del waiting[task]
            yield task, states.get(task, "")
        if not waiting:
            return
        time.sleep(POLL_SECONDS)
        if time.monotonic() - asked > QUEUE_SECONDS:
            asked = time.monotonic()
            queue = _queue()
            if queue is None:
                continue
            for task in waiting:
                states[task], reason = queue.get(task, (states.get(task, ""), ""))
                gone[task] = gone[task] + 1 if task not in queue or states[task] in ENDED else 0
                if states[task] == "PENDING" and reason not in told and not reason.startswith(USUAL):
                    told.add(reason)
                    logging.warning("SLURM lets task %s wait, and perhaps for ever: %s", task, reason)


def cancel(tasks: Collection[str]) -> None:
    """End all tasks of the arrays that these belong to, and wait until they have ended.

    They are killed: they would not end for a request, and their files are whole at any moment.
    """
    arrays = sorted({task.partition("_")[0] for task in tasks})
    for signal in ([], ["--signal=KILL"]):  # those that wait, then those that run
        subprocess.run(["scancel", *signal, *arrays], capture_output=True, timeout=ANSWER_SECONDS)
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        queue = _queue()
        if queue is not None and all(queue.get(task, ("COMPLETED", ""))[0] in ENDED for task in tasks):
            return
        time.sleep(1)
    logging.warning("SLURM has not ended job %s yet; see squeue", ", ".join(arrays))


def _queue() -> dict[str, tuple[str, str]] | None:
    """Return state and reason of every task of this user by its number, or None: SLURM does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS).stdout
    except (OSError, subprocess.SubprocessError) as error:
        logging.warning("SLURM does not say how the tasks are, and is asked again: %s", error)
        return None
    rows = [line.split("|", 2) for line in lines.splitlines()]
    return {number: (state, reason) for number, state, reason in rows}
