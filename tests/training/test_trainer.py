"""The trainer on a toy model; run as a script, this file is the process that a test kills."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tqdm import tqdm

from self_supervised_3d_tasks import terminal, training
from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import TrainingDiverged, UserError
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.training import callbacks, optimizers
from self_supervised_3d_tasks.training.trainer import Phase, TrainingData

STEPS = 3
BATCH = 4


def make_model():
    """Convolution, BatchNormalization and dropout in an encoder, dropout and a Dense layer in the head."""
    inputs = keras.Input((6, 6, 1))
    normal = keras.initializers.RandomNormal(stddev=0.3, seed=1)
    x = keras.layers.Conv2D(3, 3, kernel_initializer=normal, name="convolution")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, seed=2, name="dropout")(x)
    encoder = keras.Model(inputs, x, name="encoder")
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Dropout(0.3, seed=3, name="head_dropout")(keras.layers.Flatten()(encoder(inputs)))
    dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(seed=4), name="head")
    return keras.Model(inputs, dense(x))


def prepare(model, trainable=True, learning_rate=0.01):
    model.get_layer("encoder").trainable = trainable
    model.compile(optimizers.make_optimizer(learning_rate), loss="mse", metrics=["mae"])


def warmup(epochs):
    return Phase(epochs, lambda model: prepare(model, trainable=False))


def main_phase(epochs):
    return Phase(epochs, prepare)


def example(step):
    """The batch of a step, from its number alone."""
    x = tf.random.stateless_normal((BATCH, 6, 6, 1), tf.stack([tf.cast(step, tf.int32), 0]))
    return x, tf.stack([tf.reduce_mean(x, (1, 2, 3)), tf.reduce_max(x, (1, 2, 3))], axis=-1)


def stream(first_step):
    return tf.data.Dataset.counter(first_step).map(example).prefetch(2)


def validation():
    return tf.data.Dataset.range(1000, 1002).map(example)


def fit(folder, phases, model=None, train=stream, validation_data=None, **options):
    model = model or make_model()
    data = TrainingData(train, validation_data or validation(), steps_per_epoch=STEPS, samples_per_step=BATCH)
    return model, training.fit(model, data=data, phases=phases, folder=RunFolder(folder), **options)


def snapshot(model):
    """Weights, statistics, optimizer and dropout states."""
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def assert_identical(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def without_timing(history):
    timing = {"seconds", "samples_per_second", "wait_share"}
    return [{name: value for name, value in row.items() if name not in timing} for row in history]


def validation_loss(model):
    return float(np.mean([np.square(model(x, training=False) - y) for x, y in validation()]))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model, history = fit(folder, [warmup(2), main_phase(3)])
    return folder, model, history


@pytest.mark.parametrize("first_part", [[1], [2], [2, 1], [2, 3]], ids=["warm-up", "boundary", "main", "end"])
def test_resumed_is_bit_identical_to_uninterrupted(tmp_path, uninterrupted, first_part):
    _, whole, history = uninterrupted
    fit(tmp_path, [make(epochs) for make, epochs in zip((warmup, main_phase), first_part, strict=False)])
    model, resumed = fit(tmp_path, [warmup(2), main_phase(3)])
    assert_identical(snapshot(whole), snapshot(model))
    assert without_timing(resumed) == without_timing(history)
    assert training.read_history(RunFolder(tmp_path)) == resumed


SLOW = [], [pytest.mark.slow]
ENGINES = {
    "momentum, cosine, decay": {"optimizer": "sgd", "lr_schedule": "cosine", "weight_decay": 0.1},
    "averages": {"ema_momentum": 0.9},
    "all": {
        **{"optimizer": "adamw", "weight_decay": 0.1, "lr_warmup_steps": 2, "lr_schedule": "poly", "clipnorm": 1.0},
        **{"ema_momentum": 0.9, "gradient_accumulation_steps": 2},  # an update spans two epochs
    },
}


def engine(epochs, options, total=4):
    def compile_model(model):
        model.compile(optimizers.make_optimizer(0.05, total_steps=total * STEPS, **options), loss="mse")

    return Phase(epochs, compile_model)


@pytest.mark.parametrize(
    "options", [pytest.param(options, id=name, marks=SLOW[name != "all"]) for name, options in ENGINES.items()]
)
def test_resumed_with_every_optimizer_is_bit_identical(tmp_path, options):
    whole, history = fit(tmp_path / "whole", [engine(4, options)])
    fit(tmp_path / "parts", [engine(2, options)])
    model, resumed = fit(tmp_path / "parts", [engine(4, options)])
    assert_identical(snapshot(whole), snapshot(model))
    assert without_timing(resumed) == without_timing(history)
    assert float(model.optimizer.learning_rate) == (0.0 if "lr_schedule" in options else pytest.approx(0.05))


def averages_by_hand(model, momentum):
    """Train without averages as `fit` does, and average the weights after each update."""
    model.compile(optimizers.make_optimizer(0.05), loss="mse")
    averages, losses = None, []
    for epoch in range(2):
        for batch in stream(epoch * STEPS).take(STEPS):
            model.train_on_batch(*batch)
            now = [variable.numpy() for variable in model.trainable_variables]
            old = now if averages is None else averages
            averages = [momentum * kept + (1 - momentum) * new for kept, new in zip(old, now, strict=True)]
        weights = [variable.numpy() for variable in model.trainable_variables]
        for variable, average in zip(model.trainable_variables, averages, strict=True):
            variable.assign(average)
        losses.append(validation_loss(model))
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            variable.assign(weight)
    return averages, losses


@pytest.mark.filterwarnings("ignore")
def test_averages_are_validated_saved_and_chosen(tmp_path, caplog):
    averages, losses = averages_by_hand(make_model(), 0.75)
    seen = []

    def look(epoch):
        seen.append(model.get_layer("head").kernel.numpy())
        return {"val_seen": float(epoch)}

    model = make_model()
    phase = engine(2, {"ema_momentum": 0.75})
    with caplog.at_level(logging.WARNING, logger="absl"):
        _, history = fit(tmp_path, [phase], model, callbacks=[callbacks.add_columns(look)])
    assert "running statistics of batch normalizations" in caplog.text
    np.testing.assert_allclose([row["val_loss"] for row in history], losses, rtol=1e-5)
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_allclose(variable, average, atol=1e-6)
    np.testing.assert_array_equal(seen[-1], model.get_layer("head").kernel)
    best = make_model()
    assert losses[1] < losses[0]
    assert training.restore_best(best, RunFolder(tmp_path)) == 2
    assert_identical([v.numpy() for v in model.weights], [v.numpy() for v in best.weights])


def test_averages_through_two_phases_and_a_scaled_loss(tmp_path):
    """The second phase begins with the averages of the first; float16 puts an optimizer around ours."""
    try:
        training.set_precision("float16")
        phases = [engine(1, {"ema_momentum": 0.9}), engine(2, {"ema_momentum": 0.9}, total=2)]
        whole, history = fit(tmp_path / "whole", phases)
        fit(tmp_path / "parts", phases[:1])
        model, resumed = fit(tmp_path / "parts", phases)
        assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
        assert_identical(snapshot(whole), snapshot(model))
        assert without_timing(resumed) == without_timing(history)
    finally:
        training.set_precision("none")


def quick_phase(epochs):
    return Phase(epochs, lambda model: model.compile("sgd", loss="mse", run_eagerly=True))


def stopping(folder, values, patience, phases=None, limit=None):
    """Train with a made-up loss per epoch; ``limit``: an epoch after which the process dies."""

    def measure(epoch):
        if limit is not None and epoch > limit:
            raise KeyboardInterrupt
        return {"val_made": values[epoch - 1]}

    phases = [quick_phase(epochs) for epochs in phases or [len(values)]]
    inputs = keras.Input((6, 6, 1))
    zeros = {"kernel_initializer": "zeros"}
    model = keras.Model(inputs, keras.layers.Dense(2, **zeros)(keras.layers.Flatten()(inputs)))
    columns = callbacks.add_columns(measure)
    return fit(folder, phases, model, monitor="val_made", patience=patience, callbacks=[columns])


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [([3, 2, 2, 1, 5], 2, 5), ([3, 2, 2, 2.5, 0], 2, 4), ([3, 2, 1, 0.5], 1, 4), ([1, math.nan, 0.5, 1, 0], 1, 2)],
)
def test_it_stops_when_nothing_becomes_better(tmp_path, values, patience, epochs):
    """The same after a resume, at whatever epoch, and a training that has stopped does not go on."""
    _, history = stopping(tmp_path / "whole", values, patience)
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    with pytest.raises(KeyboardInterrupt):
        stopping(tmp_path / "parts", values, patience, limit=1)
    model, resumed = stopping(tmp_path / "parts", values, patience)
    assert without_timing(resumed) == without_timing(history)
    before = snapshot(model)
    again, unchanged = stopping(tmp_path / "parts", values, patience, limit=0)
    assert unchanged == resumed
    assert_identical(before, snapshot(again))


def test_the_warmup_does_not_count_for_stopping(tmp_path):
    _, history = stopping(tmp_path, [1, 2, 3, 4, 5, 6], 2, [3, 3])
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    _, history = stopping(tmp_path / "short", [1, 2, 3, 4, 5, 6], 1, [3, 3])
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]


def test_resume_in_a_new_folder_starts_from_the_beginning(tmp_path):
    _, history = fit(tmp_path / "new", [main_phase(1)])
    assert [row["epoch"] for row in history] == [1]


def test_steps_are_those_of_the_stream(tmp_path):
    """Over all epochs and phases the batches are consecutive: nothing is dropped or read twice."""
    seen = []

    def recorded(first_step):
        def record(step):
            seen.append(int(step))
            return np.float32(step)

        def batch(step):
            x, y = example(step)
            return x + 0.0 * tf.ensure_shape(tf.numpy_function(record, [step], tf.float32), ()), y

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # it reads ahead of what is trained on
        return tf.data.Dataset.counter(first_step).map(batch).with_options(options)

    fit(tmp_path, [warmup(1), main_phase(2)], train=recorded)
    assert seen == list(range(3 * STEPS))


def test_history_columns(uninterrupted):
    folder, _, history = uninterrupted
    with open(folder / "history.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        *("epoch", "phase", "loss", "mae", "val_loss", "val_mae"),
        *("seconds", "samples_per_second", "wait_share"),
    ]
    assert [(row["epoch"], row["phase"]) for row in history] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert [float(row["val_loss"]) for row in table] == [row["val_loss"] for row in history]


def test_what_is_measured_after_an_epoch_becomes_a_column(tmp_path):
    columns = callbacks.add_columns(lambda epoch: {"val_measured": 10.0 * epoch})
    _, history = fit(tmp_path, [warmup(1), main_phase(1)], monitor="val_measured", callbacks=[columns])
    assert [row["val_measured"] for row in history] == [10.0, 20.0]
    assert training.restore_best(make_model(), RunFolder(tmp_path)) == 1


def test_validation_of_the_last_epoch_is_that_of_the_final_weights(uninterrupted):
    _, model, history = uninterrupted
    assert history[-1]["val_loss"] == pytest.approx(validation_loss(model), rel=1e-5)


def test_timing_of_an_epoch(monkeypatch):
    """Two steps that end 1 s and 4 s after the begin of the epoch, then 1 s of validation."""
    now = iter([10.0, 11.0, 14.0, 15.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(now))
    waited = iter([100.0, 101.0])
    clock = types.SimpleNamespace(seconds=lambda: next(waited))
    rows = []
    recorder = callbacks.EpochRecorder(2, 2, 8, clock, rows.append, 9, tqdm(disable=True))
    callback = recorder.callback()
    callback.on_epoch_begin(4)
    callback.on_train_batch_end(0, {"loss": 2.0})
    callback.on_train_batch_end(1, {"loss": 1.5})
    callback.on_epoch_end(4, {"val_loss": 3.0, "loss": 1.5})
    expected = {"epoch": 5, "phase": 2, "loss": 1.5, "val_loss": 3.0}
    assert rows == [expected | {"seconds": 5.0, "samples_per_second": 4.0, "wait_share": 0.25}]
    assert list(rows[0])[:4] == list(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_loss_names_its_step(bad):
    callback = callbacks.EpochRecorder(1, 9, 4, WaitClock(), pytest.fail, 9, tqdm(disable=True)).callback()
    callback.on_epoch_begin(6)
    with pytest.raises(TrainingDiverged, match=f"the loss became {bad} in epoch 7, step 3 of 9"):
        callback.on_train_batch_end(2, {"loss": bad})


def test_frozen_encoder_is_bit_identical_after_the_warmup(tmp_path):
    model = make_model()
    before = [weight.numpy() for weight in model.get_layer("encoder").weights]
    head = model.get_layer("head").kernel.numpy()
    fit(tmp_path, [warmup(2)], model)
    assert_identical(before, [weight.numpy() for weight in model.get_layer("encoder").weights])
    assert not np.array_equal(head, model.get_layer("head").kernel.numpy())


def test_best_weights_come_back(tmp_path):
    """The learning rate of the second phase ruins the model, so the best epoch is one of the first."""
    ruin = Phase(2, lambda model: prepare(model, learning_rate=30.0))
    model, history = fit(tmp_path, [warmup(2), ruin])
    values = [row["val_loss"] for row in history]
    best = 1 + values.index(min(values))
    assert best <= 2
    assert training.restore_best(model, RunFolder(tmp_path)) == best
    assert validation_loss(model) == pytest.approx(min(values), rel=1e-5)
    uncompiled = make_model()
    training.restore_best(uncompiled, RunFolder(tmp_path))
    assert_identical([v.numpy() for v in model.weights], [v.numpy() for v in uncompiled.weights])
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == [f"epoch_{best:04d}.weights.h5", "epoch_0004.weights.h5"]


def test_without_a_monitor_the_last_epoch_is_the_best(tmp_path):
    """After a resume too, though the learning rate of the second phase ruins the model."""
    phases = [main_phase(1), Phase(2, lambda model: prepare(model, learning_rate=30.0))]
    for parts in (phases[:1], phases):
        model, history = fit(tmp_path, parts, monitor=None)
        state = json.loads((tmp_path / "state.json").read_text())
        assert state["best"] == state["last"]
        assert state["best"]["epoch"] == len(history)
        assert state["best_value"] is None
    assert history[-1]["val_loss"] > history[0]["val_loss"]
    last = snapshot(model)
    assert training.restore_best(model, RunFolder(tmp_path)) == 3
    assert_identical(last, snapshot(model))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_0003.weights.h5"]


def test_every_nth_checkpoint_is_kept(tmp_path):
    fit(tmp_path, [main_phase(5)], save_every=2)
    state = json.loads((tmp_path / "state.json").read_text())
    files = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "checkpoints").iterdir()}
    regular = {"checkpoints/epoch_0002.weights.h5", "checkpoints/epoch_0004.weights.h5"}
    assert files == regular | {state["last"]["file"], state["best"]["file"]}
    assert state["last"]["epoch"] == 5


def test_weights_that_a_kill_left_behind_the_last_epoch_are_removed(uninterrupted, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(uninterrupted[0], folder)
    kept = sorted((folder / "checkpoints").iterdir())
    (folder / "checkpoints" / "epoch_0099.weights.h5").touch()
    fit(folder, [warmup(2), main_phase(3)])
    assert sorted((folder / "checkpoints").iterdir()) == kept


def test_no_epoch_at_all(tmp_path):
    model, history = fit(tmp_path, [warmup(0), main_phase(0)])
    assert history == []
    with pytest.raises(UserError, match="no weights are the best"):
        training.restore_best(model, RunFolder(tmp_path))


def test_a_finished_training_is_left_as_it_is(uninterrupted):
    folder, whole, history = uninterrupted
    before = (folder / "state.json").read_text()
    model, again = fit(folder, [warmup(2), main_phase(3)])
    assert again == history
    assert_identical(snapshot(whole), snapshot(model))
    with pytest.raises(UserError, match="Resume with the same data and settings"):
        fit(folder, [main_phase(1)])
    assert (folder / "state.json").read_text() == before


@pytest.fixture
def copied(tmp_path, uninterrupted):
    """The folder of a finished run, the path of its last weights and a function that tries to resume it."""
    folder, _, _ = uninterrupted
    for path in folder.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())

    def resume(phases=None, model=None):
        return fit(tmp_path, phases or [warmup(2), main_phase(4)], model)

    return tmp_path, tmp_path / "checkpoints" / "epoch_0005.weights.h5", resume


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_weights_stop_the_resume(copied, damage):
    _, last, resume = copied
    content = bytearray(last.read_bytes())
    flipped = content.copy()
    for position in range(len(content) // 2, len(content) // 2 + 64):
        flipped[position] ^= 0xFF
    last.write_bytes({"truncated": content[: len(content) // 2], "flipped": flipped, "empty": b""}[damage])
    with pytest.raises(UserError, match=r"epoch_0005\.weights\.h5: truncated or altered"):
        resume()


def test_missing_weights_stop_the_resume(copied):
    _, last, resume = copied
    last.unlink()
    with pytest.raises(UserError, match=r"epoch_0005\.weights\.h5: no such file"):
        resume()


@pytest.mark.parametrize("content", ['{"phase": 1', '{"phase": 1}', "[]"])
def test_a_damaged_state_stops_the_resume(copied, content):
    folder, _, resume = copied
    (folder / "state.json").write_text(content)
    with pytest.raises(UserError, match=r"state\.json: (expected a JSON|steps_per_epoch: this key is missing)"):
        resume()


def test_another_experiment_stops_the_resume(copied):
    folder, _, resume = copied
    with pytest.raises(UserError, match="Resume with the same data and settings"):
        resume([main_phase(6)])
    # The optimizer of the file has moments for the whole model: Keras would only warn and start it afresh.
    with pytest.raises(UserError, match="does not fit the model"):
        resume([warmup(2), warmup(4)])
    inputs = keras.Input((6, 6, 1))
    encoder = keras.Model(inputs, keras.layers.Conv2D(5, 3)(inputs), name="encoder")
    other = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(encoder(inputs))))
    with pytest.raises(UserError, match="does not fit the model"):
        resume(model=other)


def test_a_moved_folder_can_be_resumed(copied):
    _, _, resume = copied
    _, history = resume()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]


def test_divergence_keeps_the_epoch_before(tmp_path):
    def poisoned(first_step):
        def batch(step):
            x, y = example(step)
            return x, tf.where(step == STEPS + 1, math.nan, y)

        return tf.data.Dataset.counter(first_step).map(batch)

    with pytest.raises(TrainingDiverged, match=r"epoch 2, step 2 of 3"):
        fit(tmp_path, [main_phase(3)], train=poisoned)
    assert [row["epoch"] for row in training.read_history(RunFolder(tmp_path))] == [1]
    assert not list(tmp_path.rglob(".unfinished-*"))
    _, history = fit(tmp_path, [main_phase(2)])
    assert len(history) == 2


def test_a_bad_validation_loss_is_not_saved(tmp_path):
    poisoned = validation().map(lambda x, y: (x, y * math.nan))
    with pytest.raises(TrainingDiverged, match="validation loss became nan in epoch 1"):
        fit(tmp_path, [main_phase(2)], validation_data=poisoned)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_weight_behind_a_good_loss_is_not_saved(tmp_path):
    model = make_model()

    def spoil(model):
        prepare(model, learning_rate=0.0)
        kernel = model.trainable_variables[-1]
        hide = lambda y_true, y_pred: keras.ops.mean(keras.ops.where(y_pred == y_pred, y_pred, 0.0), axis=-1)  # noqa: E731
        model.compile(optimizer="sgd", loss=hide)
        kernel.assign(kernel * np.nan)

    with pytest.raises(TrainingDiverged, match=r"the weight .* became NaN or infinite in epoch 1"):
        fit(tmp_path, [Phase(1, spoil)], model=model)
    assert not (tmp_path / "state.json").exists()


def test_a_metric_without_a_value_is_kept_as_such(tmp_path):
    def absent(y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1) * math.nan

    phase = Phase(1, lambda model: model.compile(optimizers.make_optimizer(0.01), loss="mse", metrics=[absent]))
    _, history = fit(tmp_path, [phase])
    assert math.isnan(history[0]["absent"])

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "state.json").read_text(), parse_constant=refuse)


def test_one_log_line_per_epoch_without_a_terminal(tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="absl"):
        fit(tmp_path, [main_phase(2)])
    lines = [record.getMessage() for record in caplog.records if "epoch " in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all(" (val " in line and "\n" not in line and len(line) < 112 for line in lines)
    assert capsys.readouterr() == ("", "")


def test_a_signal_in_an_epoch_drops_that_epoch_and_says_so(tmp_path, uninterrupted, caplog):
    """Whether its exception arrives, or is swallowed by a library and found at the end of the step."""
    _, whole, history = uninterrupted

    def interrupt(swallowed):
        def send(step, logs):
            if step == 1:
                with contextlib.suppress(KeyboardInterrupt if swallowed else ()):
                    signal.raise_signal(signal.SIGTERM)

        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: counted.append(epoch),
            on_train_batch_end=lambda step, logs: send(step, logs) if counted[-1] == after else None,
        )

    for after, swallowed in ((1, False), (3, True)):
        counted = []
        with pytest.raises(terminal.Interrupted), terminal.interruptible():
            fit(tmp_path, [warmup(2), main_phase(3)], callbacks=[interrupt(swallowed)])
        assert [row["epoch"] for row in training.read_history(RunFolder(tmp_path))] == list(range(1, after + 1))
        assert f"{tmp_path}: {after} of 5 epochs are kept" in caplog.text
    model, resumed = fit(tmp_path, [warmup(2), main_phase(3)])
    assert_identical(snapshot(whole), snapshot(model))
    assert without_timing(resumed) == without_timing(history)


def test_float16_volumes_need_a_gpu():
    training.check_precision("float16", 2)
    training.check_precision("bfloat16", 3)
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(UserError, match='mixed_precision: float16 needs a GPU.*use "bfloat16" or "none"'):
            training.check_precision("float16", 3)


def test_tensorboard_logs_are_optional(tmp_path):
    fit(tmp_path, [main_phase(1)], callbacks=training.tensorboard_callbacks(RunFolder(tmp_path)))
    written = list((tmp_path / "tensorboard").rglob("events.*"))
    assert bool(written) == (importlib.util.find_spec("tensorboard") is not None)


@pytest.mark.parametrize("name", ["none", "bfloat16", "float16"])
def test_precision_is_that_of_the_layers(name):
    try:
        training.set_precision(name)
        model = make_model()
        assert model.get_layer("head").compute_dtype == ("float32" if name == "none" else name)
        assert model.get_layer("head").kernel.dtype == "float32"
    finally:
        training.set_precision("none")


def child(folder, action):
    """Train in a process of its own; with "slow" every step takes long enough to be killed in."""

    def slowed(first_step):
        def wait(step):
            time.sleep(0.3 if action == "slow" else 0.0)
            return step

        def batch(step):
            step = tf.ensure_shape(tf.numpy_function(wait, [step], tf.int64, stateful=True), ())
            return example(step)

        return tf.data.Dataset.counter(first_step).map(batch)

    training.set_determinism(0, True)
    model = make_model()
    fit(folder, [warmup(2), main_phase(2)], model, train=slowed)
    np.savez(folder / "final.npz", *snapshot(model))


def start(folder, action):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(training.__file__).parents[2])
    return subprocess.Popen([sys.executable, __file__, str(folder), action], env=environment)


@pytest.mark.slow  # tests/robustness/test_torture.py kills a command
def test_killed_and_resumed_is_bit_identical(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    processes = [start(killed, "slow"), start(whole, "through")]
    deadline = time.monotonic() + 60
    while not (killed / "state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)  # into the next epoch
    processes[0].send_signal(signal.SIGKILL)
    assert processes[0].wait() == -signal.SIGKILL
    assert not (killed / "final.npz").exists()
    assert json.loads((killed / "state.json").read_text())["last"]["epoch"] < 4
    assert processes[1].wait(60) == 0
    assert start(killed, "resume").wait(60) == 0
    with np.load(whole / "final.npz") as one, np.load(killed / "final.npz") as other:
        assert_identical([one[name] for name in one], [other[name] for name in other])


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2])
