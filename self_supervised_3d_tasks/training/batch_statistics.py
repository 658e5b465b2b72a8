"""Recomputes the running statistics of batch normalization when a training is over.

Where a network met inputs of several sizes, its running averages are a mixture of theirs and belong to none. The
weights stay; the statistics are taken anew from the inputs that the network is for. Izmailov et al., "Averaging Weights
Leads to Wider Optima and Better Generalization" (UAI 2018), do the same for averaged weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from self_supervised_3d_tasks.lazy import keras


def recompute(model: keras.Model, batches: Iterable[Any]) -> int:
    """Set the running statistics to the mean over batches of each batch's own mean and variance.

    The passes are those of training: every layer sees what the batch's statistics normalized before it, and dropout is
    active. Frozen layers are treated like the others. Nothing else of the model changes, neither weights nor the seeds
    of dropout, so the same batches give the same statistics again.

    Args:
        model: Nested models count too. It applies every batch normalization once: of several, the last would count.
        batches: Inputs of the model; not read if there is no batch normalization.

    Returns:
        The number of batches.
    """
    layers = normalizations(model)
    if not layers:
        return 0
    running = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    sums = [np.zeros(variable.shape) for variable in running]  # float64
    passes = 0
    with _passes_of_training(model, layers):
        for batch in batches:
            model(batch, training=True)
            passes += 1
            for total, variable in zip(sums, running, strict=True):
                total += keras.ops.convert_to_numpy(variable)
    if passes:
        for total, variable in zip(sums, running, strict=True):
            variable.assign(total / passes)
    return passes


def normalizations(layer: keras.Layer) -> list[keras.layers.BatchNormalization]:
    """Return every batch normalization in a layer or model, at any depth."""
    return layers_of(layer, keras.layers.BatchNormalization)


def layers_of(layer: keras.Layer, kind: type) -> list[Any]:
    """Return every layer of a kind in a layer or model, at any depth."""
    if isinstance(layer, kind):
        return [layer]
    inner = [layer.layer] if isinstance(layer, keras.layers.Wrapper) else getattr(layer, "layers", [])
    return list(dict.fromkeys(found for part in inner for found in layers_of(part, kind)))


@contextlib.contextmanager
def _passes_of_training(model: keras.Model, layers: list[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Make a pass leave the batch's statistics as running ones; afterwards everything is as it was."""
    settings = [(layer, layer.momentum, layer.trainable) for layer in layers]
    values = [(variable, keras.ops.convert_to_numpy(variable).copy()) for variable in model.non_trainable_variables]
    try:
        for layer in layers:
            # Without momentum nothing of the old statistics stays. Keras takes a frozen layer for one in inference,
            # even in a pass of training.
            layer.momentum, layer.trainable = 0.0, True
        yield
    finally:
        for layer, momentum, trainable in settings:
            layer.momentum, layer.trainable = momentum, trainable
        for variable, value in values:
            variable.assign(value)
