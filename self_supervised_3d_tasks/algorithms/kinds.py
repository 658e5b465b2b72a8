"""What some kinds of pretext tasks have beyond the contract of all; a task derives from as many kinds as it is of."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.limits import Share
from self_supervised_3d_tasks.ops import patches

FILLED = 0.95  # of a part is tissue, so that no outline shows


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


class TurningAlgorithm(Algorithm):
    """A pretext task that turns scans, which what was done to their axes beforehand must not give away.

    Attributes:
        kept_apart: What `keep_apart` left out and why, for the plan; "" for nothing.
    """

    kept_apart = ""

    @abc.abstractmethod
    def keep_apart(self, pairs: Collection[tuple[int, int]], axes: Collection[int]) -> None:
        """Offer no turn that the preparation of the scans tells from another.

        Args:
            pairs: Axes that differ in spacing, resampling or padding, the lower first: turns must not exchange them.
            axes: Axes that are padded by more on one side than on the other: turns must not reverse them.

        Raises:
            UserError: No turn is left.
        """


@dataclass(kw_only=True, eq=False)
class SelectiveAlgorithm(Algorithm):
    """A pretext task about parts of a scan, which an empty part would give away: such scans do not count.

    Air or border shows in a patch where the patch comes from: a network that looks at the outline of the body alone
    solves a puzzle of it, without a look at the anatomy. A scan counts where every part that is shown is filled; the
    target of one that does not is -1, its loss 0, and no metric sees it but "complete", the share of scans that count.

    Args:
        min_foreground: A part is filled with at least this share of tissue, see `patches.filled_share`. 0: all are.
            With 0.8 the slivers of air at the corners of a puzzle of noise in a ball still told its order.
    """

    # What is not learned from a scan that does not count, and whether that is everything; no keys.
    lost = "nothing is learned from them"
    all_is_lost = True

    min_foreground: Share = FILLED

    @property
    def is_lenient(self) -> bool:
        """Whether scans count that show air in a part."""
        return self.min_foreground < FILLED

    def strict(self) -> SelectiveAlgorithm:
        """Return this task, but with no scan that counts by its outline."""
        return dataclasses.replace(self, min_foreground=max(self.min_foreground, FILLED))

    def filled(self, parts: Any) -> Any:
        """Return which parts ``(number, *spatial, channels)`` in [0, 1] are filled, ``(number,)`` booleans."""
        if self.min_foreground == 0:
            return tf.ones(tf.shape(parts)[:1], tf.bool)  # without a look at them
        return patches.filled_share(parts) >= self.min_foreground

    def only_if_filled(self, target: Any, parts: Any) -> Any:
        """Return the target of an example, or -1 in all of it where one of its parts is not filled."""
        return tf.where(tf.reduce_all(self.filled(parts)), target, tf.cast(-1, target.dtype))

    def complete(self, y_true: Any, y_pred: Any) -> Any:
        """Return 1.0 for a scan that counts, else 0.0: ``(batch,)``."""
        targets = keras.ops.reshape(y_true, (keras.ops.shape(y_true)[0], -1))
        return keras.ops.cast(keras.ops.min(targets, axis=1) >= 0, "float32")

    def counts(self, target: Any) -> bool:
        """Return whether the scan of one example's target, a numpy array, counts."""
        return bool(np.min(target) >= 0)

    def warnings(self, targets: Sequence[Any], strict_targets: Sequence[Any] = ()) -> list[str]:
        """Return what speaks against training on scans like these, one message each; told before the first step.

        Args:
            targets: The targets of a few training examples (not of batches), as numpy arrays.
            strict_targets: Those of the same examples of the `strict` task.

        Raises:
            UserError: Nothing could be learned from any of them.
        """
        number, counted = len(targets), sum(map(self.counts, targets))
        found = []
        if strict_targets and (more := counted - sum(map(self.counts, strict_targets))) > 0:
            found.append(
                f"min_foreground: {more} of the first {number} training scans count at {self.min_foreground:g} that do "
                f"not at {FILLED:g}: air shows in some part of them, and the outline of the body helps to tell the "
                "answer without the anatomy. Raise it as far as enough scans count, see foreground_crop too"
            )
        if 2 * counted >= number:
            return found
        message = (
            f"min_foreground: {counted} of the first {number} training scans have at least {self.min_foreground:.0%} "
            f"tissue (above {patches.FOREGROUND:.0%} of the range) in every part; the others show by their "
            f"outline where a part lies, and {self.lost}. Cut off the background (foreground_crop, "
            "volume_fitting), choose an intensity_window in which the tissue is brighter, or reduce min_foreground: "
            "to 0 to count every scan"
        )
        if counted == 0 and self.all_is_lost:
            raise UserError(message)
        return [*found, message]
