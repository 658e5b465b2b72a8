"""The exceptions that users are meant to see."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in an experiment file, a command line or a data folder.

    The message names the file or key, what was expected, what was received and what to do. Commands print it without a
    traceback and exit with code 2.
    """


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite: no later step can be trusted, so training stops.

    Commands print the message, which names the epoch, without a traceback and exit with code 1.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
