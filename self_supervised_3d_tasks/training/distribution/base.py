"""What a training asks of the devices that it is spread over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf


@dataclass(frozen=True)
class Distribution:
    """One device; other kinds of distribution change of it what they must.

    Attributes:
        devices: Number of devices that a batch is divided over.
    """

    devices: int = 1

    def check_batch(self, scans_per_step: int, *, examples_per_scan: int = 1) -> None:
        """Raise `UserError` for a batch that cannot be divided evenly.

        Args:
            scans_per_step: Number of scans in a batch.
            examples_per_scan: How many examples the key ``batch_size`` counts for one scan.
        """
        rest = scans_per_step % self.devices
        if rest:
            below = (scans_per_step - rest) * examples_per_scan
            above = (scans_per_step - rest + self.devices) * examples_per_scan
            raise UserError(
                f"batch_size, distribution: a batch of {scans_per_step} scans cannot be divided over {self.devices} "
                f"devices; use a batch_size of {f'{below} or {above}' if below else above}"
            )

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which a model that is to be trained is built."""
        return contextlib.nullcontext()

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

    def compile(
        self,
        model: keras.Model,
        make_optimizer: Callable[[], keras.optimizers.Optimizer],
        *,
        loss: Callable[[Any, Any], Any],
        metrics: Sequence[Any],
        jit_compile: Literal["auto"] | bool,
    ) -> None:
        """Compile a model that was built in the scope, so that `keras.Model.fit` trains it on all devices.

        Args:
            model: The model.
            make_optimizer: Returns a fresh optimizer.
            loss: As `keras.Model.compile` takes it, as the next two; it returns one value per scan.
            metrics: Fresh ones.
            jit_compile: Whether steps are compiled by XLA.
        """
        model.compile(make_optimizer(), loss=loss, metrics=list(metrics), jit_compile=jit_compile)

    def on_one_device(self, model: keras.Model) -> keras.Model:
        """Return a trained model for what comes behind its training; it has the same layers and weights."""
        return model


ONE_DEVICE = Distribution()
