"""What pretraining does around a task: where crops come from, what it says of the scans and of the result."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from absl import logging

from self_supervised_3d_tasks import pretraining, training
from self_supervised_3d_tasks.config import load_experiment
from self_supervised_3d_tasks.data import pipeline
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.run_folder import RunFolder

TCPC = {"algorithm": "tcpc", "data_dim": 12, "volume_fitting": "crop", "num_segments": 4, "batch_size": 2}
CUBES = {"algorithm": "rubiks_cube", "data_dim": 16, "batch_size": 2, "head_units": [4]}
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
        run_folder = RunFolder.create(*experiment.run_location())
        pretraining.run(plan, run_folder)
        return run_folder.path, experiment

    return pretrain


@pytest.fixture
def no_training(monkeypatch):
    """Everything but the epochs themselves."""
    monkeypatch.setattr(training, "fit", lambda *args, **options: HISTORY)
    monkeypatch.setattr(training, "restore_best", lambda *args: None)


def scores(folder):
    with open(folder / "pretext_scores.csv", newline="") as file:
        return {row["metric"]: row for row in csv.DictReader(file)}


def test_every_stream_of_tcpc_is_centred_on_the_supervoxels_of_its_scans(run, monkeypatch):
    streams = []
    original = pipeline.pretraining_dataset

    def spy(store, **options):
        streams.append((store, options["centres"]))
        return original(store, **options)

    monkeypatch.setattr(pipeline, "pretraining_dataset", spy)
    _, experiment = run(**TCPC)
    finder = experiment.make_algorithm().crop_centres
    assert len(streams) == 3  # pictures, validation, training
    for store, centres in streams:
        assert len(centres) == len(store) > 0
        for index, found in enumerate(centres):
            np.testing.assert_array_equal(found, finder(store.image(index), (1.0, 1.0, 1.0)))
    assert {len(store) for store, _ in streams} == {2, 4}


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


def test_a_task_that_will_not_be_learned_is_warned_of(run, no_training, tmp_path, caplog):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(6):
        array = np.zeros((16, 16, 16), np.float32)
        array[:8] = np.random.default_rng(number).random((8, 16, 16))  # four of eight cubes are air
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"case{number}.nii.gz")
    with caplog.at_level(logging.converter.ABSL_WARNING):
        run(folder, **CUBES)
    assert "each of the first 4 training scans has a blank cube" in caplog.text
    caplog.clear()
    run(folder, **CUBES, min_foreground=0.0)
    assert "blank cube" not in caplog.text
