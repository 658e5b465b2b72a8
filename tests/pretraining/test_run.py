"""What pretraining does around a task: where crops come from, what it says of the scans and of the result."""

import csv
import json

import h5py
import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.algorithms.parts2whole import Parts2Whole
from self_supervised_3d_tasks.data import content
from self_supervised_3d_tasks.data.formats import read_channels
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.background import Background
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.pretraining import run as pretraining
from self_supervised_3d_tasks.training import batch_statistics

TCPC = {"algorithm": "tcpc", "data_dim": 12, "volume_fitting": "crop", "num_segments": 4, "batch_size": 2}
EXEMPLAR = {"algorithm": "exemplar", "data_dim": 8, "batch_size": 2, "code_size": 4}
CUBES = {"algorithm": "rubiks_cube", "data_dim": 16, "batch_size": 2, "head_units": [4]}
PARTS = {"algorithm": "parts2whole", "data_dim": 8, "batch_size": 2}
EXEMPLAR = {"algorithm": "exemplar", "data_dim": 8, "batch_size": 2, "code_size": 4}
SMALL = {"enc_filters": 2, "num_layers": 1, "pooling": "none", "dropout": 0.0, "epochs": 1, "tensorboard": False}
METRICS = ("loss", "accuracy", "order_accuracy", "horizontal_accuracy", "complete")
HISTORY = [{"epoch": 1} | {f"{part}{name}": 0.5 for part in ("", "val_") for name in METRICS}]


@pytest.fixture
def run(tmp_path, write_scans):
    """Pretrain for one epoch on six scans; returns the run folder and the experiment."""

    def pretrain(scans=None, **keys):
        folder = scans or write_scans(tmp_path / "scans", 6)
        values = {"dataset_name": "nifti", "data_dir": str(folder), "train_val_split": 0.6, **SMALL, **keys}
        values["base_workspace"] = str(tmp_path / "runs")
        path = tmp_path / "experiment.json"
        path.write_text(json.dumps(values))
        experiment = load_experiment("train", path)
        plan = pretraining.plan(experiment)
        run_folder = RunFolder.create(*experiment.run_location(), {})
        pretraining.run(plan, run_folder)
        return run_folder.path, experiment

    return pretrain


@pytest.fixture
def no_training(monkeypatch):
    """Everything but the epochs themselves."""
    monkeypatch.setattr(training, "fit", lambda *args, **options: HISTORY)
    monkeypatch.setattr(training, "restore_best", lambda *args: HISTORY[0]["epoch"])


def scores(folder):
    with open(folder / "pretext_scores.csv", newline="") as file:
        return {row["metric"]: row for row in csv.DictReader(file)}


def test_every_stream_of_tcpc_is_centred_on_the_supervoxels_of_its_scans(run, monkeypatch):
    streams = []
    original = pipeline.pretraining_dataset

    def spy(store, **options):
        streams.append((store, options["crops"].centres))
        return original(store, **options)

    monkeypatch.setattr(pipeline, "pretraining_dataset", spy)
    _, experiment = run(**TCPC)
    finder = build.make_algorithm(experiment).sampling.crop_centres
    assert len(streams) == 3  # pictures, validation, training
    for store, centres in streams:
        assert len(centres) == len(store) > 0
        for index, found in enumerate(centres):
            np.testing.assert_array_equal(found, finder(store.image(index), (1.0, 1.0, 1.0)))
    assert {len(store) for store, _ in streams} == {2, 4}


def test_every_stream_has_the_background_of_the_experiment(run, no_training, monkeypatch):
    backgrounds = []
    original = pipeline.pretraining_dataset

    def spy(store, **options):
        backgrounds.append(options["crops"].background)
        return original(store, **options)

    def fit(*args, data, **options):
        data.train(0)
        return HISTORY

    monkeypatch.setattr(pipeline, "pretraining_dataset", spy)
    monkeypatch.setattr(training, "fit", fit)
    run(**CUBES, volume_fitting="crop", intensity_window=[-1, 3], background_level=0.5, background_share=[0.1, 0.9])
    assert backgrounds == [Background(0.375, (0.1, 0.9))] * 3  # pictures, validation, training


def test_the_run_folder_keeps_what_was_seen(run, no_training, tmp_path):
    """Training and validation scans, so that a finetuning knows them again among its test cases."""
    path, _ = run(**CUBES, subject_pattern="([0-9])$")
    split, scans = (json.loads((path / name).read_text()) for name in ("split.json", "seen.json"))
    received = {(scan["part"], scan["case"], scan["subject"], *scan["channels"]) for scan in scans["scans"]}
    expected = set()
    for name in split["train"] + split["validation"]:
        part = "train" if name in split["train"] else "validation"
        hashes = content.hash_channels(read_channels([tmp_path / "scans" / f"{name}.nii.gz"], 3))
        expected.add((part, name, name[-1], *hashes))
    assert received == expected
    assert len({scan[3] for scan in received}) == 6


