"""All devices of one machine under TensorFlow: each has a copy of the weights and a share of every batch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.training.distribution.base import Distribution


@dataclass(frozen=True)
class Mirrored(Distribution):
    """`tf.distribute.MirroredStrategy`.

    Attributes:
        strategy: The strategy; None with one device, which needs none.
    """

    strategy: tf.distribute.Strategy | None = None

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the scope of the strategy."""
        return self.strategy.scope() if self.strategy else super().scope()


def start() -> Distribution:
    """Return the distribution over all visible GPUs, or over all logical CPUs where there is no GPU.

    Raises:
        UserError: The backend of Keras is not TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f'distribution: "mirrored" needs TensorFlow, but the backend of Keras is {keras.config.backend()}; set '
            "KERAS_BACKEND=tensorflow in the environment, or use another distribution"
        )
    devices = [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    if len(devices) == 1:
        logging.warning('distribution: "mirrored" finds one device, %s, and so it trains as without', devices[0])
        return Mirrored()
    return Mirrored(len(devices), tf.distribute.MirroredStrategy(devices))
