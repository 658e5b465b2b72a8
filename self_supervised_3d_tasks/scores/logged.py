"""Keras metrics while training, from logits, one value per sample.

A class that is absent from truth and prediction counts as 1, as it does in the scores of finished cases (see
`segmentation`); unlike there, a mean is over all classes of the task.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses import segmentation as losses
from self_supervised_3d_tasks.scores.base import chosen
from self_supervised_3d_tasks.scores.segmentation import BRATS_REGIONS
from self_supervised_3d_tasks.shapes import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
"""``(y_true, y_pred) -> (batch,)``; Keras calls the column by the function's ``__name__``."""


def known(task: str, outputs: Sequence[str], *, multilabel: bool = False) -> dict[str, list[Metric]]:
    """Return for each name that a task may ask for the metrics that it stands for.

    ``weighted_dice_coefficient_per_class_pancreas`` stands for ``dice_class_0``, …, one per class, and
    ``brats_metrics`` for ``brats_wt``, ``brats_tc`` and ``brats_et``, which need four classes. Both compare the most
    probable classes.

    Args:
        task: ``"segmentation"``, ``"classification"`` or ``"findings"``.
        outputs: Names of the classes, background included, or of the findings.
        multilabel: The classes are ordered, and the targets cumulative.
    """
    if task == "findings":
        return {"accuracy": [findings_accuracy]}
    if task == "classification":
        return {"accuracy": [ordinal_accuracy if multilabel else accuracy]}
    regions = [dice_metric(name, labels) for name, labels in BRATS_REGIONS.items()]
    per_class = [dice_metric(f"dice_class_{label}", (label,)) for label in range(len(outputs))]
    return {
        "accuracy": [accuracy],
        "weighted_dice_coefficient": [weighted_dice_coefficient],
        "weighted_dice_coefficient_per_class_pancreas": per_class,
    } | ({"brats_metrics": regions} if len(outputs) > max(BRATS_REGIONS["brats_wt"]) else {})


def find(task: str, names: Iterable[str], outputs: Sequence[str], *, multilabel: bool = False) -> list[Metric]:
    """Return the metrics that ``names`` ask for.

    Args:
        task: See `known`.
        names: What the experiment file gives as ``metrics``.
        outputs: See `known`.
        multilabel: See `known`.

    Raises:
        UserError: No metric of the task has that name.
    """
    found = chosen("metric", names, known(task, outputs, multilabel=multilabel), task, outputs)
    return [metric for metrics in found for metric in metrics]


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the share of each sample's voxels whose most probable class is the true one, ``(batch,)``.

    Args:
        y_true: Labels ``(batch, *spatial)``, or classes ``(batch,)``.
        y_pred: Logits ``(batch, *spatial, num_classes)``.
    """
    hits = keras.ops.equal(keras.ops.argmax(y_pred, axis=-1), keras.ops.cast(y_true, "int32"))
    axes = tuple(range(1, len(hits.shape)))
    hits = keras.ops.cast(hits, "float32")
    return keras.ops.mean(hits, axis=axes) if axes else hits


def ordinal_accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return 1 where the decoded grade is the true one, else 0, ``(batch,)``.

    Args:
        y_true: Cumulative targets ``(batch, num_classes)``.
        y_pred: Logits of that shape; one above 0 is a probability above 0.5.
    """
    truth = _leading(keras.ops.greater(keras.ops.cast(y_true, "float32"), 0.5))
    prediction = _leading(keras.ops.greater(keras.ops.cast(y_pred, "float32"), 0.0))
    return keras.ops.cast(keras.ops.equal(truth, prediction), "float32")


def findings_accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the share of each scan's findings that are rightly told to be there (logit above 0) or not, ``(batch,)``.

    Args:
        y_true: 0 or 1, ``(batch, num_findings)``.
        y_pred: Logits of that shape.
    """
    right = keras.ops.equal(keras.ops.cast(y_true, "float32") > 0.5, keras.ops.cast(y_pred, "float32") > 0.0)
    return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)


ordinal_accuracy.__name__ = findings_accuracy.__name__ = "accuracy"  # the key and the column of all tasks


def weighted_dice_coefficient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the mean soft Dice over all classes, ``(batch,)``: 1 − `losses.weighted_dice_loss`."""
    return 1 - losses.weighted_dice_loss(y_true, y_pred)


def dice_metric(name: str, labels: Sequence[int]) -> Metric:
    """Return a metric called ``name``: the Dice of the union of ``labels`` in each sample."""

    def metric(y_true: Tensor, y_pred: Tensor) -> Tensor:
        truth = _union(keras.ops.cast(y_true, "int32"), labels)
        prediction = _union(keras.ops.argmax(y_pred, axis=-1), labels)
        voxels = tuple(range(1, len(y_true.shape)))
        intersection = keras.ops.sum(truth * prediction, axis=voxels)
        total = keras.ops.sum(truth + prediction, axis=voxels)
        return (2 * intersection + losses.SMOOTH) / (total + losses.SMOOTH)

    metric.__name__ = name
    return metric


def weighted_mean(name: str, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """Return a `keras.metrics.Metric`: a mean over samples of which some count more than others, or not at all.

    Keras gives every sample the same weight where a metric is a function.

    Args:
        name: Name of the metric.
        function: ``(y_true, y_pred) -> (values, weights)``, each ``(batch,)``. The metric is Σwv / Σw over all
            samples, and 0 before any has a weight.
    """
    return _weighted_mean_class()(name, function)


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


def _leading(passed: Tensor) -> Tensor:
    """Return how many of ``(batch, num_classes)`` are true before the first that is not, at least 1: no grade is -1."""
    leading = keras.ops.sum(keras.ops.cumprod(keras.ops.cast(passed, "float32"), axis=-1), axis=-1)
    return keras.ops.maximum(leading, 1.0)


def _union(label_map: Tensor, labels: Sequence[int]) -> Tensor:
    """Return 1.0 where the label is one of ``labels``, else 0.0."""
    members = [keras.ops.cast(keras.ops.equal(label_map, label), "float32") for label in labels]
    return functools.reduce(operator.add, members)
