"""Collapse: codes that no longer tell one input from another, which a falling loss does not show.

Two numbers, because either can be blind. Codes that all became one vector have no spread. Codes that lie in a few
directions keep all of their spread where batch normalization stretches every dimension again, but not their rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.triplet import LEAST_SQUARED_NORM
from self_supervised_3d_tasks.training.graphs import leave_uncompiled

MIN_SPREAD = 0.3  # of 1, that of codes in all directions alike
MIN_RANK_SHARE = 0.2  # of the largest possible rank
ONE_DIRECTION = 1.5  # a rank below it: all codes lie about a line
KEPT = 0.5  # of the highest value so far: what falls further is a collapse, if it is low too
PATIENCE = 5  # epochs that codes which were narrow, or about a line, from the start on have to spread out
UNJUDGED = "_pooled"  # how names of means of positive values end: a low spread is their nature
_WARNING = (
    "%s: collapsed in epoch %d. Their spread is %.2g (0: all alike, 1: in all directions alike), their rank %.1f of at "
    "most %d, over %d codes of validation scans: they hardly tell one input from another, however low the loss is. "
    "Lower lr, enlarge batch_size, or change normalization; a siamese task also needs its stop-gradient, and the batch "
    "normalization of its projection and predictor"
)
_LEAST_VARIANCE = 1e-12  # of unit vectors; what differs by less differs by the rounding of float32


def effective_rank(codes: np.ndarray) -> float:
    """Return how many directions the codes use: the exponential of the entropy of their variances.

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality", of the covariance of the codes
    at unit length: with its eigenvalues λ scaled to a sum of 1, exp(-Σ λ log λ).

    Args:
        codes: The codes of n inputs, ``(n, d)``.

    Returns:
        A number that is 1 where all codes lie on one line, and at most min(d, n - 1). It is 0 where they do not differ,
        and NaN where there are fewer than two or one is not finite.
    """
    if not _measurable(codes):
        return float("nan")
    unit = unit_length(codes)
    centred = unit - unit.mean(axis=0)
    # Both products have the same eigenvalues but for zeros; the smaller one is quicker.
    product = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    variances = np.maximum(np.linalg.eigvalsh(product), 0.0) / len(centred)
    total = variances.sum()
    if total < _LEAST_VARIANCE:
        return 0.0
    shares = variances[variances > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def spread(codes: np.ndarray) -> float:
    """Return the standard deviation of the codes at unit length, averaged over dimensions, times sqrt(d).

    Chen and He 2021, "Exploring Simple Siamese Representation Learning", section 4.1.

    Args:
        codes: The codes of n inputs, ``(n, d)``.

    Returns:
        A number that is about 1 for codes in all directions alike, which is the most. It is 0 where they do not differ,
        and NaN where there are fewer than two or one is not finite.
    """
    if not _measurable(codes):
        return float("nan")
    return float(np.mean(np.std(unit_length(codes), axis=0)) * np.sqrt(codes.shape[1]))


def unit_length(codes: np.ndarray) -> np.ndarray:
    """Return codes ``(..., size)`` at unit length, float64: what `losses.triplet.unit_length` does in a training."""
    codes = np.asarray(codes, np.float64)
    squared_norm = np.sum(codes**2, axis=-1, keepdims=True)
    return codes / np.sqrt(np.maximum(squared_norm, LEAST_SQUARED_NORM))


class Width(NamedTuple):
    """Both numbers after an epoch: what `effective_rank` and `spread` say of the same codes."""

    rank: float
    spread: float


def is_collapse(epochs: Sequence[Width], possible: int) -> bool:
    """Return whether the last of the epochs so far is that of a collapse, as `CollapseMonitor` describes it.

    Args:
        epochs: What was measured after each epoch so far, the first one first; epochs without numbers are left out.
        possible: The largest possible rank.
    """
    if not epochs or not np.isfinite(epochs[-1]).all():
        return False
    epochs = [width for width in epochs if np.isfinite(width).all()]
    rank, last = epochs[-1]
    if last >= MIN_SPREAD:
        ranks = [width.rank for width in epochs if width.spread >= MIN_SPREAD]
        recent = ranks[-PATIENCE:]
        about_a_line = len(recent) == PATIENCE and max(recent) < ONE_DIRECTION
        return rank < MIN_RANK_SHARE * possible and (about_a_line or rank < KEPT * max(ranks))
    spreads = [width.spread for width in epochs]
    if max(spreads) >= MIN_SPREAD:
        return last < KEPT * max(spreads)
    recent = spreads[-PATIENCE:]
    return len(recent) == PATIENCE and last <= recent[0]


class CollapseMonitor:
    """Measures after every epoch how a task's codes of the validation scans are spread, and warns of a collapse.

    It warns once of a name (again after a resume), but for those that end in `UNJUDGED`, where

    * the spread is below `MIN_SPREAD` and has lost more than half of the highest one, or has been below `MIN_SPREAD`
      all the time and did not rise for `PATIENCE` epochs: networks give like codes to all scans before they are
      trained, with a spread from 0.1 on, so that a low one alone is no fault;
    * the rank is below `MIN_RANK_SHARE` of the largest possible, min(size, codes - 1), and has lost more than half of
      the highest one, or has been below `ONE_DIRECTION` for `PATIENCE` epochs: a low rank from the start on may be all
      that there is to tell, but of whole scans that is more than one number, such as how bright they are. Ranks of
      epochs with a low spread do not count: they are those of noise.

    Args:
        model: The task's model.
        codes: What is measured, by its name: symbolic tensors ``(batch, ..., size)`` of ``model``.
        batches: The batches ``(inputs, targets)``, of which there is an end, and which are the same whenever they are
            gone through.
        max_codes: At most so many codes of a name are measured, the first ones.
        history: The rows of the epochs before a training was resumed.
    """

    def __init__(
        self,
        model: keras.Model,
        codes: Mapping[str, keras.KerasTensor],
        batches: Iterable[tuple[Any, Any]],
        max_codes: int = 512,
        *,
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._model = keras.Model(model.input, dict(codes))
        # A smaller last batch cannot be filled up: codes are normalized over it.
        leave_uncompiled(self._model)
        self._sizes = {name: tensor.shape[-1] for name, tensor in codes.items()}
        self._batches = batches
        self._max_codes = max_codes
        self._past = {
            # A training that began before there was a monitor has no such columns.
            name: [Width(row.get(f"val_rank_{name}", np.nan), row.get(f"val_spread_{name}", np.nan)) for row in history]
            for name in codes
        }
        self._silent = {name for name in codes if name.endswith(UNJUDGED)}  # and those that were warned of

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return ``val_rank_<name>`` and ``val_spread_<name>``.

        Args:
            epoch: The number of the epoch that is over, counted from 1.
        """
        row = {}
        for name, codes in self._measured().items():
            width = Width(effective_rank(codes), spread(codes))
            row |= {f"val_rank_{name}": width.rank, f"val_spread_{name}": width.spread}
            self._past[name].append(width)
            possible = min(codes.shape[1], len(codes) - 1)
            if name not in self._silent and is_collapse(self._past[name], possible):
                self._silent.add(name)
                logging.warning(_WARNING, name, epoch, width.spread, width.rank, possible, len(codes))
        return row

    def _measured(self) -> dict[str, np.ndarray]:
        """Return the codes of inference mode, ``(n, size)``."""
        found = {name: [np.empty((0, size))] for name, size in self._sizes.items()}
        for inputs, *_ in self._batches:
            for name, codes in self._model.predict_on_batch(inputs).items():
                found[name].append(np.asarray(codes, np.float64).reshape(-1, self._sizes[name]))
            if all(sum(map(len, parts)) >= self._max_codes for parts in found.values()):
                break
        return {name: np.concatenate(parts)[: self._max_codes] for name, parts in found.items()}


def _measurable(codes: np.ndarray) -> bool:
    return len(codes) > 1 and bool(np.isfinite(codes).all())
