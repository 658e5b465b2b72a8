"""What a pretext task has to provide."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from self_supervised_3d_tasks.lazy import keras, tf


class Panel(NamedTuple):
    """One picture of a preview sheet.

    Attributes:
        title: What it shows, in a few words.
        image: ``(*spatial, channels)``.
    """

    title: str
    image: np.ndarray


class Algorithm(abc.ABC):
    """A pretext task.

    A subclass declares its hyper-parameters as annotated, keyword-only parameters of its constructor: they
    are the JSON keys of the task, with their types and defaults. The constructor and the properties are plain
    Python, so that an experiment file can be checked before TensorFlow is loaded.

    Args:
        input_shape: ``(*spatial, channels)`` of a scan.
    """

    examples_per_scan: int = 1
    """How many examples ``batch_size`` counts for one scan."""

    make_batch: Callable | None = None
    """Or a method ``(inputs, targets, seed) -> (inputs, targets)`` on batches, for tasks that mix scans."""

    companions: int = 0
    """How many other scans of the same part of the split `make_example` gets after its seed."""

    min_batch: int = 1
    """How many examples a batch needs at least; 2 where those of a batch are compared, or normalize each other."""

    distinct_scans: bool = False
    """Whether no batch may hold a scan twice, as where negatives come from the batch."""

    monitor: str | None = "val_loss"
    """Column of the history whose lowest value chooses the weights that are kept; None: those of the last epoch."""

    crop_centres: Callable | None = None
    """Or what finds the voxels that crops are centred on, for tasks that do not take them from anywhere.

    ``(image (*spatial, channels), spacing (rank,) in mm) -> (number, rank)`` integers, numpy, of a whole prepared
    scan. Its ``repr`` says everything that the result depends on: the result is kept on disk under it.
    """

    decodes: bool = False
    """Whether the task has a decoder of its own, so that the encoder's maps must lead back to the image's size."""

    mixes_sizes: bool = False
    """Whether the encoder meets inputs of several sizes in training: running statistics of batch normalization then
    mix what differs and are recomputed at the end, from what `restorations` says that the restorer sees."""

    keeps_labels_under_flips: bool = True
    """Whether a scan that was flipped beforehand poses the same task; two flips are a half turn."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        self.input_shape = tuple(input_shape)

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
    def encoder_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of what the encoder sees; for patch tasks the patch. None where sizes differ."""
        return self.input_shape

    @property
    def encoder_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Every ``(*spatial, channels)`` that the encoder meets, for a check before anything is built."""
        return (self.encoder_shape,)

    @abc.abstractmethod
    def make_example(self, image: tf.Tensor, seed: tf.Tensor) -> tuple[Any, Any]:
        """Turn a scan into inputs and targets, the same for the same seed; runs in a `tf.data` graph.

        A task with `companions` takes that many further images after the seed.

        Args:
            image: ``(*spatial, channels)`` float32 in [0, 1].
            seed: ``(2,)`` int32.
        """

    @abc.abstractmethod
    def make_model(self, encoder: keras.Model, *, seed: int) -> keras.Model:
        """Return the functional model around ``encoder``, which stays one layer of it, called "encoder".

        Args:
            encoder: Built for `encoder_shape`.
            seed: Of the initial weights and dropout of the layers that are added.
        """

    @abc.abstractmethod
    def loss(self, y_true: Any, y_pred: Any) -> Any:
        """Return one float32 value per scan, ``(batch,)``."""

    @abc.abstractmethod
    def metrics(self) -> list[Any]:
        """Return fresh metrics (or functions ``(y_true, y_pred) -> (batch,)``) for `keras.Model.compile`."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:  # noqa: B027 (most tasks have nothing to set)
        """Set what changes in the course of a training, such as the weight of a term of the loss.

        Args:
            epoch: That begins, from 0.
            epochs: Of the whole training.
        """

    def codes(self, model: keras.Model) -> dict[str, Any]:
        """Return by name the codes that the task compares, whose collapse would make its loss meaningless.

        Args:
            model: From `make_model`.

        Returns:
            Symbolic tensors of ``model``, ``(batch, ..., size)``; none where nothing is compared. One whose name ends
            in "_pooled" is measured but not judged: means of positive values always have a low spread.
        """
        return {}

    def restorer(self, model: keras.Model) -> keras.Model | None:
        """Return what the encoder sees -> image ``(batch, *spatial, channels)``, for a task with a decoder.

        Its layers are the encoder, called "encoder", and a decoder with the names of `models.decoders.unet`.

        Args:
            model: From `make_model`; the result shares its weights.
        """
        return None

    def restorations(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Return what the `restorer` gets and what it is to give, each ``(batch, views, *spatial, channels)``.

        Args:
            inputs: Of a batch.
            targets: Likewise.
        """
        raise NotImplementedError(f"{self.name} has no decoder")

    def chance(self, scans_per_step: int) -> dict[str, float]:
        """Return by name of a metric what the best answer reaches that does not look at the scan.

        Args:
            scans_per_step: Scans of a batch, which matters where candidates come from the batch.
        """
        return {}

    def settings(self) -> dict[str, Any]:
        """Return what defines the task beyond its keys, as JSON has it; kept in the run folder as ``task.json``."""
        return {}

    def doubt(self, targets: Sequence[Any]) -> str | None:
        """Return what speaks against training on scans like these, for a warning before the first step.

        Args:
            targets: Of a few training examples (not batches), as numpy arrays.
        """
        return None

    @abc.abstractmethod
    def describe(self, inputs: Any, targets: Any) -> list[Panel]:
        """Show what was done to a scan.

        Args:
            inputs: Of one example (not a batch), as numpy arrays.
            targets: Likewise.
        """
