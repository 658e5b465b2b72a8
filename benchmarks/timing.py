"""Seconds of calls, made in turn where they are compared: a change of the machine's pace meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def per_call(function: Callable[[], Any], count: int = 1) -> float:
    """Return the mean seconds of ``count`` calls."""
    began = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - began) / count


def in_turn(functions: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median seconds of each function; all are called in every round.

    Args:
        functions: Each waits for its result. Called before, so that nothing is built while the time is taken.
        rounds: Calls of each.
    """
    return np.median([[per_call(function) for function in functions] for _ in range(rounds)], axis=0).tolist()
