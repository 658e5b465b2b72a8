"""Pretraining, finetuning and prediction on volumes with a class each: NIfTI with a table, and an archive.

Of .npy files with a table see tests/downstream/test_classification.py.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from absl import flags
from sklearn.metrics import accuracy_score, roc_auc_score

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep
from self_supervised_3d_tasks.prediction import load_predictor
from self_supervised_3d_tasks.scores.report import read_long

MODES = ("frozen", "initialized", "random")
SIDE = 8
COMMON = {
    "algorithm": "rotation",
    "data_dim": SIDE,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "normalization": "none",
    "batch_size": 4,
    "steps_per_epoch": 2,
    "tensorboard": False,
}
TRAIN = COMMON | {"epochs": 1, "head_units": [4], "train_val_split": 0.75}
FINETUNE = COMMON | {
    "num_classes": 3,
    "prediction_architecture": "simple_multiclass",
    "exp_splits": [100],
    "repetitions": 1,
    "epochs_initialized": 1,
    "epochs_warmup": 0,
    "epochs_random": 1,
    "epochs_frozen": 1,
    "val_split": 0.25,
    "test_split": 0.25,
    "scores": ["cat_accuracy", "roc_auc"],
}


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return volumes ``(count, *spatial)`` of three kinds of brightness, and their classes."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(seed).normal(0, 50, (count, SIDE, SIDE, SIDE))
    noise[:, : SIDE // 2] += 400 * labels[:, None, None, None]
    return np.clip(noise + 500, 0, 4095).astype(np.int16), labels


def make_archive(folder: Path) -> tuple[dict, dict, str]:
    """Write an archive; return the keys of pretraining and finetuning, and what to predict."""
    images, labels = draw(24, 0)
    test_images, test_labels = draw(9, 1)
    np.savez_compressed(
        folder / "organ.npz",
        **{"train_images": images, "train_labels": labels[:, None].astype(np.uint8)},
        train_patient=np.array([f"p{number // 6 * 3 + number % 3}" for number in range(24)]),
        **{"val_images": test_images, "val_labels": test_labels.astype(np.uint8), "class_names": np.array(["a", "b"])},
    )
    layout = {"dataset_name": "medmnist"}
    finetune = layout | {"data_dir_train": "organ.npz/train", "data_dir_test": "organ.npz/val"}
    return layout | {"data_dir": "organ.npz/train"}, finetune, "organ.npz/val"


def make_nifti(folder: Path) -> tuple[dict, dict, str]:
    """Write NIfTI files and a table; return the same as `make_archive`."""
    (folder / "scans").mkdir()
    rows = [("file", "class")]
    for number, (image, label) in enumerate(zip(*draw(24, 0), strict=True)):
        nib.save(nib.Nifti1Image(image, np.diag([-1, 1, 2, 1])), folder / "scans" / f"scan{number:02}.nii.gz")
        rows.append((f"scan{number:02}.nii.gz", label))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    layout = {"dataset_name": "nifti"}
    table = {"csv_file": "labels.csv", "image_column": "file", "label_column": "class"}
    return layout | {"data_dir": "scans"}, layout | {"data_dir_train": "scans"} | table, "scans"


def execute(command: str, values: dict) -> None:
    """Run a command within this process, where TensorFlow is loaded already."""
    Path(f"{command}.json").write_text(json.dumps(values))
    before = set(flags.FLAGS)
    experiment_run.define_flags()
    try:
        experiment_run.execute(command, *flags.FLAGS([f"{command}.py", f"{command}.json"])[1:])
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


@pytest.fixture(scope="module", params=[make_archive, pytest.param(make_nifti, marks=pytest.mark.slow)])
def finished(request, tmp_path_factory):
    """A finished pretraining and sweep."""
    folder, before = tmp_path_factory.mktemp("volumes"), Path.cwd()
    os.chdir(folder)
    try:
        train, finetune, source = request.param(folder)
        execute("train", TRAIN | train)
        checkpoint = f"runs/rotation_{train['dataset_name']}"
        execute("finetune", FINETUNE | finetune | {"model_checkpoint": checkpoint})
        yield SimpleNamespace(
            run=RunFolder(folder / f"{checkpoint}_test"), source=Path(source), archive="npz" in source
        )
    finally:
        os.chdir(before)


of_an_archive = pytest.mark.parametrize("finished", [make_archive], indirect=True)


def predictions(finished: SimpleNamespace, mode: str) -> SimpleNamespace:
    """What predictions.csv holds of each test case."""
    with open(finished.run.job(f"100_{mode}_0").predictions, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth, prediction = (np.array([int(row[column]) for row in rows]) for column in ("truth", "prediction"))
    probabilities = np.array([[float(row[f"probability_{label}"]) for label in range(3)] for row in rows])
    names = [row["case"] for row in rows]
    return SimpleNamespace(names=names, truth=truth, prediction=prediction, probabilities=probabilities)


def test_accuracy_and_area_of_three_classes_are_those_of_the_predictions(finished):
    rows = read_long(finished.run.path / "results_long.csv")
    scores = {(row.mode, row.metric): row.value for row in rows}
    assert scores.keys() == {(mode, metric) for mode in MODES for metric in ("cat_accuracy", "roc_auc")}
    for mode in MODES:
        found = predictions(finished, mode)
        assert set(found.truth) == {0, 1, 2}
        area = roc_auc_score(found.truth, found.probabilities, multi_class="ovr", average="macro")
        assert scores[mode, "roc_auc"] == pytest.approx(area)
        assert scores[mode, "cat_accuracy"] == pytest.approx(accuracy_score(found.truth, found.prediction))


def test_parts_are_apart(finished):
    split = finished.run.read_json("split.json")
    (train,) = split["train"].values()
    assert len({*train, *split["validation"], *split["test"]}) == (33 if finished.archive else 24)
    if finished.archive:
        assert split["test"] == [f"val_{number:05}" for number in range(9)]
        assert split["test_labels"] == {f"val_{number:05}": number % 3 for number in range(9)}
        people = [
            {int(name[-5:]) // 6 * 3 + int(name[-5:]) % 3 for name in part} for part in (train, split["validation"])
        ]
        assert not people[0] & people[1]


def test_what_was_tested_is_predicted_the_same(finished, tmp_path):
    predictor = load_predictor(finished.run.path, job="100_initialized_0")
    assert list(predictor.predict_path(finished.source, tmp_path / "classes.csv")) == [tmp_path / "classes.csv"]
    with open(tmp_path / "classes.csv", newline="", encoding="utf-8") as file:
        rows = {row["image"].removesuffix(".nii.gz"): row for row in csv.DictReader(file)}
    assert len(rows) == (9 if finished.archive else 24)
    found = predictions(finished, "initialized")
    for name, probabilities in zip(found.names, found.probabilities, strict=True):
        received = [float(rows[name][f"probability_{label}"]) for label in range(3)]
        np.testing.assert_allclose(received, probabilities, atol=1e-4)


@of_an_archive
def test_a_table_of_one_part_goes_on_with_another(finished, tmp_path):
    predictor, target = load_predictor(finished.run.path), tmp_path / "classes.csv"
    list(predictor.predict_path(Path("organ.npz/val"), target))
    assert predictor.plan(Path("organ.npz/val"), target, resume=True).jobs == []
    assert len(predictor.plan(Path("organ.npz/train"), target, resume=True).jobs) == 24


@of_an_archive
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("organ.npz", r"Say which, for example .*train\."),
        ("organ.npz/test", "its parts are train, val"),
        ("scan.nii", "scan.nii: expected an archive of MedMNIST form"),
    ],
)
def test_what_is_no_part_is_not_predicted(finished, tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        load_predictor(finished.run.path).plan(Path(source), tmp_path / "classes.csv")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_classes": 2}, r"organ\.npz/train/00002 has label 2, expected 0 to 1 \(num_classes = 2\)"),
        ({"label_map": {"1": 0, "2": 0}}, "data_dir_train, label_map: organ.npz/train gives class 0 to all of the 24"),
        ({"data_dir_test": "organ.npz/train"}, "00000: is a training file and a test file"),
        ({"data_dir_train": "organ.npz"}, "Say which, for example .*train"),
    ],
)
def test_a_mistake_with_an_archive_is_found_before_training(tmp_path, monkeypatch, keys, message):
    monkeypatch.chdir(tmp_path)
    _, finetune, _ = make_archive(tmp_path)
    scratch = {"epochs_frozen": 0, "epochs_initialized": 0}
    Path("finetune.json").write_text(json.dumps(FINETUNE | finetune | scratch | keys))
    with pytest.raises(UserError, match=message):
        finetune_sweep.plan(load_experiment("finetune", "finetune.json"))


def test_labels_of_an_archive_that_change_stop_a_resumption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, finetune, _ = make_archive(tmp_path)
    scratch = {"epochs_frozen": 0, "epochs_initialized": 0}
    Path("finetune.json").write_text(json.dumps(FINETUNE | finetune | scratch))
    plan = finetune_sweep.plan(load_experiment("finetune", "finetune.json"))
    run = RunFolder.create(Path("runs"), "changed", {})
    before = {"val_00000": 2, "val_00001": 1}
    run.write_json("split.json", {"train": {}, "validation": [], "test": [], "test_labels": before})
    with pytest.raises(UserError, match="first that of 'val_00000' from 2 to 0; restore data_dir_test, or start a new"):
        finetune_sweep.run(plan, run)
