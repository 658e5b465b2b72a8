"""A trial: something is done to a command, and it survives or is lost."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import re
import resource
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.process import Ended

LONGEST_MESSAGE = 1500


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        kind: The row of the table that it counts in.
        name: What is tried, with the seed where there is one.
        run: Takes an empty folder and returns why the command is lost, or None where it survives.
    """

    kind: str
    name: str
    run: Callable[[Path], str | None]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        kind: Of the trial.
        name: Of the trial.
        lost: Why it is lost, or None where it survived.
        seconds: Processor time that it took.
    """

    kind: str
    name: str
    lost: str | None
    seconds: float


def run_all(trials: Sequence[Trial], *, processes: int, folder: Path) -> Iterator[Outcome]:
    """Run trials, each in a folder of its own that is removed afterwards, and yield the outcomes in their order."""
    context = multiprocessing.get_context("fork")
    global _trials, _folder
    _trials, _folder = trials, folder
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as executor:
        yield from executor.map(_run, range(len(trials)))


_trials: Sequence[Trial] = ()
_folder = Path()


def _run(number: int) -> Outcome:
    """Run a trial in a worker, which has the list of them from its parent."""
    trial = _trials[number]
    folder = Path(tempfile.mkdtemp(prefix=f"{number}-", dir=_folder))
    began = _processor_seconds()
    try:
        (folder / "w").mkdir()
        lost = trial.run(folder / "w")
    except Exception:
        lost = f"the trial itself failed: {traceback.format_exc(limit=-2)}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(trial.kind, trial.name, lost, _processor_seconds() - began)


def _processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def flaw(ended: Ended, folder: Path | None = None) -> str | None:
    """Return what is wrong with the end of a command whatever it was given, or None.

    Args:
        ended: How it ended.
        folder: Its current folder, where no file may be left half-written.
    """
    errors = re.findall(r"^error: .*", ended.err, re.MULTILINE)
    last = (ended.err.strip().splitlines() or [""])[-1][:300]
    if ended.code is None:
        return f"hang (stopped after {ended.seconds:.0f} s): {last}"
    if ended.code < 0:
        return f"ended by signal {-ended.code}: {last}"
    if "Traceback" in ended.err:
        return f"traceback: {last}"
    if ended.code not in (0, 1, 2, 130, 141, 143):
        return f"exit code {ended.code}: {last}"
    if ended.code == 2 and len(errors) != 1:
        return f"{len(errors)} messages: {ended.err[:200]!r}"
    if ended.code == 1 and not errors:
        return f"exit code 1 without a message: {last}"
    if any(len(error) > LONGEST_MESSAGE for error in errors):
        return f"a message of {max(map(len, errors))} characters: {errors[0][:100]}"
    if folder and (left := [path for path in folder.rglob(".unfinished-*")]):
        return f"{left[0].relative_to(folder)} is left behind"
    return None


def refused(ended: Ended, *mentions: str, folder: Path | None = None) -> str | None:
    """Return what is wrong unless a command was refused with one message that has any of ``mentions``."""
    if found := flaw(ended, folder):
        return found
    if ended.code != 2:
        return f"accepted, exit code {ended.code}"
    message = ended.err[ended.err.index("error: ") :]
    if mentions and not any(mention in message for mention in mentions):
        return f"names none of {', '.join(mentions)}: {message[:200]}"
    return None
