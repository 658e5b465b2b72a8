from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config

from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock


def slow(seconds: float, count: int) -> tf.data.Dataset:
    """A dataset that takes ``seconds`` for each element and does not run ahead."""

    def wait(value):
        time.sleep(seconds)
        return value

    def element(index):
        value = tf.numpy_function(wait, [index], tf.int64)
        value.set_shape(())
        return {"a": value}, value

    return tf.data.Dataset.range(count).map(element)


def test_waits_for_slow_data_are_added_up() -> None:
    clock = WaitClock()
    assert clock.seconds() == 0
    elements = list(clock.attach(slow(0.05, 6)).as_numpy_iterator())
    assert [(int(inputs["a"]), int(target)) for inputs, target in elements] == [(i, i) for i in range(6)]
    assert 0.3 <= clock.seconds() < 1.5


def test_a_slow_consumer_does_not_wait() -> None:
    clock = WaitClock()
    for _ in clock.attach(slow(0.001, 6).prefetch(6)):
        time.sleep(0.05)
    assert clock.seconds() < 0.25


def test_structure_shapes_and_values_are_kept() -> None:
    dataset = tf.data.Dataset.from_tensors((np.ones((2, 3)), {"x": np.zeros(4)}, np.arange(5))).repeat(3)
    timed = WaitClock().attach(dataset)
    assert timed.element_spec == dataset.element_spec
    for one, other in zip(dataset, timed, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    single = tf.data.Dataset.range(3)
    assert WaitClock().attach(single).element_spec == single.element_spec


def test_fit_and_determinism_accept_a_timed_dataset() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    clock = WaitClock()
    dataset = tf.data.Dataset.from_tensors((np.ones((2, 3)), np.ones((2, 1)))).repeat()
    tf.config.experimental.enable_op_determinism()
    try:
        model.fit(clock.attach(dataset), steps_per_epoch=2, epochs=2, shuffle=False, verbose=0)
    finally:
        config.disable_op_determinism()  # no public function turns it off
    assert clock.seconds() > 0


def test_one_clock_times_several_datasets() -> None:
    clock = WaitClock()
    list(clock.attach(slow(0.02, 3)))
    between = clock.seconds()
    list(clock.attach(slow(0.02, 3)))
    assert clock.seconds() >= between + 0.06
