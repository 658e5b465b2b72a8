"""Metrics while training (from logits, per sample) and scores of a finished case (from label maps).

They treat a class that is absent from truth and prediction differently, on purpose. A training metric counts
it as 1: the curve needs a number for every batch. A score is NaN: the tables leave it out of the means and
say how often it happened.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses import segmentation as segmentation_losses
from self_supervised_3d_tasks.scores import classification as classification_scores
from self_supervised_3d_tasks.shapes import Tensor

# BraTS with the enhancing tumour's label 4 stored as 3: 1 necrotic core, 2 oedema, 3 enhancing tumour.
BRATS_REGIONS = {"brats_wt": (1, 2, 3), "brats_tc": (1, 3), "brats_et": (3,)}
METRICS = (
    "accuracy",
    "weighted_dice_coefficient",
    "weighted_dice_coefficient_per_class_pancreas",
    "brats_metrics",
)
CLASSIFICATION_METRICS = ("accuracy",)
# "dice_class" stands for one score per foreground class.
SCORES = ("dice", "jaccard", "dice_class", "dice_class_K", "dice_pancreas_K", *BRATS_REGIONS)
_DICE_OF_CLASS = re.compile(r"dice_(?:class|pancreas)_(\d+)")


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the share of each sample's voxels whose most probable class is the true one, ``(batch,)``."""
    hits = keras.ops.equal(keras.ops.argmax(y_pred, axis=-1), keras.ops.cast(y_true, "int32"))
    axes = tuple(range(1, len(hits.shape)))
    hits = keras.ops.cast(hits, "float32")
    return keras.ops.mean(hits, axis=axes) if axes else hits


def weighted_dice_coefficient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the mean soft Dice over all classes, ``(batch,)``: 1 − `segmentation_losses.weighted_dice_loss`."""
    return 1 - segmentation_losses.weighted_dice_loss(y_true, y_pred)


def get(name: str, *, num_classes: int) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Return the training metrics behind ``name``, each a function ``(y_true, y_pred) -> (batch,)``.

    Args:
        name: One of `METRICS`. ``weighted_dice_coefficient_per_class_pancreas`` gives ``dice_class_0``, …,
            one per class; ``brats_metrics`` gives ``brats_wt``, ``brats_tc`` and ``brats_et``. Both compare
            the most probable classes.
        num_classes: Classes, background included.

    Raises:
        UserError: Unknown name, or BraTS regions with fewer than four classes.
    """
    if name == "accuracy":
        return [accuracy]
    if name == "weighted_dice_coefficient":
        return [weighted_dice_coefficient]
    if name == "weighted_dice_coefficient_per_class_pancreas":
        return [_dice_metric(f"dice_class_{label}", (label,)) for label in range(num_classes)]
    if name == "brats_metrics":
        _check_labels(name, max(BRATS_REGIONS["brats_wt"]), num_classes, key="metrics")
        return [_dice_metric(region, labels) for region, labels in BRATS_REGIONS.items()]
    known = ", ".join(METRICS)
    raise UserError(f"metrics: no metric is called {name!r}; known: {known}.{nearest(name, METRICS)}")


def get_for_classification(name: str, *, multilabel: bool = False) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Return the training metrics of a classification behind ``name``, each ``(y_true, y_pred) -> (batch,)``.

    Args:
        name: One of `CLASSIFICATION_METRICS`. ``accuracy`` compares the most probable class with the true one.
        multilabel: Target and logits are ordinal, ``(batch, num_classes)``: ``accuracy`` compares the decoded grades
            (see `classification_scores.ordinal_decode`).

    Raises:
        UserError: Unknown name, or a metric of segmentation.
    """
    if name in CLASSIFICATION_METRICS:
        return [_ordinal_accuracy() if multilabel else accuracy]
    known = ", ".join(CLASSIFICATION_METRICS)
    if name in METRICS:
        raise UserError(f"metrics: {name} is a metric of segmentation, not of classification; known: {known}")
    raise UserError(f"metrics: no metric is called {name!r}; known: {known}.{nearest(name, CLASSIFICATION_METRICS)}")


def get_for_findings(name: str) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Return the training metrics of findings behind ``name``, each ``(y_true, y_pred) -> (batch,)``.

    Args:
        name: One of `CLASSIFICATION_METRICS`. ``accuracy`` is the share of a scan's findings that are rightly told to
            be there (logit above 0) or not.

    Raises:
        UserError: Any other name.
    """
    if name in CLASSIFICATION_METRICS:
        return [_findings_accuracy()]
    known = ", ".join(CLASSIFICATION_METRICS)
    raise UserError(
        f"metrics: {name!r} is no metric of findings; known: {known}.{nearest(name, CLASSIFICATION_METRICS)}"
    )