@pytest.mark.parametrize("fitting", [None, "resize", "exact"])
def test_tcpc_needs_whole_scans_to_crop_from(run, fitting):
    with pytest.raises(UserError, match='volume_fitting: tcpc cuts sub-volumes .* use "crop" instead of'):
        run(**TCPC | {"volume_fitting": fitting})


def scans_with_an_empty_one(write_scans, folder):
    """Six scans of which the first, but for one voxel, is air."""
    write_scans(folder, 6)
    array = np.zeros((16, 16, 16), np.float32)
    array[0, 0, 0] = 1.0
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / "case0.nii.gz")
    return folder


def test_a_scan_without_tissue_stops_tcpc_with_its_name(run, no_training, tmp_path, write_scans):
    folder = scans_with_an_empty_one(write_scans, tmp_path / "scans")
    with pytest.raises(UserError, match=r"case0.nii.gz: has no supervoxel to centre a crop on.*on_bad_file"):
        run(folder, **TCPC)


def test_a_scan_without_tissue_can_be_skipped(run, no_training, tmp_path, write_scans):
    folder = scans_with_an_empty_one(write_scans, tmp_path / "scans")
    path, _ = run(folder, **TCPC, on_bad_file="skip", train_val_split=0.5)
    split = json.loads((path / "split.json").read_text())
    assert [skipped["case"] for skipped in split["skipped"]] == ["case0"]
    assert sorted(split["train"] + split["validation"]) == [f"case{number}" for number in range(1, 6)]


def test_chance_stands_beside_what_was_learned(run, no_training):
    path, _ = run(**CUBES)
    rows = scores(path)
    assert float(rows["order_accuracy"]["training_chance"]) == 1 / 100
    assert float(rows["horizontal_accuracy"]["validation_chance"]) == pytest.approx(2 / 3)
    assert rows["complete"]["validation_chance"] == rows["loss"]["validation_chance"] == ""


def test_chance_of_validation_is_that_of_its_batches(run, no_training):
    # Three scans train and three validate; then four and two, which are a smaller batch.
    path, _ = run(**TCPC | {"batch_size": 3, "train_val_split": 0.5})
    row = scores(path)["accuracy"]
    assert float(row["training_chance"]) == pytest.approx(1 / (3 * 8))
    assert float(row["validation_chance"]) == pytest.approx(1 / (3 * 8))
    path, _ = run(path.parents[1] / "scans", **TCPC | {"batch_size": 4, "train_val_split": 0.7})
    row = scores(path)["accuracy"]
    assert float(row["training_chance"]) == pytest.approx(1 / (4 * 8))
    assert float(row["validation_chance"]) == pytest.approx(1 / (2 * 8))


def test_the_optimizer_is_that_of_the_file_and_its_schedule_as_long_as_the_training(run, no_training, monkeypatch):
    seen = []

    def compile_only(model, *, phases, data, **options):
        phases[0].prepare(model)
        seen.append((model.optimizer, phases[0].epochs * data.steps_per_epoch))
        return HISTORY

    monkeypatch.setattr(training, "fit", compile_only)
    keys = {"optimizer": "sgd", "momentum": 0.5, "lr": 0.2, "lr_schedule": "cosine", "clipvalue": 3.0}
    run(**CUBES, **keys | {"epochs": 4})
    ((optimizer, steps),) = seen
    assert (optimizer.momentum, optimizer.clipvalue, steps) == (0.5, 3.0, 8)
    rates = []
    for step in (0, steps // 2, steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0.2, 0.1, 0.0])


@pytest.mark.slow
def test_what_is_exported_are_the_averages_of_the_best_epoch(run):
    """With everything else that a training can be given, and maps that are computed again."""
    keys = {"optimizer": "adamw", "lr_schedule": "poly", "lr_warmup_steps": 1, "clipnorm": 1.0, "ema_momentum": 0.9}
    keys |= {"gradient_accumulation_steps": 2, "early_stopping_patience": 2, "remat": True, "jit_compile": False}
    path, _ = run(**CUBES, **keys | {"epochs": 2})
    folder = RunFolder(path)
    encoder = load_model(folder.encoder)
    assert (folder.plots / "learning_rate.png").exists()
    state = training.checkpoints.read_state(folder)
    with h5py.File(path / state.best.file) as file:
        averages = file["optimizer"]["vars"]
        shapes = [averages[name].shape for name in averages]
        stored = file["layers"]["functional"]["layers"]["conv3d"]["vars"]["0"][:]
    assert shapes.count(stored.shape) >= 4  # two moments, the weights behind the averages, the sum of gradients
    np.testing.assert_array_equal(encoder.get_layer("level_0_conv_1").kernel, stored)


def test_the_codes_of_a_task_that_compares_are_watched(run):
    """Columns of history.csv and of the scores, and curves in TensorBoard."""
    path, _ = run(**EXEMPLAR, epochs=2, tensorboard=True)
    with open(path / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) == 2
    for row in history:
        assert 1 <= float(row["val_rank_codes"]) <= 3  # two scans, each with its anchor
        assert 0 < float(row["val_spread_codes"]) <= 1
    best = min(history, key=lambda row: float(row["val_loss"]))
    assert float(scores(path)["rank_codes"]["validation"]) == float(best["val_rank_codes"])
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(path / "tensorboard" / "validation")).Reload()
    for name in ("rank_codes", "spread_codes"):
        drawn = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{name}")]
        np.testing.assert_allclose(drawn, [float(row[f"val_{name}"]) for row in history], rtol=1e-6)


