"""What the tests of executors let other processes do; it can be sent there because it lies in a module."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging


def note(item: str, folder: str) -> None:
    """Write which process did an item and with what; "bad" fails, "killed" is ended from outside the first time."""
    path = Path(folder) / f"{item}.txt"
    print("a library speaks", file=sys.stderr, flush=True)
    logging.warning("%s is done", item)
    if item == "bad":
        raise ValueError("first line\nthe reason")
    if item == "killed" and not path.exists():
        path.write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")
    path.write_text("|".join([os.getcwd(), str(os.getpid()), *(os.environ.get(name, "-") for name in names)]))


def be_ready(folder: str, seconds: float = 0) -> None:
    """Write which process gets ready and with how many threads, which takes so long."""
    path = Path(folder) / f"ready_{os.getpid()}.txt"
    path.write_text(f"{os.getpid()}|{os.environ['OMP_NUM_THREADS']}")
    time.sleep(seconds)


def wait_for_the_word(item: str, folder: str) -> None:
    """Say which process has an item, and wait until it is told to go on."""
    (Path(folder) / f"{item}@{os.getpid()}.process").touch()
    until(lambda: (Path(folder) / "go on").exists())


def until(condition: Callable[[], Any], number: int | None = None) -> Any:
    """Wait until a condition holds, or gives a list of so many, and return what it gave."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        found = condition()
        if found and (number is None or len(found) == number):
            return found
        time.sleep(0.1)
    raise TimeoutError("nothing came of it")
