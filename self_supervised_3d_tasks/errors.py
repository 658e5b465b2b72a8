"""The exceptions that users are meant to see, and the words for those that the system raises."""

import difflib
import errno
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

# What the system refuses: what it means, and what to do about it.
_CAUSES = {
    errno.EACCES: "no permission; change its permissions, or choose another place",
    errno.EBUSY: "in use by another program; end that one first",
    errno.EDQUOT: "your quota of disk space is used up; make room, then go on with --resume",
    errno.EEXIST: "exists already; choose another name",
    errno.EFBIG: "larger than a file may be here; choose another disk",
    errno.EINVAL: "the file system does not take this; choose another place",
    errno.EIO: "the disk failed to read or write (input/output error); repair it, then go on with --resume",
    errno.EISDIR: "a folder, where a file was expected; correct the path",
    errno.ELOOP: "its links lead in a circle; correct the path",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), then go on with --resume",
    errno.ENAMETOOLONG: "the name is longer than the file system takes; choose a shorter one",
    errno.ENFILE: "too many files are open on this machine; end other programs, then go on with --resume",
    errno.ENOENT: "no such file or folder; correct the path",
    errno.ENOMEM: "not enough memory; take smaller batches, crops or scans, or a machine with more",
    errno.ENOSPC: "no space is left on this disk; make room, then go on with --resume",
    errno.ENOTCONN: "the network drive does not answer; connect it anew, then go on with --resume",
    errno.ENOTDIR: "a part of this path is a file, where a folder was expected; correct the path",
    errno.ENOTEMPTY: "this folder is not empty; choose another one",
    errno.ENXIO: "a device or pipe, where a file was expected; correct the path",
    errno.EOPNOTSUPP: "the file system cannot do this; choose another place",
    errno.EPERM: "not permitted here; choose another place",
    errno.EROFS: "this file system can only be read; choose another place",
    errno.ESTALE: "the network drive has lost this file; connect it anew, then go on with --resume",
}
# HDF5 and TensorFlow put what the system said into their own message.
_NUMBER, _NAME = re.compile(r"errno = (\d+)"), re.compile(r"name = '([^']+)'")
_QUOTED = re.compile(r"\[Errno (\d+)\] [^:\n]*(?:: '([^'\n]+)')?")
_MEMORY = re.compile(r"(OOM when allocating tensor with shape\S*|Unable to allocate [^\n]*)|[Oo]ut of memory|OOM when")
_REFUSED = re.compile(r"errors\.UserError: (.*?)\n\n\n\t \[\[", re.DOTALL)
_LONGEST = 200  # characters of a path or a message that are shown


class UserError(ValueError):
    """A mistake in an experiment file, a command line or a data folder.

    The message names the file or key, what was expected, what was received and what to do. Commands print it without a
    traceback and exit with code 2.
    """


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite: no later step can be trusted, so training stops.

    Commands print the message, which names the epoch, without a traceback and exit with code 1.

    Args:
        what: What became so, and when.
    """

    def __init__(self, what: str):
        super().__init__(f"training diverged: {what}")


class JobsFailed(RuntimeError):
    """Some trainings of a sweep failed, of which the tables hold the others; or some of several experiment files.

    Commands print the message, a line per reason, without a traceback and exit with code 1.

    Args:
        reasons: Why, by the name of the job or file.
        number: Of all of them.
    """

    def __init__(self, reasons: Mapping[str, str], number: int):
        jobs = defaultdict(list)
        for job, reason in reasons.items():
            jobs[reason].append(job)
        lines = [f"{', '.join(names)}: {reason}" for reason, names in jobs.items()]
        count = (
            f"{len(reasons)} of {number} trainings failed; the others have finished, and --resume tries these again:"
        )
        super().__init__("\n  ".join([count, *lines]))


class ScansFailed(RuntimeError):
    """Some scans of a folder cannot be used; what came of the others is complete.

    Commands print the message, a line per scan, without a traceback and exit with code 1.

    Attributes:
        reasons: File and reason of each of them.
    """

    def __init__(self, reasons: Sequence[str], what: str = "predicted"):
        self.reasons = list(reasons)
        count = f"{len(reasons)} scan{'s' * (len(reasons) > 1)}"
        super().__init__("\n  ".join([f"{count} could not be {what}; repair, and go on with --resume:", *reasons]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def describe(error: BaseException) -> str:
    """Return what the system, or a library in its name, refused: file, cause and remedy in one line.

    Args:
        error: An `OSError` or a `MemoryError`; of any other exception the message is searched for what the system said.
    """
    text = str(error)
    memory, number, quoted = (pattern.search(text) for pattern in (_MEMORY, _NUMBER, _QUOTED))
    code = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or memory:
        code = errno.ENOMEM
    elif code is None and (number or quoted):
        code = int((number or quoted)[1])
    elif code is None:
        code = next((known for known in _CAUSES if os.strerror(known) in text), None)
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if name is None:
        found = _NAME.search(text)
        name = (memory and memory[1]) or (found and found[1]) or (quoted and quoted[2])
    cause = _CAUSES.get(code) or getattr(error, "strerror", None) or text or type(error).__name__
    cause = _one_line(cause)
    # A file that was opened by its number has no name.
    return f"{_one_line(os.fsdecode(name))}: {cause}" if isinstance(name, str | bytes | os.PathLike) else cause


def refused(error: BaseException) -> str | None:
    """Return the message of a `UserError` that was raised inside a tf.data pipeline, which makes another error of it.

    Args:
        error: What the pipeline raised.
    """
    found = _REFUSED.search(str(error))
    return found and found[1]


def is_of_the_system(error: BaseException) -> bool:
    """Return whether the system, not the program, is why work cannot go on: its disks, rights or memory.

    Args:
        error: Also what HDF5 or a tf.data pipeline has made of an `OSError`.
    """
    # TensorFlow's by name, since it may not have been loaded.
    by_name = type(error).__name__ in ("ResourceExhaustedError", "PermissionDeniedError")
    text = str(error)
    return isinstance(error, OSError | MemoryError) or by_name or bool(_NUMBER.search(text) or _QUOTED.search(text))


def _one_line(text: str) -> str:
    """Return a text in one line, and of a long one the end, where paths differ."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"…{line[1 - _LONGEST :]}"
