"""Pretext tasks that ask for a class."""

from dataclasses import dataclass
from typing import Any, Literal

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.classification import categorical_crossentropy
from self_supervised_3d_tasks.models import heads


@dataclass(kw_only=True, eq=False)
class ClassifyingAlgorithm(Algorithm):
    """A pretext task that asks for one of ``num_classes`` classes of each scan, or of each of several queries of it.

    Args:
        top_architecture: Head on the codes: "big_fully", an MLP, or "softmax", one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        dropout_rate: Dropout rate of the MLP.
    """

    top_architecture: Literal["big_fully", "softmax"] = "big_fully"
    head_units: tuple[heads.Units, ...] = (2048, 1024)
    dropout_rate: heads.Rate = 0.5

    def logits(self, codes: Any, *, seed: int) -> Any:
        """Return the head's logits ``(rows, num_classes)``, float32, from codes ``(rows, ..., size)``."""
        if self.top_architecture == "softmax":
            return heads.softmax(codes, self.num_classes, seed=seed)
        options = {"head_units": self.head_units, "dropout_rate": self.dropout_rate}
        return heads.big_fully(codes, self.num_classes, **options, seed=seed)

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
