"""The exceptions that users are meant to see."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence


class UserError(ValueError):
    """A mistake in an experiment file, a command line or a data folder.

    The message names the file or key, what was expected, what was received and what to do. Commands print it without a
    traceback and exit with code 2.
    """


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite: no later step can be trusted, so training stops.

    Commands print the message, which names the epoch, without a traceback and exit with code 1.
    """


class JobsFailed(RuntimeError):
    """Some trainings of a sweep failed; the tables hold the others.

    Commands print the message, a line per reason, without a traceback and exit with code 1.

    Args:
        reasons: Why, by the name of the job.
        number: Jobs of the sweep.
    """

    def __init__(self, reasons: Mapping[str, str], number: int):
        jobs = defaultdict(list)
        for job, reason in reasons.items():
            jobs[reason].append(job)
        lines = [f"{', '.join(names)}: {reason}" for reason, names in jobs.items()]
        count = (
            f"{len(reasons)} of {number} trainings failed; the tables hold the others, and --resume tries them again:"
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
