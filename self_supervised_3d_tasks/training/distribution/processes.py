"""The processes of one training with JAX, on one machine or on many: each drives its own devices.

All of them run the same program on the same model, step by step. What they write goes to a folder of their own, which
only the first one's outlives, see `commands.together`. A process that is alone needs none of this.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from dataclasses import dataclass

import numpy as np
from absl import logging

from self_supervised_3d_tasks import backend, lazy
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.training.distribution import last_words

jax = lazy.load("jax")
multihost = lazy.load("jax.experimental.multihost_utils")

CONNECTING = 300  # seconds that a process waits for the others at the start
SILENT = 60  # seconds without a sign of life after which a process counts as lost
_LONGEST = 4096  # bytes of a text that is told to the others
# How the libraries under JAX word that a peer is gone.
_LOST = re.compile(r"Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]oordination ?[Ss]ervice|heartbeat")


@dataclass(frozen=True)
class Place:
    """Which process this is, where a user says so.

    Attributes:
        coordinator: ``HOST:PORT`` of the first process, by which all others find it.
        number: How many processes there are.
        index: Which of them this one is, from 0.
    """

    coordinator: str
    number: int
    index: int

    def check(self) -> None:
        """Raise `UserError` for numbers that do not fit together."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator: expected HOST:PORT, received {self.coordinator!r}")
        if not 0 <= self.index < self.number:
            raise UserError(
                f"--process_id: expected a number from 0 to {self.number - 1}, below --num_processes {self.number}; "
                f"received {self.index}"
            )


def of_slurm() -> bool:
    """Return whether ``srun`` has started this process and others with it."""
    number = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return "SLURM_PROCID" in os.environ and number.isdecimal() and int(number) > 1


def start(place: Place | None) -> None:
    """Meet the other processes; before anything is computed with JAX.

    Args:
        place: Which process this is; None: SLURM says it.

    Raises:
        UserError: The others could not be reached.
    """
    known = {}
    if place is not None:
        known = {"coordinator_address": place.coordinator, "num_processes": place.number, "process_id": place.index}
        known["cluster_detection_method"] = "deactivate"
    last_words.prepare()
    try:
        jax.distributed.initialize(**known, initialization_timeout=CONNECTING, heartbeat_timeout_seconds=SILENT)
    except (RuntimeError, ValueError) as error:
        where = place.coordinator if place else "the first task of the SLURM step"
        raise UserError(
            f"--coordinator: the processes of this training did not meet at {where} within {CONNECTING} s "
            f"({_first_line(error)}); start all of them, and open that port"
        ) from error
    if not is_first():
        logging.set_verbosity(logging.WARNING)
    logging.info("%d processes train together", count())


def count() -> int:
    """Return the number of processes that train together."""
    return jax.process_count() if _has_met() else 1


def index() -> int:
    """Return which of them this one is, from 0."""
    return jax.process_index() if _has_met() else 0


def is_first() -> bool:
    """Return whether this is the process that writes the run folder and prints."""
    return index() == 0


def share() -> tuple[int, int]:
    """Return which part of every batch this process reads, as `data.stream.source.Position` has it."""
    return index(), count()


def tell(text: str = "") -> str:
    """Return the text that the first process gives, in all processes; all of them must call it."""
    content = np.zeros(_LONGEST, np.uint8)
    encoded = np.frombuffer(os.fsencode(text)[:_LONGEST], np.uint8)
    content[: len(encoded)] = encoded
    told = np.asarray(multihost.broadcast_one_to_all(content), np.uint8)
    return os.fsdecode(told.tobytes().rstrip(b"\0"))


def wait() -> None:
    """Wait until all processes have come here."""
    if count() > 1:
        multihost.sync_global_devices("self_supervised_3d_tasks")


def has_lost(error: BaseException) -> bool:
    """Return whether an error means that another process of the training is gone."""
    return count() > 1 and not isinstance(error, UserError) and _first_lost(error) is not None


def lost(error: BaseException) -> UserError:
    """Return what is said of an error of which `has_lost` is true."""
    return UserError(
        "another process of this training has ended or cannot be reached "
        f"({_first_line(_first_lost(error) or error)}); see what it has said, and start all of them again with --resume"
    )


def leave(code: int) -> None:
    """Let this process end without waiting for the others, which it cannot finish with; they notice that it is gone."""
    if count() > 1:
        atexit.register(_end, code)


def _end(code: int) -> None:
    last_words.omit()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _has_met() -> bool:
    return backend.name() == "jax" and jax.distributed.is_initialized()


def _first_lost(error: BaseException) -> BaseException | None:
    """Return what a library said of a peer: the error, or one that it followed while Keras put its state in order."""
    while error is not None and not _LOST.search(str(error)):
        error = error.__cause__ or error.__context__
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
