"""Running statistics of batch normalization, against averages by hand."""

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.training import batch_statistics


def norm(name, **options):
    return keras.layers.BatchNormalization(name=name, **options)


def nested_model():
    """A normalization, dropout, and a nested model with a second one."""
    inputs = keras.Input((4, 4, 2))
    inner = keras.Model(inputs, norm("second", epsilon=1e-5)(inputs), name="inner")
    x = norm("first", momentum=0.9)(inputs)
    x = keras.layers.Dropout(0.5, seed=3)(x)
    return keras.Model(inputs, inner(x))


def layers_of(model):
    return model.get_layer("first"), model.get_layer("inner").get_layer("second")


def batches(number=2, size=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(rng.normal(), 1 + index, (size, 4, 4, 2)).astype("float32") for index in range(number)]


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def test_statistics_are_the_mean_over_batches_of_each_batchs_own():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, norm("first")(inputs))
    first = model.get_layer("first")
    first.moving_mean.assign([5.0, -5.0])  # nothing of it stays
    small, large = batches(1, size=2)[0], batches(1, size=9, seed=1)[0]
    assert batch_statistics.recompute(model, [small, large]) == 2
    mean = (small.mean((0, 1, 2)) + large.mean((0, 1, 2))) / 2
    variance = (small.var((0, 1, 2)) + large.var((0, 1, 2))) / 2
    np.testing.assert_allclose(first.moving_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.moving_variance, variance, rtol=1e-5)


def test_a_nested_layer_sees_what_the_batchs_statistics_normalized():
    inputs = keras.Input((4, 4, 2))
    inner = keras.Model(inputs, norm("second")(inputs), name="inner")
    model = keras.Model(inputs, keras.layers.TimeDistributed(inner)(norm("first")(inputs)[:, None])[:, 0])
    first = model.get_layer("first")
    first.gamma.assign([2.0, 0.5])
    first.beta.assign([1.0, -3.0])
    assert batch_statistics.recompute(model, batches(3)) == 3
    second = inner.get_layer("second")
    np.testing.assert_allclose(second.moving_mean, [1.0, -3.0], atol=1e-5)
    # Each batch has been scaled to unit variance (but for the epsilon) by its own statistics, then by gamma.
    expected = np.mean([batch.var((0, 1, 2)) / (batch.var((0, 1, 2)) + 1e-3) for batch in batches(3)], axis=0)
    np.testing.assert_allclose(second.moving_variance, expected * [4.0, 0.25], rtol=1e-4)


def test_nothing_else_changes_and_a_second_time_gives_the_same():
    model = nested_model()
    model(batches()[0], training=True)  # the seeds of dropout are somewhere in the middle
    running = {id(variable) for layer in layers_of(model) for variable in (layer.moving_mean, layer.moving_variance)}
    others = [variable for variable in model.variables if id(variable) not in running]
    assert len(others) == 5  # two times gamma and beta, the state of dropout's seeds
    before = values(others)
    batch_statistics.recompute(model, batches())
    once = values(model.variables)
    np.testing.assert_equal(values(others), before)
    assert [layer.momentum for layer in layers_of(model)] == [0.9, 0.99]
    batch_statistics.recompute(model, iter(batches()))
    np.testing.assert_equal(values(model.variables), once)


def test_frozen_layers_are_recomputed_and_stay_frozen():
    model, free = nested_model(), nested_model()
    model.get_layer("inner").trainable = False
    for one in (model, free):
        batch_statistics.recompute(one, batches())
    np.testing.assert_equal(values(layers_of(model)[1].weights), values(layers_of(free)[1].weights))
    assert [layer.trainable for layer in layers_of(model)] == [True, False]
    assert len(model.trainable_variables) == 2


def test_an_error_in_the_middle_leaves_everything_as_it_was():
    model = nested_model()
    before = values(model.variables)

    def broken():
        yield batches()[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        batch_statistics.recompute(model, broken())
    np.testing.assert_equal(values(model.variables), before)
    assert [layer.momentum for layer in layers_of(model)] == [0.9, 0.99]


def test_no_batches_change_nothing():
    model = nested_model()
    before = values(model.variables)
    assert batch_statistics.recompute(model, []) == 0
    np.testing.assert_equal(values(model.variables), before)


def test_without_batch_normalization_no_batch_is_read():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))

    def unreadable():
        raise AssertionError("read")
        yield

    assert batch_statistics.recompute(model, unreadable()) == 0
