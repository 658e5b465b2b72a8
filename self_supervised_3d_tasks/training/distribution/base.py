"""What a training asks of the devices that it is spread over."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf


@dataclass(frozen=True)
class Distribution:
    """One device, and what other kinds of distribution change of it.

    Attributes:
        devices: Number of devices that a batch is divided over.
    """

    devices: int = 1

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which models are built, restored, compiled and fit."""
        return contextlib.nullcontext()

    def check_batch(self, scans_per_step: int) -> None:
        """Raise `UserError` where the devices would get shares of a batch that are not equal."""
        if rest := scans_per_step % self.devices:
            fewer, more = scans_per_step - rest, scans_per_step - rest + self.devices
            fits = f"{fewer} or {more}" if fewer else f"{more}"
            raise UserError(
                f"batch_size, distribution: {scans_per_step} scans per step cannot be divided among {self.devices} "
                f"devices; change batch_size so that a step has {fits}, or use fewer devices"
            )

    def validation(
        self, model: keras.Model, batches: tf.data.Dataset, averaging: Sequence[keras.callbacks.Callback]
    ) -> tuple[tf.data.Dataset | None, list[keras.callbacks.Callback]]:
        """Return what `keras.Model.fit` validates on, and callbacks before all others that look at an epoch.

        Args:
            model: The model.
            batches: The validation batches, the last one may be smaller.
            averaging: What puts the averages in the place of the weights when a test begins.
        """
        return batches, []


ONE_DEVICE = Distribution()
