"""All kinds of trials, whole or a small part of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reliability import bad_inputs, fuzzing
from benchmarks.reliability.trials import Trial

FUZZED = {
    "whole": {"experiments": 2000, "scans": 1000, "run_files": 1000},
    "small": {"experiments": 100, "scans": 60, "run_files": 60},
}


def trials(made: Path, *, part: str, seed: int) -> list[Trial]:
    """Return the trials of a part; ``made`` is the world."""
    found = bad_inputs.trials(made)
    if part == "small":
        found = found[seed % 8 :: 8]
    return found + fuzzing.trials(made, seed=seed, **FUZZED[part])
