"""How alike the codes of parts are: within a whole, and between wholes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.analysis.collapse import unit_length


class Similarities(NamedTuple):
    """Cosine similarities in [-1, 1], each pair of parts once.

    Attributes:
        same: Of parts of the same whole, ``(wholes · parts · (parts - 1) / 2,)``.
        different: Of parts of different wholes, ``(wholes · (wholes - 1) / 2 · parts²,)``.
    """

    same: np.ndarray
    different: np.ndarray


def similarities(codes: np.ndarray) -> Similarities:
    """Compare every part with every other one (Feng et al. 2020, Section 3.3, there for 100 random pairs each).

    Args:
        codes: ``(wholes, parts, size)`` of any length.
    """
    wholes, parts, size = codes.shape
    units = unit_length(codes).reshape(wholes * parts, size)
    first, second = np.triu_indices(wholes * parts, k=1)
    values = np.clip((units @ units.T)[first, second], -1, 1)  # rounding can lead beyond
    within = first // parts == second // parts
    return Similarities(values[within], values[~within])
