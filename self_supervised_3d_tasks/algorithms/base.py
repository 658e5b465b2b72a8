"""What a pretext task has to provide."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops.sampling import Sampling


class Panel(NamedTuple):
    """One picture of a preview sheet.

    Attributes:
        title: What the picture shows, in a few words.
        image: The picture, ``(*spatial, channels)``.
    """

    title: str
    image: np.ndarray


@dataclass(eq=False)
class Algorithm(abc.ABC):
    """A pretext task.

    A subclass declares its hyper-parameters as keyword-only fields (or as keyword-only parameters of a constructor of
    its own): they are the JSON keys of the task, with their types and defaults. What it makes of them beforehand, in
    ``__post_init__`` and in properties, is plain Python, so that an experiment file can be checked before TensorFlow is
    loaded. What only some tasks have is in `classifying`, `kinds`, `patch_tasks` and `restoring`.

    Args:
        input_shape: ``(*spatial, channels)`` of a scan.
    """

    input_shape: tuple[int, ...]

    # How scans are drawn for the task and put into batches; no annotation, which would make it a key.
    sampling = Sampling()

    @property
    def name(self) -> str:
        """The task's name in an experiment file: that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """``(*spatial)`` of a scan."""
        return self.input_shape[:-1]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.input_shape) - 1

    @property
    def encoder_shape(self) -> tuple[int | None, ...]:
        """``(*spatial, channels)`` of what the encoder sees, such as a patch; None for a size that varies."""
        return self.input_shape

    @abc.abstractmethod
    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[Any, Any]:
        """Turn a scan into inputs and targets, the same for the same seed; runs in a `tf.data` graph.

        It is traced as written, without AutoGraph: what depends on a tensor is chosen by `tf.where` or `tf.cond`.
        A task whose `sampling` asks for companions takes their images after the seed.

        Args:
            image: ``(*spatial, channels)`` float32 in [0, 1].
            seed: ``(2,)`` int32.

        Returns:
            Tensors of known shape, or dictionaries of them.
        """

    @abc.abstractmethod
    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return the functional model from a batch of inputs to what `loss` and `metrics` read.

        Args:
            encoder: The encoder for `encoder_shape`, which stays one layer of the model, called "encoder".
            seed: Seed of the initial weights and of the dropout of the layers that are added.
        """

    @abc.abstractmethod
    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return one float32 value per scan, ``(batch,)``, from the targets and the model's output."""

    @abc.abstractmethod
    def metrics(self) -> list[Any]:
        """Return fresh metrics (or functions ``(y_true, y_pred) -> (batch,)``) for `keras.Model.compile`."""

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return by name of a metric what the best answer reaches that does not look at the scan.

        Args:
            scans_per_step: Number of scans in a batch, which matters where candidates come from the batch.
        """
        return {}

    @abc.abstractmethod
    def describe(self, inputs: Any, targets: Any) -> list[Panel]:
        """Return pictures that show what was done to a scan.

        Args:
            inputs: The inputs of one example (not of a batch), as numpy arrays.
            targets: The targets of that example, as numpy arrays.
        """

    def settings(self) -> dict[str, Any]:
        """Return what defines the task beyond its keys, as JSON has it; kept in the run folder as ``task.json``."""
        return {}
