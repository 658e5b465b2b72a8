"""What tasks that ask for a class share: head, loss and chance."""

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.algorithms.rotation import Rotation


@pytest.mark.parametrize(("head", "widths"), [("softmax", [4]), ("big_fully", [6, 5, 4])])
def test_the_head_is_that_of_the_keys(head, widths):
    task = Rotation((8, 8, 1), top_architecture=head, head_units=(6, 5), dropout_rate=0.0)
    codes = keras.Input((2, 2, 3))
    model = keras.Model(codes, task.logits(codes, seed=1))
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == widths
    assert model.output.dtype == "float32"


def test_a_guess_has_the_loss_and_the_accuracy_of_chance():
    task = Rotation((8, 8, 8, 1))
    np.testing.assert_allclose(task.loss(np.arange(10), np.zeros((10, 10))), np.log(10), rtol=1e-6)
    queries = task.loss(np.zeros((2, 3), "int32"), np.zeros((2, 3, 10)))  # three queries of each of two scans
    np.testing.assert_allclose(queries, [np.log(10)] * 2, rtol=1e-6)
    assert task.chance(scans_per_step=4) == {"accuracy": 0.1}
