"""The networks of a task without the task: what a training step cannot do without."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm


def encoded(inputs: Any) -> dict[str, Any]:
    """Return by name what the encoder sees of a model's inputs: all but images that are called "targets"."""
    return {name: x for name, x in inputs.items() if name != "targets"} if isinstance(inputs, dict) else {"": inputs}


def encoded_voxels(algorithm: Algorithm) -> int:
    """Return how many voxels of a scan the encoder sees."""
    specification = tf.TensorSpec(algorithm.input_shape, tf.float32), tf.TensorSpec((2,), tf.int32)
    inputs, _ = tf.function(algorithm.make_example, input_signature=specification).get_concrete_function().output_shapes
    return sum(math.prod(shape) for shape in encoded(inputs).values())


def bare_pass(algorithm: Algorithm, model: keras.Model, inputs: Any) -> tuple[Callable[[], Any], int]:
    """Return a function that runs a task's networks forward and backward, and the operations of its convolutions.

    They run over the voxels that a training step encodes. What a task decodes is network too, and no overhead; local
    views lead to maps, but are not restored.

    Args:
        algorithm: The task.
        model: Its model.
        inputs: A batch for the model.
    """
    encoder = model.get_layer("encoder")
    network = algorithm.restorer(model) if isinstance(algorithm, RestoringAlgorithm) else encoder
    axes = len(network.input_shape) - 1
    passes = []
    # A pass for each size, in which there may be several views or patches of a scan.
    for name, x in encoded(inputs).items():
        local = name == "local_views"
        used = keras.Sequential([encoder, model.get_layer("decoder")]) if local else network
        passes.append((used, tf.reshape(x, (-1, *x.shape[-axes:]))))
    return forward_and_backward(passes, network)


def forward_and_backward(
    passes: list[tuple[keras.Model, tf.Tensor]], network: keras.Model
) -> tuple[Callable[[], Any], int]:
    """Return a function that runs networks forward and backward, and the operations of their convolutions.

    Args:
        passes: Networks, and the batch that each gets.
        network: The one whose weights the gradients are of.
    """

    @tf.function
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten([used(batch, training=True) for used, batch in passes])
            loss = tf.add_n([tf.reduce_mean(tf.square(tf.cast(output, tf.float32))) for output in outputs])
        return tape.gradient(loss, [variable.value for variable in network.trainable_variables])

    operations = sum(map(_operations, run.get_concrete_function().graph.get_operations()))
    return lambda: [gradient.numpy() for gradient in run()], operations


def _operations(node: tf.Operation) -> int:
    """Return multiplications and additions of a convolution or of one of its gradients, 0 of everything else."""
    kind = node.type.removeprefix("Conv2D").removeprefix("Conv3D").removesuffix("V2")
    if kind == node.type.removesuffix("V2") or kind not in ("", "BackpropInput", "BackpropFilter"):
        return 0
    if not node.outputs[0].consumers():  # the gradient of the batch, which is laid out but never asked for
        return 0
    if kind == "":
        map_, kernel = node.outputs[0], node.inputs[1]
    elif kind == "BackpropInput":
        map_, kernel = node.inputs[2], node.inputs[1]
    else:
        map_, kernel = node.inputs[2], node.outputs[0]
    return 2 * math.prod(map_.shape) * math.prod(kernel.shape[:-1])
