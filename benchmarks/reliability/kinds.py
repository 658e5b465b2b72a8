"""All kinds of trials, whole or a small part of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reliability import bad_inputs
from benchmarks.reliability.trials import Trial


def trials(made: Path, *, part: str, seed: int) -> list[Trial]:
    """Return the trials of a part; ``made`` is the world."""
    return bad_inputs.trials(made)