def weighted_mean(name: str, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """Return a `keras.metrics.Metric`: a mean over samples of which some count more than others, or not at all.

    Keras gives every sample the same weight where a metric is a function.

    Args:
        name: Of the metric.
        function: ``(y_true, y_pred) -> (values, weights)``, each ``(batch,)``. The metric is Σwv / Σw over all
            samples, and 0 before any has a weight.
    """
    return _weighted_mean_class()(name, function)


def score(name: str, truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> float:
    """Score one case.

    Args:
        name: ``dice`` or ``jaccard`` (mean over the foreground classes), ``dice_class_K`` or
            ``dice_pancreas_K`` (Dice of label K), ``brats_wt`` / ``brats_tc`` / ``brats_et`` (Dice of the
            whole tumour, labels 1, 2, 3; of its core, labels 1, 3; of the enhancing tumour, label 3).
        truth: Integer labels ``(*spatial,)``.
        prediction: Integer labels of the same shape.
        num_classes: Classes, background included.

    Returns:
        The score in [0, 1]. A class in neither map is NaN and does not count in a mean; a class in one map
        only scores 0.

    Raises:
        UserError: Unknown name.
        ValueError: The shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"score: expected equal shapes, received {truth.shape} and {prediction.shape}")
    if name in ("dice", "jaccard"):
        overlap = _dice if name == "dice" else _jaccard
        values = [overlap(truth == label, prediction == label) for label in range(1, num_classes)]
        present = [value for value in values if not math.isnan(value)]
        return float(np.mean(present)) if present else math.nan
    labels = _labels(name, num_classes)
    return _dice(np.isin(truth, labels), np.isin(prediction, labels))


def expand(names: Iterable[str], num_classes: int) -> list[str]:
    """Return the scores that ``names`` ask for, without repetition.

    ``dice_class`` gives one score per foreground class.

    Raises:
        UserError: Unknown name, or a label that ``num_classes`` does not have.
    """
    expanded: dict[str, None] = {}
    for name in names:
        if name == "dice_class":
            expanded |= {f"dice_class_{label}": None for label in range(1, num_classes)}
            continue
        if name not in ("dice", "jaccard"):
            _labels(name, num_classes)
        expanded[name] = None
    return list(expanded)


def _labels(name: str, num_classes: int) -> tuple[int, ...]:
    """Return the labels whose union the score ``name`` compares."""
    match = _DICE_OF_CLASS.fullmatch(name)
    if match is None and name not in BRATS_REGIONS:
        known = ", ".join(SCORES)
        if name in classification_scores.SCORES:
            raise UserError(f"scores: {name} is a score of classification, not of segmentation; known: {known}")
        raise UserError(f"scores: no score is called {name!r}; known: {known}.{nearest(name, SCORES)}")
    labels = (int(match[1]),) if match else BRATS_REGIONS[name]
    _check_labels(name, max(labels), num_classes, key="scores")
    return labels


def _check_labels(name: str, largest: int, num_classes: int, *, key: str) -> None:
    if largest >= num_classes:
        raise UserError(
            f"{key}: {name} needs label {largest}, but num_classes is {num_classes}; remove it or add classes"
        )


@functools.cache
def _weighted_mean_class() -> type:
    """Return the class behind `weighted_mean`, which is made when it is first needed: its base is of Keras."""

    class WeightedMean(keras.metrics.Mean):
        def __init__(self, name: str, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
            super().__init__(name=name)
            self._function = function

        def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
            values, weights = self._function(y_true, y_pred)
            super().update_state(values, weights if sample_weight is None else weights * sample_weight)

    return WeightedMean


def _ordinal_accuracy() -> Callable[[Tensor, Tensor], Tensor]:
    """Return the metric that Keras is to call "accuracy" for ordinal targets."""

    def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
        truth = _leading(keras.ops.greater(keras.ops.cast(y_true, "float32"), 0.5))
        prediction = _leading(keras.ops.greater(keras.ops.cast(y_pred, "float32"), 0.0))  # a logit of 0 is 0.5
        return keras.ops.cast(keras.ops.equal(truth, prediction), "float32")

    return accuracy


def _findings_accuracy() -> Callable[[Tensor, Tensor], Tensor]:
    """Return the metric that Keras is to call "accuracy" for independent outputs."""

    def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
        right = keras.ops.equal(keras.ops.cast(y_true, "float32") > 0.5, keras.ops.cast(y_pred, "float32") > 0.0)
        return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)

    return accuracy


def _leading(passed: Tensor) -> Tensor:
    """Return how many of ``(batch, num_classes)`` are true before the first that is not, at least 1: no grade is -1."""
    leading = keras.ops.sum(keras.ops.cumprod(keras.ops.cast(passed, "float32"), axis=-1), axis=-1)
    return keras.ops.maximum(leading, 1.0)


def _dice_metric(name: str, labels: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a metric called ``name``: the Dice of the union of ``labels`` in each sample."""

    def metric(y_true: Tensor, y_pred: Tensor) -> Tensor:
        truth = _union(keras.ops.cast(y_true, "int32"), labels)
        prediction = _union(keras.ops.argmax(y_pred, axis=-1), labels)
        voxels = tuple(range(1, len(y_true.shape)))
        intersection = keras.ops.sum(truth * prediction, axis=voxels)
        total = keras.ops.sum(truth + prediction, axis=voxels)
        return (2 * intersection + segmentation_losses.SMOOTH) / (total + segmentation_losses.SMOOTH)

    metric.__name__ = name
    return metric


def _union(label_map: Tensor, labels: tuple[int, ...]) -> Tensor:
    """Return 1.0 where the label is one of ``labels``, else 0.0."""
    members = [keras.ops.cast(keras.ops.equal(label_map, label), "float32") for label in labels]
    return functools.reduce(operator.add, members)


def _dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    total = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(truth & prediction) / total if total else math.nan


def _jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else math.nan
