"""All devices of one machine under TensorFlow: each has a copy of the weights and a share of every batch.

A training gives the weights that one device gives, up to rounding. What would differ by itself is set right here: batch
normalizations take the statistics of their share, and every device drops the same of its share; `optimizers` clips
after, not before, the gradients are added up, and `ops.global_batch` lets losses compare the scans of all devices.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops import global_batch
from self_supervised_3d_tasks.training.batch_statistics import layers_of, normalizations
from self_supervised_3d_tasks.training.distribution.base import Distribution


@dataclass(frozen=True, kw_only=True)
class Mirrored(Distribution):
    """`tf.distribute.MirroredStrategy` over two devices or more.

    Attributes:
        strategy: The strategy.
    """

    strategy: tf.distribute.Strategy

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the scope of the strategy."""
        return self.strategy.scope()

    def compile(
        self,
        model: keras.Model,
        make_optimizer: Callable[[], keras.optimizers.Optimizer],
        *,
        loss: Callable[[Any, Any], Any],
        metrics: Sequence[Any],
        jit_compile: Literal["auto"] | bool,
    ) -> None:
        """Compile a model, without XLA, which cannot; its layers from then on see the whole batch where they must."""
        for layer in normalizations(model):
            layer.synchronized = True
        for layer in _dropouts(model):
            layer.call = _OfWholeBatch(layer)
        model._maybe_symbolic_build = _LaidOutByOneShare(model, self.strategy)
        with self.strategy.scope():
            super().compile(model, make_optimizer, loss=loss, metrics=metrics, jit_compile=False)
            model.optimizer.build(model.trainable_variables)  # a resumed one is read outside of the scope

    def on_one_device(self, model: keras.Model) -> keras.Model:
        """Return the model without a strategy, as which it would give the predictions of every device."""
        for layer in normalizations(model):
            layer.synchronized = False
        for layer in _dropouts(model):
            vars(layer).pop("call", None)
        return keras.Model(model.input, model.output, name=model.name)


def start() -> Distribution:
    """Return the distribution over all visible GPUs, or over all logical CPUs where there is no GPU.

    Raises:
        UserError: The backend of Keras is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f'distribution: "mirrored" needs TensorFlow, but the backend of Keras is {keras.backend.backend()}; set '
            "KERAS_BACKEND=tensorflow in the environment, or use another distribution"
        )
    return _over_all_devices()


@functools.cache
def _over_all_devices() -> Distribution:
    """Return one and the same distribution in all trainings of a process: two strategies get in each other's way."""
    devices = [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    if len(devices) == 1:
        logging.warning('distribution: "mirrored" finds one device, %s, and so it trains as without', devices[0])
        return Distribution()
    return Mirrored(len(devices), strategy=tf.distribute.MirroredStrategy(devices))


def _dropouts(model: keras.Model) -> list[keras.layers.Dropout]:
    return layers_of(model, keras.layers.Dropout)


class _LaidOutByOneShare:
    """Lays a model out for training or validation by what the first device is given.

    Keras takes the mean over the devices, which fails where their shares of the first batch differ in size: that of a
    validation with an odd number of scans that are fewer than a batch. Without a public name.

    Args:
        model: The model, of which it becomes the ``_maybe_symbolic_build``.
        strategy: The strategy in whose scope it was built.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._lay_out = type(model)._maybe_symbolic_build.__get__(model)
        self._strategy = strategy

    def __call__(self, iterator: Iterable[Any] | None = None, data_batch: Any = None) -> None:
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(self._share, next(batches))
        self._lay_out(data_batch=data_batch)

    def _share(self, value: Any) -> Any:
        return self._strategy.experimental_local_results(value)[0]


class _OfWholeBatch:
    """A dropout that draws for the whole batch, and drops of the share of a device what belongs to it.

    By itself every device would draw the same for its share.

    Args:
        layer: The layer, of which it becomes the ``call``.
    """

    def __init__(self, layer: keras.layers.Dropout) -> None:
        self._drop = type(layer).call.__get__(layer)

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        devices = global_batch.devices()
        if not training or devices == 1:
            return self._drop(inputs, training=training)
        ops, (rows, *others) = keras.ops, keras.ops.shape(inputs)
        factors = self._drop(ops.ones((rows * devices, *others), inputs.dtype), training=True)
        return inputs * global_batch.equal_share(factors)
