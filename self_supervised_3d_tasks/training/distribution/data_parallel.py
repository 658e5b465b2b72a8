"""All devices of one machine, or of many, under JAX: each has a copy of the weights and a share of every batch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from self_supervised_3d_tasks import backend, lazy
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.training.distribution import processes
from self_supervised_3d_tasks.training.distribution.base import Distribution

jax = lazy.load("jax")


@dataclass(frozen=True)
class DataParallel(Distribution):
    """`keras.distribution.DataParallel`; the result is that of one device, also where a loss compares scans.

    Attributes:
        parallel: What Keras asks where arrays belong, see `_parallel`.
    """

    parallel: Any = None

    def validation(
        self, model: keras.Model, batches: tf.data.Dataset, averaging: Sequence[keras.callbacks.Callback]
    ) -> tuple[None, list[keras.callbacks.Callback]]:
        """Return the callbacks that validate; Keras's own pass cannot divide a smaller last batch.

        Such a batch is computed whole on every device, so that no scan is left out and no loss that compares scans
        meets others than with one device.
        """

        def begin(epoch: int, logs: Any = None) -> None:
            self.parallel.divides = True

        def end(epoch: int, logs: Any = None) -> None:
            self.parallel.divides = False
            for callback in averaging:
                callback.on_test_begin()
            logs |= {f"val_{name}": value for name, value in self._evaluate(model, batches).items()}

        return None, [keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)]

    def _evaluate(self, model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
        """Return loss and metrics over all batches, which every process reads whole."""
        model.reset_metrics()
        with _summed_up(model):
            for inputs, targets in batches.as_numpy_iterator():
                size = len(keras.tree.flatten(inputs)[0])
                if size % self.devices:
                    model.test_on_batch(inputs, targets)
                    continue
                part = size // processes.count()
                own = slice(processes.index() * part, (processes.index() + 1) * part)
                inputs, targets = keras.tree.map_structure(lambda leaf, own=own: leaf[own], (inputs, targets))
                with self._divided():
                    model.test_on_batch(inputs, targets)
        return {name: float(value) for name, value in model.get_metrics_result().items()}

    @contextlib.contextmanager
    def _divided(self) -> Iterator[None]:
        self.parallel.divides = True
        try:
            yield
        finally:
            self.parallel.divides = False


@contextlib.contextmanager
def _summed_up(model: keras.Model) -> Iterator[None]:
    """Let metrics add up over batches that are tested one by one, which Keras begins anew with each."""
    vars(model)["reset_metrics"] = lambda: None
    try:
        yield
    finally:
        vars(model).pop("reset_metrics")


def check() -> None:
    """Raise `UserError` where the backend of Keras is not JAX; loads nothing."""
    if backend.name() != "jax":
        raise UserError(
            f'distribution: "data_parallel" needs JAX, but the backend of Keras is {backend.name()}; set '
            'KERAS_BACKEND=jax in the environment, or use "mirrored"'
        )


def start() -> Distribution:
    """Return the distribution over all devices of all processes, which models have from now on.

    Raises:
        UserError: The backend of Keras is not JAX.
    """
    check()
    parallel = _parallel()(devices=jax.devices(), auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)
    return DataParallel(jax.device_count(), parallel)


@functools.cache
def _parallel() -> type:
    """Return Keras's class, but for data that are not divided.

    Steps of training get their shares of a batch. Whatever else is computed meanwhile (what looks at the model after an
    epoch, the scores) gets whole batches, on every device alike.
    """

    class Parallel(keras.distribution.DataParallel):
        divides = False

        def get_data_layout(self, data_shape: Sequence[int]) -> keras.distribution.TensorLayout:
            if self.divides:
                return super().get_data_layout(data_shape)
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    return Parallel
