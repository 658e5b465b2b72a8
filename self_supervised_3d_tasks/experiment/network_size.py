"""What a network takes of the memory, known before it is made: its layers are laid out, but get no weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.shared_keys import Experiment
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Layer, Model

_BYTES = 4  # of a weight
_COPIES = {"adam": 4, "adamw": 4, "sgd": 3}  # a weight, its gradient and its moments


def check(experiment: Experiment, make: Callable[[], Model], examples: int) -> None:
    """Raise `UserError` for a network whose training cannot fit into the memory of the machine.

    What is counted is less than what a training takes: weights, gradients and moments, and of what the layers give
    that of layers with weights, which the backward pass needs again.

    Args:
        experiment: Its optimizer and precision count.
        make: Makes the network; must load no weights.
        examples: How many inputs of the network there are in a batch.
    """
    policy = keras.config.dtype_policy()
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = make()
    finally:
        # Keras remembers weights that it did not make, and would make them at its next occasion.
        keras.utils.clear_session()
        keras.config.set_dtype_policy(policy)
    parameters = sum(math.prod(weight.shape) for weight in model.weights)
    outputs = sum(_num_outputs(layer) for layer in _layers(model) if layer.weights)
    learned = parameters * _BYTES * _COPIES[experiment.optimizer]
    activations = outputs * examples * (_BYTES if experiment.mixed_precision == "none" else _BYTES // 2)
    installed, allowed = machine.installed_bytes(), machine.memory_bytes()
    if learned + activations <= installed and parameters * _BYTES <= allowed:
        return
    weights, layers, there = map(machine.readable_bytes, (learned, activations, min(installed, allowed)))
    raise UserError(
        f"data_dim, batch_size and the keys of the network: {parameters:,} parameters need {weights} for training "
        f"them, and {examples} inputs per step {layers} more; this machine has {there}; reduce the width or depth of "
        "the network, or what is too large of data_dim and batch_size"
    )


def _layers(model: Model) -> Iterator[Layer]:
    """Yield the layers of a model, and those of the models inside it in their place."""
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)  # what a wrapper applies to several inputs
        if hasattr(inner, "layers"):
            yield from _layers(inner)
        else:
            yield layer


def _num_outputs(layer: Layer) -> int:
    """Return how many numbers a layer gives for one input."""
    return sum(math.prod(size or 1 for size in output.shape[1:]) for output in keras.tree.flatten(layer.output))
