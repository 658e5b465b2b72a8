"""What a user gets wrong most often: one message that names the file or key, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from absl import flags

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
COMMON = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dim": 16,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "tensorboard": False,
    "log_level": "WARNING",
}
EXPERIMENTS = {
    "train": {"data_dir": "scans", "epochs": 1, "head_units": [8], "train_val_split": 0.75},
    "finetune": {
        "data_dir_train": "scans",
        "data_dir_test": "test",
        "num_classes": 2,
        "exp_splits": [100],
        "epochs_frozen": 0,
        "epochs_initialized": 0,
        "epochs_random": 1,
    },
}


@pytest.fixture
def workspace(tmp_path, write_scans, monkeypatch):
    """The current folder: four labelled scans and one labelled test scan."""
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 4)
    write_scans(tmp_path / "test", 1, prefix="test")
    return tmp_path


def write(folder: Path, command: str, **keys) -> Path:
    path = folder / f"{command}.json"
    path.write_text(json.dumps(COMMON | EXPERIMENTS[command] | keys))
    return path


def run(folder: Path, command: str, *arguments: str, **keys) -> subprocess.CompletedProcess:
    """Run the script in a process; a mistake in the data is found before TensorFlow is loaded, so this is quick."""
    line = [sys.executable, str(REPOSITORY / f"{command}.py"), str(write(folder, command, **keys)), *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def replace(path: Path, change) -> None:
    """Write a changed version of the voxels of a scan or mask."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.array(image.dataobj)), image.affine), path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put(value):
    def change(array):
        array[3, 4, 5] = value
        return array

    return change


@pytest.mark.parametrize(
    ("command", "file", "damage", "message"),
    [
        ("train", "scans/case2.nii.gz", truncate, "cannot be read"),
        ("train", "scans/case2.nii.gz", lambda path: replace(path, put(np.nan)), "1 of 4096 voxels are NaN"),
        ("train", "scans/case2.nii.gz", lambda path: replace(path, lambda array: array[..., 0]), "3 spatial axes"),
        ("finetune", "test/test0.nii.gz", truncate, "cannot be read"),
        ("finetune", "scans_labels/case1.nii.gz", truncate, "cannot be read"),
        ("finetune", "scans_labels/case1.nii.gz", lambda path: replace(path, put(2)), "has label 2, expected 0 to 1"),
        ("finetune", "test_labels/test0.nii.gz", lambda path: replace(path, put(9)), "has label 9, expected 0 to 1"),
        ("finetune", "scans_labels/case1.nii.gz", lambda path: replace(path, lambda array: array[1:]), "its grid is"),
        ("finetune", "scans_labels/case1.nii.gz", Path.unlink, "1 of 4 scans have no mask"),
    ],
)
def test_a_bad_file_is_named_and_no_run_folder_stays(workspace, command, file, damage, message):
    damage(workspace / file)
    result = run(workspace, command)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    folder, _, name = file.partition("/")
    assert folder in line
    assert name in line
    assert message in line
    assert not any((workspace / "runs").glob("*"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epochs_random": 0, "epochs_frozen": 1}, "model_checkpoint: needed by frozen"),
        ({"epochs_frozen": 1, "model_checkpoint": "nowhere"}, "nowhere: no such run folder; run the pretraining first"),
        ({"epochs_frozen": 1, "model_checkpoint": "scans"}, "scans: holds no encoder.keras"),
        ({"label_dir_train": "masks"}, "masks: this folder of masks does not exist"),
        ({"scores": ["dise"]}, "scores: 'dise' is no score of segmentation"),
    ],
)
def test_a_bad_key_of_finetuning_is_named_before_a_run_folder_is_made(workspace, keys, message):
    result = run(workspace, "finetune", **keys)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (workspace / "runs").exists()


def test_resuming_a_finished_run_says_where_it_is(workspace):
    experiment = load_experiment("train", write(workspace, "train"))
    folder = RunFolder.create("runs", "rotation_nifti", {})
    folder.write_json("config.json", experiment.model_dump(mode="json"))
    folder.mark("finished")
    result = run(workspace, "train", "--resume")
    assert (result.returncode, result.stdout) == (0, "run folder: runs/rotation_nifti\n")
    assert [path.name for path in Path("runs").iterdir()] == ["rotation_nifti"]


@pytest.fixture
def execute():
    """Run a command within this process, where TensorFlow is loaded already; errors are raised."""
    before = set(flags.FLAGS)

    def call(command: str, *arguments: str) -> None:
        experiment_run.define_flags()
        experiment_run.execute(command, *flags.FLAGS([f"{command}.py", *arguments])[1:])

    yield call
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


def test_a_checkpoint_of_another_architecture_is_refused_with_the_report(workspace, execute):
    other = load_experiment("finetune", write(workspace, "finetune", enc_filters=4))
    save_model(build.make_encoder(other, other.input_shape, seed=0), workspace / "pretrained" / "encoder.keras")
    keys = {"model_checkpoint": "pretrained", "epochs_frozen": 1, "run_name": "mine"}
    with pytest.raises(UserError, match=r"pretrained(.|\n)*Give the encoder options of the pretraining"):
        execute("finetune", str(write(workspace, "finetune", **keys)))
    assert list(Path("runs").iterdir()) == []


def test_a_dry_run_prints_the_plan_and_makes_nothing(workspace, execute, capsys):
    before = sorted(workspace.rglob("*"))
    path = write(workspace, "train", batch_size=2)
    execute("train", str(path), "--dry_run")
    text = capsys.readouterr().out
    assert "3 train, 1 validation from scans" in text
    assert "parameters" in text
    assert "2 per epoch, 1 epochs" in text
    assert sorted(workspace.rglob("*")) == sorted([*before, path])
