"""Pretext tasks that ask for a class."""

from dataclasses import dataclass
from typing import Any, Literal

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import ShareBelowOne
from self_supervised_3d_tasks.losses.classification import categorical_crossentropy
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.scores import logged


@dataclass(kw_only=True, eq=False)
class ClassifyingAlgorithm(Algorithm):
    """A pretext task that asks for one of ``num_classes`` classes of each scan, or of each of several queries of it.

    Args:
        top_architecture: Head on the codes: "big_fully", an MLP, or "softmax", one Dense layer.
        head_units: Widths of the MLP's hidden layers.
        normalization: Normalization of the MLP's hidden layers, see `heads.big_fully`; the key is the encoder's too.
        dropout_rate: Dropout rate of the MLP.
    """

    top_architecture: Literal["big_fully", "softmax"] = "big_fully"
    head_units: heads.HiddenLayers = (2048, 1024)
    normalization: Normalization | None = None
    dropout_rate: ShareBelowOne = 0.5

    def __post_init__(self) -> None:
        """Ask for batches that the head can normalize."""
        if self.top_architecture == "big_fully":
            self.sampling = heads.sampling(self.sampling, self.normalization)

    def logits(self, codes: Any, *, seed: int) -> Any:
        """Return the head's logits ``(rows, num_classes)``, float32, from codes ``(rows, ..., size)``."""
        if self.top_architecture == "softmax":
            return heads.softmax(codes, self.num_classes, seed=seed)
        options = {"head_units": self.head_units, "normalization": self.normalization}
        return heads.big_fully(codes, self.num_classes, **options, dropout_rate=self.dropout_rate, seed=seed)

    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return the cross-entropy of the class from logits, ``(batch,)``, a mean over queries where there are any.

        It is log(number of classes) before training. A target of -1 asks for nothing: 0.
        """
        return categorical_crossentropy(keras.ops.maximum(y_true, 0), y_pred) * self._asked(y_true)

    def metrics(self) -> list[Any]:
        """Return the share of classes that are recognised."""
        return [logged.weighted_mean("accuracy", self._hits)]

    def _hits(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Return the share of each scan's queries that are answered right, and whether any was asked: ``(batch,)``."""
        return logged.accuracy(y_true, y_pred), self._asked(y_true)

    def _asked(self, y_true: Any) -> Any:
        asked = keras.ops.cast(y_true >= 0, "float32")
        return keras.ops.min(asked, axis=1) if len(asked.shape) > 1 else asked

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return the accuracy of a guess, 1 / number of classes."""
        return {"accuracy": 1 / self.num_classes}