@pytest.fixture
def half_empty(tmp_path):
    """Six scans of which one half is air: four of eight cubes."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(6):
        array = np.zeros((16, 16, 16), np.float32)
        array[:8] = np.random.default_rng(number).random((8, 16, 16))
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"case{number}.nii.gz")
    return folder


def test_a_task_that_is_learned_in_part_is_warned_of(run, no_training, half_empty, caplog):
    with caplog.at_level(logging.converter.ABSL_WARNING):
        run(half_empty, **CUBES)
    assert "min_foreground: 0 of the first 4 training scans have at least 95%" in caplog.text
    assert "the order is not learned from them" in caplog.text
    caplog.clear()
    run(half_empty, **CUBES, min_foreground=0.0)
    assert "min_foreground: 4 of the first 4 training scans count at 0 that do not at 0.95: air shows" in caplog.text
    assert "the order is not learned from them" not in caplog.text


def test_a_task_of_which_nothing_will_be_learned_is_refused_before_the_first_step(
    run, no_training, half_empty, monkeypatch
):
    monkeypatch.setattr(training, "fit", lambda *args, **options: pytest.fail("trained"))
    keys = CUBES | {"algorithm": "jigsaw"}
    with pytest.raises(UserError, match="^min_foreground: 0 of the first 4 training scans .* nothing is learned from"):
        run(half_empty, **keys)
    monkeypatch.setattr(training, "fit", lambda *args, **options: HISTORY)
    run(half_empty, **keys, min_foreground=0.0)


def test_a_task_with_a_decoder_leaves_it_with_its_encoder(run, no_training):
    path, _ = run(**PARTS, normalization="batch")
    encoder, whole = load_model(path / "encoder.keras"), load_model(path / "encoder_decoder.keras")
    for one, other in zip(encoder.weights, whole.get_layer("encoder").weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.get_layer("decoder_logits").output.shape == (None, 8, 8, 8, 1)
    assert not any(np.any(weight) for weight in whole.weights if weight.name == "moving_mean")  # as they were
    assert not (run(path.parents[1] / "scans", **CUBES)[0] / "encoder_decoder.keras").exists()


def test_statistics_that_mix_sizes_are_taken_from_what_the_decoder_works_on(run, no_training, monkeypatch):
    batches = []
    original = batch_statistics.recompute

    def spy(model, images):
        batches.extend(images)
        return original(model, batches)

    monkeypatch.setattr(batch_statistics, "recompute", spy)
    monkeypatch.setattr(Parts2Whole, "encoder_shapes", [(8, 8, 8, 1), (4, 4, 4, 1)])
    path, _ = run(**PARTS, normalization="batch")
    assert [batch.shape for batch in batches] == [(2, 8, 8, 8, 1)] * 2  # four scans train, for one epoch
    encoder = load_model(path / "encoder.keras")
    norm = next(layer for layer in encoder.layers if hasattr(layer, "moving_mean"))
    seen = keras.Model(encoder.input, norm.input)
    means = [np.mean(seen(batch), axis=(0, 1, 2, 3)) for batch in batches]
    np.testing.assert_allclose(norm.moving_mean, np.mean(means, axis=0), rtol=1e-5)
    whole = load_model(path / "encoder_decoder.keras")
    assert np.any(whole.get_layer("decoder_level_0_norm_1").moving_mean)
