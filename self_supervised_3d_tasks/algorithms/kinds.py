"""What some kinds of pretext tasks have beyond the contract of all; a task derives from as many kinds as it is of."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.lazy import keras


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
