"""All kinds of trials, whole or a small part of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability import bad_inputs, contention, fuzzing, interruptions
from benchmarks.reliability.trials import Trial

FUZZED = {
    "whole": {"experiments": 2000, "scans": 1000, "run_files": 1000},
    "small": {"experiments": 20, "scans": 12, "run_files": 4},
}
EVERY = 59  # of the bad inputs one in so many is in the small part


def trials(made: Path, *, part: str, seed: int, wanted: Callable[[str], bool]) -> list[Trial]:
    """Return the trials of a part of the kinds that are wanted; ``made`` is the world."""
    found = bad_inputs.trials(made)
    if part == "small":
        found = found[seed % EVERY :: EVERY]
    found += fuzzing.trials(made, seed=seed, **FUZZED[part])
    found += interruptions.trials(made, part=part, seed=seed, wanted=wanted)
    if part == "whole":
        found += contention.trials(made, seed=seed)
    return [trial for trial in found if wanted(trial.kind)]
