"""Averages of predictions: over models, and over a scan and its mirror images."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np

from self_supervised_3d_tasks.inference.windows import Predict


def mean_of(predicts: Sequence[Predict]) -> Predict:
    """Return the function that gives the mean of what several functions predict of a batch."""

    def predict(batch: np.ndarray) -> np.ndarray:
        return _mean((each(batch) for each in predicts), len(predicts))

    return predict if len(predicts) > 1 else predicts[0]


def mirrored(
    predict: Predict, axes: Sequence[int], *, swaps: Sequence[tuple[int, int]] = (), left_right_axis: int = 0
) -> Predict:
    """Return the function that gives the mean prediction of a batch under all flips of some axes, each flipped back.

    Args:
        predict: From ``(batch, *spatial, channels)`` to ``(batch, *spatial, num_classes)`` or ``(batch, num_outputs)``.
        axes: The spatial axes, from 0.
        swaps: Pairs of classes that are exchanged where ``left_right_axis`` is flipped: paired organs.
        left_right_axis: The spatial axis from left to right.
    """

    def average(batch: np.ndarray) -> np.ndarray:
        found = (_unmirrored(predict, batch, flips, swaps, left_right_axis) for flips in every)
        return _mean(found, len(every))

    every = list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))
    return average if axes else predict


def _unmirrored(
    predict: Predict, batch: np.ndarray, flips: Sequence[int], swaps: Sequence[tuple[int, int]], left_right_axis: int
) -> np.ndarray:
    axes = [axis + 1 for axis in flips]
    values = np.asarray(predict(np.ascontiguousarray(np.flip(batch, axes))))
    if values.ndim == batch.ndim:
        values = np.flip(values, axes)
    if left_right_axis in flips and swaps:
        classes = np.arange(values.shape[-1])
        for one, other in swaps:
            classes[[one, other]] = other, one
        values = values[..., classes]
    return values


def _mean(values: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Return the mean of as many arrays, two of which exist at once."""
    total = np.array(next(values), np.float32)
    for each in values:
        total += each
    total /= np.float32(count)
    return total
