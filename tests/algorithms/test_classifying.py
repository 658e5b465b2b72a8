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


def test_a_target_of_minus_one_asks_for_nothing():
    task, logits = Rotation((8, 8, 8, 1)), np.zeros((3, 10), "float32")
    logits[[0, 1, 2], [4, 5, 5]] = 9
    targets = np.array([4, -1, 6], "int32")
    losses = task.loss(targets, logits).numpy()
    assert losses[1] == 0
    np.testing.assert_allclose(losses[[0, 2]], np.log(np.exp(9) + 9) - [9, 0], rtol=1e-3)
    (accuracy,) = task.metrics()
    accuracy.update_state(targets, logits)
    assert float(accuracy.result()) == 0.5  # of two that are asked
    accuracy.update_state(targets[:1], logits[:1])
    assert float(accuracy.result()) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("normalization", "smallest"), [(None, 1), ("group", 1), ("layer", 1), ("batch", 3)])
def test_the_head_has_the_normalization_of_the_keys(normalization, smallest):
    task = Rotation((8, 8, 1), head_units=(8,), normalization=normalization)
    codes = keras.Input((2, 2, 3))
    (norm,) = [layer for layer in keras.Model(codes, task.logits(codes, seed=1)).layers if "norm" in layer.name]
    expected = keras.layers.BatchNormalization if normalization == "batch" else keras.layers.GroupNormalization
    assert type(norm) is expected
    assert task.sampling.min_batch == smallest
    assert Rotation.sampling.min_batch == 1  # other tasks keep theirs
    single = Rotation((8, 8, 1), top_architecture="softmax", normalization=normalization)
    assert single.sampling.min_batch == 1
