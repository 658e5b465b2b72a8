"""Adam in one operation per variable against Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.training import optimizers


def trained(steps, **options):
    """Return two weights after some steps inside of a graph."""
    weights = [keras.Variable(np.linspace(-1, 1, size, dtype="float32")) for size in (3, 50)]
    optimizer = optimizers.make_optimizer(0.01, **options)
    optimizer.build(weights)

    @tf.function
    def step(*gradients):
        optimizer.apply(list(gradients), weights)

    rng = np.random.default_rng(0)
    for _ in range(steps):
        step(*(tf.constant(rng.normal(size=weight.shape), tf.float32) for weight in weights))
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "ema_momentum": 0.9},
        {"gradient_accumulation_steps": 2, "clipnorm": 1.0},
        {"lr_schedule": "cosine", "total_steps": 10},
    ],
)
def test_the_weights_are_those_of_keras(options, monkeypatch):
    fused = trained(6, **options)
    monkeypatch.setattr(optimizers, "adam", lambda: keras.optimizers.Adam)
    for ours, theirs in zip(fused, trained(6, **options), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # of steps of 0.01


def test_a_step_is_one_operation_per_variable_and_computes_what_they_share_once():
    weights = [keras.Variable(np.ones(4, "float32")) for _ in range(3)]
    optimizer = optimizers.make_optimizer(0.01)
    optimizer.build(weights)
    step = tf.function(lambda gradient: optimizer.apply([gradient] * 3, weights))
    kinds = [node.type for node in step.get_concrete_function(tf.ones(4)).graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 3
    assert kinds.count("Pow") == 2
    assert "AssignSubVariableOp" not in kinds
