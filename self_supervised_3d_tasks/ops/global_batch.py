"""The whole batch of a step, where several devices have a share of it each: for what compares or normalizes scans.

The only place that knows of replicas inside a model or a loss. On one device, and under JAX, where arrays are global
anyway, nothing is added and everything is returned as it came. Shares can differ in size in a last batch of validation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.shapes import Tensor


def devices() -> int:
    """Return the number of devices that share a batch, inside the scope of a distribution; else 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return tf.distribute.get_strategy().num_replicas_in_sync


def gather(share: Tensor) -> Tensor:
    """Return the rows of all devices, ``(whole batch, ...)``, in the order of the batch; gradients go back to each.

    Args:
        share: The rows of this device, ``(batch, ...)``; or the symbolic tensor of a model that is being laid out.
    """
    if devices() == 1:
        return share
    return _layer(_gathered)(share) if keras.backend.is_keras_tensor(share) else _gathered(share)


def own_rows(whole: Tensor, share: Tensor) -> Tensor:
    """Return the rows of ``whole``, which is as long as `gather` of ``share``, that belong to this device.

    Args:
        whole: ``(whole batch, ...)``.
        share: ``(batch, ...)``.
    """
    if devices() == 1:
        return whole
    symbolic = keras.backend.is_keras_tensor(share)
    return _layer(_own_rows)(whole, share) if symbolic else _own_rows(whole, share)


def first_row(share: Tensor) -> Tensor | int:
    """Return at which row of the whole batch the share of this device ``(batch, ...)`` begins."""
    context = _context()
    if context is None:
        return 0
    sizes = context.all_gather(tf.shape(share)[:1], axis=0)
    return tf.reduce_sum(sizes[: context.replica_id_in_sync_group])


def equal_share(whole: Tensor) -> Tensor:
    """Return this device's rows of ``(whole batch, ...)`` in a step of training, where all shares are of one size."""
    context = _context()
    if context is None:
        return whole
    rows = tf.shape(whole)[0] // context.num_replicas_in_sync
    first = rows * tf.cast(context.replica_id_in_sync_group, tf.int32)
    return whole[first : first + rows]


def _context() -> tf.distribute.ReplicaContext | None:
    """Return what this device knows of the others; None where there are none."""
    context = tf.distribute.get_replica_context() if devices() > 1 else None
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def _gathered(share: Tensor) -> Tensor:
    context = _context()
    return share if context is None else context.all_gather(share, axis=0)


def _own_rows(whole: Tensor, share: Tensor) -> Tensor:
    first = first_row(share)
    return whole[first : first + tf.shape(share)[0]]


@functools.cache
def _layer_class() -> type:
    """Return the class behind `_layer`, which is made when it is first needed: its base is of Keras."""

    class OfWholeBatch(keras.layers.Layer):
        def __init__(self, function: Callable[..., Tensor]) -> None:
            super().__init__(autocast=False)
            self._function = function

        def call(self, *tensors: Tensor) -> Tensor:
            return self._function(*tensors)

        def compute_output_spec(self, first: Tensor, *others: Tensor) -> Tensor:
            return keras.KerasTensor((None, *first.shape[1:]), first.dtype)

    return OfWholeBatch


def _layer(function: Callable[..., Tensor]) -> keras.layers.Layer:
    """Return a function as a layer of a functional model; no file holds one, since tasks save their encoder alone."""
    return _layer_class()(function)
