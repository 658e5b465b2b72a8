"""The analysis of a pretraining, from its run folder to the written files."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.pretraining import run as pretraining
from self_supervised_3d_tasks.pretraining.analysis import Sample, analyse
from self_supervised_3d_tasks.pretraining.scans import read_scans

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {
    "algorithm": "parts2whole",
    "dataset_name": "nifti",
    "data_dim": 16,
    "train_val_split": 0.5,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "normalization": "none",
    "dropout": 0.0,
    "optimizer": "sgd",
    "epochs": 2,
    "restoration_picture_every_n_epochs": 2,
    "tensorboard": False,
}
FILES = {"similarity.png", "embedding.png", "restorations.png", "analysis.json"}
SAMPLE = Sample(data_dir=None, num_images=30, parts_per_image=4, seed=0)


def pretrain(folder: Path, **keys) -> RunFolder:
    """Pretrain on ``folder/scans``."""
    path = folder / "train.json"
    values = KEYS | {"data_dir": str(folder / "scans"), "base_workspace": str(folder / "runs")} | keys
    path.write_text(json.dumps(values))
    experiment = load_experiment("train", path)
    run = RunFolder.create(*experiment.run_location(), {})
    run.write_json("config.json", experiment.model_dump(mode="json"))
    pretraining.run(pretraining.plan(experiment), run)
    run.mark("finished")
    return run


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, write_scans):
    """Six scans and two others."""
    folder = tmp_path_factory.mktemp("workspace")
    write_scans(folder / "scans", 6)
    write_scans(folder / "others", 2, prefix="other")
    return folder


@pytest.fixture(scope="module")
def run(workspace):
    """The run folder of a pretraining on three of the six scans."""
    return pretrain(workspace)


def numbers(run: RunFolder) -> dict[str, dict]:
    return {number["name"]: number for number in run.read_json("analysis/analysis.json")["numbers"]}


def test_every_epoch_has_its_columns_and_the_pictures_are_drawn(run):
    with open(run.path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert -1 <= float(row["val_similarity_different"]) <= 1
        assert -1 <= float(row["val_similarity_same"]) <= 1
        assert 0 < float(row["val_probe"]) < 2 * math.log(1 + 2)  # two wholes of two parts
    assert [path.name for path in run.path.glob("plots/restoration_*")] == ["restoration_epoch_0002.png"]


def test_validation_scans_are_analysed(run):
    table = analyse(run, SAMPLE)
    assert {path.name for path in (run.path / "analysis").iterdir()} == FILES
    content = run.read_json("analysis/analysis.json")
    assert content["wholes"] == 3
    assert content["mean_image"]["n"] == 3
    found = numbers(run)
    assert all(number["unit"] and number["of"] and number["n"] > 0 for number in found.values())
    assert found["similarity_same_mean"]["n"] == 3 * 4 * 3 / 2
    assert found["similarity_different_mean"]["n"] == 3 * 4 * 4
    assert found["probe"]["n"] == 3 * 4 * 3
    assert found["probe_chance"]["value"] == pytest.approx(math.log(1 + 8))
    scans = content["per_scan"]["scans"]
    assert [scan["scan"] for scan in scans] == run.read_json("split.json")["validation"]
    for name in ("mse", "mean_image_mse"):
        assert found[f"{name}_mean"]["value"] == pytest.approx(np.mean([scan[name] for scan in scans]))
    assert f"{found['probe']['value']:.3f}" in table
    assert "3 wholes of 3 validation scans, 4 parts each" in table

    # All parts of a whole want the same image, so that the mean image errs as much for each of them.
    plan = pretraining.plan(load_experiment("train", run.path / "config.json"))
    train, validation = (
        read_scans(plan.experiment, plan.algorithm, cases).store for cases in (plan.train, plan.validation)
    )
    mean = np.mean([train.image(index) for index in range(3)], axis=0)
    for index, scan in enumerate(scans):
        assert scan["mean_image_mse"] == pytest.approx(np.mean((validation.image(index) - mean) ** 2), rel=1e-5)
        assert scan["n"] == 4


@pytest.mark.slow
def test_other_scans_can_be_analysed_and_those_that_trained_are_warned_of(run, workspace, caplog):
    with caplog.at_level(logging.converter.ABSL_WARNING):
        analyse(run, replace(SAMPLE, data_dir=str(workspace / "others")))
        assert "trained the run" not in caplog.text
        scans = run.read_json("analysis/analysis.json")["per_scan"]["scans"]
        assert [scan["scan"] for scan in scans] == ["other0", "other1"]
        analyse(run, replace(SAMPLE, data_dir=str(workspace / "scans"), num_images=2))
    assert "3 of the 6 scans trained the run" in caplog.text
    assert len(run.read_json("analysis/analysis.json")["per_scan"]["scans"]) == 2


@pytest.mark.slow
def test_crops_give_several_wholes_of_a_scan(workspace):
    run = pretrain(workspace, data_dim=8, volume_fitting="crop", patches_per_scan=2, run_name="crops")
    analyse(run, replace(SAMPLE, num_images=8))
    content = run.read_json("analysis/analysis.json")
    assert content["wholes"] == 8
    assert content["mean_image"]["n"] == 6
    assert [scan["n"] for scan in content["per_scan"]["scans"]] == [12, 12, 8]


def fake_run(folder: Path, *, finished: bool, **keys) -> RunFolder:
    folder.mkdir()
    run = RunFolder(folder)
    run.write_json("config.json", KEYS | {"data_dir": "scans"} | keys)
    run.mark("finished" if finished else "running")
    return run


def test_a_task_without_a_decoder_names_those_that_have_one(tmp_path):
    run = fake_run(tmp_path / "run", finished=True, algorithm="rotation")
    with pytest.raises(UserError, match=r"run: pretrained with rotation, which has no decoder; .*: .*parts2whole"):
        analyse(run, SAMPLE)


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"run: this pretraining has not finished; .*--resume"):
        analyse(fake_run(tmp_path / "run", finished=False), SAMPLE)


def test_a_folder_that_is_no_pretraining_is_named(tmp_path):
    with pytest.raises(UserError, match="no config.json here: expected the run folder of a pretraining"):
        analyse(RunFolder(tmp_path), SAMPLE)
    (tmp_path / "config.json").write_text(json.dumps({"data_dir_train": "scans"}))
    with pytest.raises(UserError, match="the run folder of a finetuning"):
        analyse(RunFolder(tmp_path), SAMPLE)


def test_a_scan_of_the_split_that_is_gone_is_named(run, tmp_path, workspace):
    copy = fake_run(tmp_path / "run", finished=True, data_dir=str(workspace / "scans"))
    split = run.read_json("split.json")
    copy.write_json("split.json", split | {"validation": ["lost", *split["validation"]]})
    with pytest.raises(UserError, match=r"scans: 1 scans of .*split.json are not there any more, .*'lost'"):
        analyse(copy, SAMPLE)
