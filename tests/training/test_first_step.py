"""The step of a training is traced once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.training.first_step import make_variables


def trained(*, beforehand):
    """Return how often the loss was traced in two steps, the history and the weights."""
    traced = []

    def loss(y_true, y_pred):
        traced.append(1)
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.Adam(0.1), loss=loss, metrics=[keras.metrics.MeanAbsoluteError()])
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(4, drop_remainder=True)
    if beforehand:
        make_variables(model, batches)
        traced.clear()
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False).history
    return len(traced), history, model.get_weights()


def test_the_step_is_traced_once_and_weights_and_history_stay_the_same():
    alone, prepared = trained(beforehand=False), trained(beforehand=True)
    assert (alone[0], prepared[0]) == (2, 1)
    assert prepared[1].keys() == alone[1].keys()
    for name, values in alone[1].items():
        assert prepared[1][name] == pytest.approx(values, rel=1e-6)
    for ours, theirs in zip(prepared[2], alone[2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
