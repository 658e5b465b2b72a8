"""Pretext tasks with a decoder, which restore an image from what the encoder sees."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.lazy import keras


class RestoringAlgorithm(Algorithm):
    """A pretext task with a decoder, so that the encoder's maps must lead back to the image's size.

    Its restorations are drawn and analysed, and its decoder can be transferred.
    """

    @property
    def encoder_shapes(self) -> Sequence[tuple[int, ...]]:
        """Every ``(*spatial, channels)`` that the encoder meets, for a check before anything is built.

        Where there are several, running statistics of batch normalization mix what differs in training. They are
        recomputed at the end, from the views that are restored.
        """
        return [self.encoder_shape]

    @abc.abstractmethod
    def restorer(self, model: keras.Model) -> keras.Model:
        """Return the model from what the encoder sees to the restored image ``(batch, *spatial, channels)``.

        Its layers are the encoder, called "encoder", and a decoder with the names of `models.decoders.unet`.

        Args:
            model: The model of `make_model`; the result shares its weights.
        """

    @abc.abstractmethod
    def restorations(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Return what the restorer gets and what it is to give, each ``(batch, views, *spatial, channels)``.

        Args:
            inputs: The inputs of a batch.
            targets: The targets of that batch.
        """
