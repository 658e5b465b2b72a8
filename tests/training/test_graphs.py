"""A training leaves no graph behind, and nothing of what others need is gone."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from self_supervised_3d_tasks import training


def kept():
    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")}


def graphs():
    gc.collect()
    return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())


def train():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    data = tf.data.Dataset.from_tensors((np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")))
    model.fit(data, shuffle=False, verbose=0)


def test_graphs_of_a_training_are_gone_and_those_of_before_are_not():
    train()
    before, number = kept(), graphs()
    assert before  # what the block is there for: if this fails, TensorFlow keeps none any more
    for _ in range(2):
        training.own_graphs()(train)()
        assert (kept(), graphs()) == (before, number)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_they_are_gone_after_an_error_too(error):
    before = kept()

    @training.own_graphs()
    def run():
        train()
        raise error

    pytest.raises(error, run)
    assert kept() == before


def test_layers_are_built_in_the_precision_that_was_chosen():
    training.set_precision("bfloat16")
    try:
        with training.own_graphs():
            assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        training.set_precision("none")
