"""Collapse of codes: both numbers by hand, and when a training is warned of."""

import logging

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.algorithms.cpc import CPC
from self_supervised_3d_tasks.algorithms.exemplar import Exemplar
from self_supervised_3d_tasks.algorithms.tcpc import TCPC
from self_supervised_3d_tasks.analysis import collapse
from self_supervised_3d_tasks.analysis.collapse import CollapseMonitor, Width
from self_supervised_3d_tasks.losses import triplet

TASKS = {
    "cpc": (CPC((16, 16, 1), code_size=6, context_units=3), 12),  # of 16 patches; one row is in no context
    "tcpc": (TCPC((12, 12, 12, 1), code_size=6, context_units=3), 8),
    "exemplar": (Exemplar((8, 8, 8, 1), code_size=6), 2),
}


def test_codes_become_unit_length_as_in_a_training_and_zeros_stay():
    codes = np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0], [3e-5, 4e-5]], np.float32)
    units = collapse.unit_length(codes)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0, 0], [-1, 0], [0.3, 0.4]], rtol=1e-6)
    assert units.dtype == np.float64
    np.testing.assert_allclose(triplet.unit_length(codes), units, rtol=1e-6)
    np.testing.assert_array_equal(collapse.unit_length(codes[None, :2]), units[None, :2])


def both_ways(dimensions):
    """One code along each of the first axes of eight, and one against it."""
    axes = np.eye(8)[:dimensions]
    return np.concatenate([axes, -axes])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 8])
def test_the_effective_rank_counts_equal_directions(dimensions):
    codes = both_ways(dimensions)
    assert collapse.effective_rank(codes) == pytest.approx(dimensions)
    # At unit length: neither the size of the codes nor that of a single one counts.
    assert collapse.effective_rank(codes * np.arange(1, len(codes) + 1)[:, None]) == pytest.approx(dimensions)


def test_the_effective_rank_is_the_exponential_of_an_entropy():
    """Unit vectors in a plane, with variances 0.8 and 0.2 along its axes."""
    codes = np.array([[2, 1], [2, -1], [-2, 1], [-2, -1]]) / np.sqrt(5)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert collapse.effective_rank(codes) == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize("shape", [(400, 6), (20, 50)])
def test_the_effective_rank_is_that_of_numpys_covariance(shape):
    """With fewer codes than dimensions too, and around their mean."""
    codes = np.random.default_rng(0).normal(0.5, np.linspace(0.2, 1, shape[1]), shape)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))
    shares = values[values > 1e-12] / values.sum()
    assert collapse.effective_rank(codes) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    assert 1 <= collapse.effective_rank(codes) <= min(shape[1], shape[0] - 1)


def test_codes_in_all_directions_have_full_rank_and_a_spread_of_one():
    codes = np.random.default_rng(0).normal(size=(20_000, 16))
    assert collapse.effective_rank(codes) == pytest.approx(16, rel=0.01)
    assert collapse.spread(codes) == pytest.approx(1, rel=0.01)


def test_the_spread_by_hand():
    assert collapse.spread(np.array([[3.0, 0.0], [-0.5, 0.0]])) == pytest.approx((1 + 0) / 2 * np.sqrt(2))
    assert collapse.spread(both_ways(8)) == pytest.approx(np.sqrt(2 / 16) * np.sqrt(8))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_equal_codes_have_neither_rank_nor_spread(value):
    codes = np.full((50, 7), value, np.float32)
    assert collapse.effective_rank(codes) == 0
    assert collapse.spread(codes) == pytest.approx(0, abs=1e-12)
    lengths = np.random.default_rng(0).random((50, 1)).astype(np.float32) + 1
    assert collapse.effective_rank(codes * lengths) == 0  # but for the rounding of float32
    assert collapse.spread(codes * lengths) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("codes", [np.ones((1, 3)), np.ones((0, 3)), np.array([[1.0, np.nan], [0, 1]])])
def test_too_few_codes_and_broken_ones_have_no_numbers(codes):
    assert np.isnan(collapse.effective_rank(codes))
    assert np.isnan(collapse.spread(codes))


@pytest.mark.parametrize(
    ("epochs", "first"),
    [
        ([(15.7, 0.99), (15.0, 0.99), (14.0, 0.98), (13.0, 0.99)], None),  # healthy
        ([(15.7, 0.93), (9.0, 0.5), (6.0, 0.2)], 3),  # all alike
        ([(15.7, 0.999), (9.0, 0.999), (5.0, 0.998)], 3),  # in a few directions: the spread is blind
        ([(2.0, 0.9), (1.5, 0.9), (1.1, 0.9)], None),  # data of a low rank
        ([(1.4, 0.9), (1.2, 0.9), (1.3, 0.8), (1.0, 0.9), (1.4, 0.8)], 5),  # about a line from the first epoch on
        ([(1.4, 0.9), (1.2, 0.9), (1.3, 0.8), (1.0, 0.9), (1.6, 0.8), (1.4, 0.8)], None),  # it widens
        ([(1.0, 0.0)] * 6, 5),  # from the first epoch on
        ([(4.4, 0.17), (4.2, 0.15), (3.7, 0.24), (2.6, 0.33), (2.1, 0.52), (3.0, 0.72)], None),  # a slow start
        ([(9.0, 0.12), (2.0, 0.13), (2.0, 0.14), (2.0, 0.15), (2.0, 0.4), (2.0, 0.5)], None),  # 9: the rank of noise
        ([(9.0, 0.8), (np.nan, np.nan), (9.0, 0.1)], 3),
        ([(9.0, 0.8), (9.0, 0.9), (np.nan, np.nan)], None),  # a broken model is not a collapsed one
        ([(9.0, 0.35), (9.0, 0.29)], None),  # on the edge
    ],
)
def test_when_codes_have_collapsed(epochs, first):
    epochs = [Width(*epoch) for epoch in epochs]
    found = [number for number in range(1, len(epochs) + 1) if collapse.is_collapse(epochs[:number], 31)]
    assert found[:1] == ([first] if first else [])
    assert not collapse.is_collapse([], 31)


