"""A contrastive loss that is measured but never trained: does restoring teach the encoder to tell wholes apart?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.analysis.collapse import unit_length

special = lazy.load("scipy.special")

TEMPERATURE = 0.7
MAX_NEGATIVES = 5000


class Probe(NamedTuple):
    """Result of `contrastive_probe`.

    Attributes:
        value: Mean cross-entropy in nats; lower is better.
        chance: What codes reach that are all alike, log(1 + negatives).
        negatives: Parts of other wholes that each part is compared with.
        pairs: Pairs (part, other part of its whole) that were averaged over.
    """

    value: float
    chance: float
    negatives: int
    pairs: int


def contrastive_probe(
    codes: np.ndarray, *, temperature: float = TEMPERATURE, max_negatives: int = MAX_NEGATIVES, seed: int = 0
) -> Probe:
    """Return the cross-entropy of finding another part of the same whole among parts of others.

    Feng et al. 2020, footnote 3: -log(exp(p·p'/τ) / (exp(p·p'/τ) + Σ exp(p·n/τ))) with unit-length codes. Every part
    is compared with all others of its whole in turn, and with all parts of all other wholes where there are no more
    than ``max_negatives``, or else with as many of them, drawn for each whole.

    Args:
        codes: ``(wholes, parts, size)`` of any length, two wholes and two parts at least.
        temperature: τ.
        max_negatives: The paper's number.
        seed: Of the draw.
    """
    wholes, parts, size = codes.shape
    units = unit_length(codes).reshape(wholes * parts, size)
    owner = np.arange(wholes * parts) // parts
    negatives = min(max_negatives, (wholes - 1) * parts)
    others = ~np.eye(parts, dtype=bool)
    rng = np.random.default_rng(seed)
    total = 0.0
    for whole in range(wholes):
        own, foreign = units[owner == whole], np.flatnonzero(owner != whole)
        if len(foreign) > negatives:
            foreign = rng.choice(foreign, negatives, replace=False)
        against = special.logsumexp(own @ units[foreign].T / temperature, axis=1)
        positives = own @ own.T / temperature
        total += float((np.logaddexp(positives, against[:, None]) - positives)[others].sum())
    pairs = wholes * parts * (parts - 1)
    return Probe(total / pairs, math.log(1 + negatives), negatives, pairs)
