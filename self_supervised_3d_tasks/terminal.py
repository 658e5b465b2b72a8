"""The terminal that a command was started from: its streams, and the signals that ask a process to end."""

import _thread
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# Ctrl-C, the end that a cluster or a computer that shuts down asks for, and a terminal that was closed.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN = 0.01  # seconds until a signal is told again whose exception was swallowed where Python lets none out
TWICE = 1.0  # seconds in which a signal counts as one: `timeout` sends it to a process and to its group
_received: list[tuple[int, float]] = []


class Interrupted(KeyboardInterrupt):
    """A signal has asked the process to end.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def start() -> None:
    """Make the streams usable, and end at once on a signal: the first thing that a process does.

    Until a command has been imported and runs, there is nothing to be kept.
    """
    open_streams()
    _answer(_end_at_once)


def open_streams() -> None:
    """Let stdout and stderr take every character, and open those that were closed.

    What an encoding lacks is written as an escape of its number. A closed stream would give its number to the next file
    that is opened, into which libraries then write their messages.
    """
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")


def say(text: object) -> None:
    """Print to stdout; where nobody reads it any more, or its disk is full, the text is lost and the work goes on."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"stdout: {error.strerror}; the work goes on, but nothing more is printed\n")


def drop_stdout() -> None:
    """Send to nowhere what is still to be written to stdout: Python flushes it once more when it ends."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block when a signal comes, between two steps of a training: a step is one call.

    A signal that comes again ends the process at once, but for what is sent twice.
    """
    before, hook = _answer(_raise), sys.unraisablehook
    sys.unraisablehook = functools.partial(_swallowed, hook)
    try:
        yield
    except Exception as error:
        check(error)  # a library that was at work may have made an error of its own of it
        raise
    finally:
        _received.clear()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def check(cause: Exception | None = None) -> None:
    """Raise `Interrupted` if a signal has come, whose exception a library may have swallowed.

    Args:
        cause: The exception that is under way instead.
    """
    if _received:
        raise Interrupted(_received[0][0]) from cause


def _answer(handler: object) -> dict[int, object]:
    """Answer signals with a handler and return those before it; what ``nohup`` ignores stays ignored."""
    answered = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    try:
        return {number: signal.signal(number, handler) for number in answered}
    except ValueError:  # not in the main thread, which alone is told of signals
        return {}


def _raise(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _received:
        _received.append((number, now))
        raise Interrupted(number)
    if now - _received[0][1] > TWICE:
        _end_at_once(number, frame)


def _swallowed(hook: Callable, ignored: object) -> None:
    """Tell a signal again that came while an object was deleted: Python prints that exception and goes on."""
    if not isinstance(ignored.exc_value, Interrupted):
        hook(ignored)
        return
    _received.clear()
    again = threading.Timer(AGAIN, _thread.interrupt_main, [ignored.exc_value.number])
    again.daemon = True
    again.start()


def _end_at_once(number: int, _: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)
