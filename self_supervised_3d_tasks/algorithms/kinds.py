"""What some kinds of pretext tasks have beyond the contract of all; a task derives from as many kinds as it is of."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.classification import categorical_crossentropy
from self_supervised_3d_tasks.models import heads


class ClassifyingAlgorithm(Algorithm):
    """A pretext task that asks for one class of each scan, or of each of several queries of it."""

    top_architecture: str
    """The head: "big_fully", an MLP, or "softmax", one Dense layer."""

    head_units: tuple[int, ...]
    """Widths of the MLP's hidden layers."""

    dropout_rate: float
    """Dropout rate of the MLP."""

    num_classes: int
    """Number of classes."""

    def logits(self, codes: Any, *, seed: int) -> Any:
        """Return the head's logits ``(rows, num_classes)``, float32, from codes ``(rows, ..., size)``."""
        if self.top_architecture == "softmax":
            return heads.softmax(codes, self.num_classes, seed=seed)
        widths, rate = self.head_units, self.dropout_rate
        return heads.big_fully(codes, self.num_classes, head_units=widths, dropout_rate=rate, seed=seed)

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return the cross-entropy of the class from logits, ``(batch,)``, a mean over queries where there are any.

        It is log(number of classes) before training.
        """
        return categorical_crossentropy(y_true, y_pred)

    def metrics(self) -> list[Any]:
        """Return the share of classes that are recognised."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return the accuracy of a guess, 1 / number of classes."""
        return {"accuracy": 1 / self.num_classes}


class ComparingAlgorithm(Algorithm):
    """A pretext task that compares codes, whose collapse would make its loss meaningless and is therefore watched."""

    def codes(self, model: keras.Model) -> dict[str, Any]:
        """Return by name the codes that are compared: by default the output of the layer "code".

        Args:
            model: The model of `make_model`.

        Returns:
            Symbolic tensors of ``model``, ``(batch, ..., size)``. One whose name ends in "_pooled" is measured but not
            judged: means of positive values always have a low spread.
        """
        return {"codes": model.get_layer("code").output}


class ScheduledAlgorithm(Algorithm):
    """A pretext task whose loss changes in the course of a training.

    Losses of different epochs cannot be compared: none is the best, and the weights of the last epoch are kept.
    """

    @abc.abstractmethod
    def callbacks(self, model: keras.Model, epochs: int) -> list[keras.callbacks.Callback]:
        """Return the Keras callbacks that set the variables of the model which the loss depends on.

        Args:
            model: The model of `make_model`.
            epochs: Number of epochs of the whole training.
        """


class SelectiveAlgorithm(Algorithm):
    """A pretext task that does not learn from every scan."""

    @abc.abstractmethod
    def warnings(self, targets: Sequence[Any]) -> list[str]:
        """Return what speaks against training on scans like these, one message each; told before the first step.

        Args:
            targets: The targets of a few training examples (not of batches), as numpy arrays.
        """
