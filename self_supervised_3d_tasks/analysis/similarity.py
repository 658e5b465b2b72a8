"""How alike the codes of parts are: within a whole, and between wholes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EPSILON = 1e-8


class Similarities(NamedTuple):
    """Cosine similarities in [-1, 1], each pair of parts once.

    Attributes:
        same: Of parts of the same whole, ``(wholes · parts · (parts - 1) / 2,)``.
        different: Of parts of different wholes, ``(wholes · (wholes - 1) / 2 · parts²,)``.
    """

    same: np.ndarray
    different: np.ndarray


def unit_length(codes: np.ndarray) -> np.ndarray:
    """Return codes ``(..., size)`` divided by their Euclidean norm, float64; a code of zeros stays zero."""
    codes = np.asarray(codes, np.float64)
    return codes / (np.linalg.norm(codes, axis=-1, keepdims=True) + EPSILON)


def similarities(codes: np.ndarray) -> Similarities:
    """Compare every part with every other one (Feng et al. 2020, Section 3.3, there for 100 random pairs each).

    Args:
        codes: ``(wholes, parts, size)`` of any length.
    """
    wholes, parts, size = codes.shape
    units = unit_length(codes).reshape(wholes * parts, size)
    first, second = np.triu_indices(wholes * parts, k=1)
    values = (units @ units.T)[first, second]
    within = first // parts == second // parts
    return Similarities(values[within], values[~within])