def model_of_codes():
    """A matrix, times the codes of a batch."""
    inputs = keras.Input((8,))
    code = keras.layers.Dense(8, use_bias=False, kernel_initializer="identity", name="code")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(code))


def watched(kernels, caplog, **options):
    """Return the rows of a monitor, and its warnings, while the model goes through the kernels."""
    model = model_of_codes()
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(size, 8)).astype(np.float32), None) for size in (20, 20, 5)]
    monitor = CollapseMonitor(model, {"codes": model.get_layer("code").output}, batches, **options)
    rows = []
    with caplog.at_level(logging.WARNING, logger="absl"):
        for epoch, kernel in enumerate(kernels, start=1):
            model.get_layer("code").set_weights([kernel])
            rows.append(monitor(epoch))
    warnings = [record.getMessage() for record in caplog.records if record.name == "absl"]
    return rows, warnings, np.concatenate([codes for codes, _ in batches])


def test_a_collapse_is_warned_of_once_and_a_healthy_training_never(caplog):
    line = np.diag([1.0] + [1e-3] * 7)
    rows, warnings, codes = watched([np.eye(8), np.eye(8), line, line, line], caplog)
    assert rows[0] == {
        "val_rank_codes": pytest.approx(collapse.effective_rank(codes), rel=1e-5),
        "val_spread_codes": pytest.approx(collapse.spread(codes), rel=1e-5),
    }
    assert rows[2]["val_rank_codes"] < 1.1
    (warning,) = warnings
    assert warning.startswith("codes: collapsed in epoch 3. Their spread is 0.4")
    assert "rank 1.1 of at most 8, over 45 codes" in warning
    assert "Lower lr" in warning and "stop-gradient" in warning
    caplog.clear()
    rotations = [np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0] for seed in range(8)]
    assert watched(rotations, caplog)[1] == []


def test_means_of_positive_values_are_measured_but_not_judged(caplog):
    model = model_of_codes()
    batches = [(np.full((20, 8), 1, np.float32), None)]
    monitor = CollapseMonitor(model, {"scale_1_pooled": model.get_layer("code").output}, batches)
    with caplog.at_level(logging.WARNING, logger="absl"):
        rows = [monitor(epoch) for epoch in range(1, 9)]
    assert rows[-1] == {"val_rank_scale_1_pooled": 0.0, "val_spread_scale_1_pooled": pytest.approx(0, abs=1e-7)}
    assert not caplog.records


def test_a_resumed_training_knows_what_was_before(caplog):
    line = np.diag([1.0] + [1e-3] * 7)
    assert watched([line], caplog)[1] == []
    history = [{"epoch": 1}, {"epoch": 2, "val_rank_codes": 7.5, "val_spread_codes": 0.9}]
    assert len(watched([line], caplog, history=history)[1]) == 1


def test_the_first_codes_alone_are_measured(caplog):
    rows, _, codes = watched([np.eye(8)], caplog, max_codes=30)
    assert rows[0]["val_rank_codes"] == pytest.approx(collapse.effective_rank(codes[:30]), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_the_codes_of_a_task_are_what_it_compares(name):
    task, count = TASKS[name]
    inputs = keras.Input(task.encoder_shape)
    rank = len(task.encoder_shape) - 1
    pool = keras.layers.GlobalAveragePooling2D if rank == 2 else keras.layers.GlobalAveragePooling3D
    options = {"activation": "relu", "padding": "same", "kernel_initializer": keras.initializers.HeNormal(seed=0)}
    features = getattr(keras.layers, f"Conv{rank}D")(4, 3, **options)(inputs)
    model = task.make_model(keras.Model(inputs, pool()(features), name="encoder"), seed=0)
    batch = np.random.default_rng(0).random((3, *model.input_shape[1:])).astype(np.float32)
    monitor = CollapseMonitor(model, task.codes(model), [(batch, None)])
    codes = monitor._measured()["codes"]
    assert codes.shape == (3 * count, 6)
    row = monitor(1)
    assert 1 <= row["val_rank_codes"] <= 6 and 0 < row["val_spread_codes"] <= 1
    scores = model.predict_on_batch(batch)
    # With one code for all inputs the task has nothing left to compare.
    dense = model.get_layer("code")
    dense.set_weights([np.zeros_like(dense.kernel), np.ones_like(dense.bias)])
    assert monitor(2) == {"val_rank_codes": 0.0, "val_spread_codes": pytest.approx(0, abs=1e-7)}
    alike = model.predict_on_batch(batch).reshape(3, -1)
    assert np.ptp(alike, axis=0).max() < 1e-6 < np.ptp(scores.reshape(3, -1), axis=0).max()
