"""The real commands on tiny scans, as a user runs them from a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 16
NETWORK = {"enc_filters": 2, "num_layers": 1, "pooling": "none", "normalization": "group", "dropout": 0.1}
COMMON = {"algorithm": "rotation", "dataset_name": "nifti", "data_dim": SIDE, "tensorboard": False} | NETWORK
TRAIN = COMMON | {
    "data_dir": "scans",
    "epochs": 3,
    "steps_per_epoch": 120,
    "batch_size": 2,
    "head_units": [8],
    "train_val_split": 0.75,
}
FINETUNE = COMMON | {
    "model_checkpoint": "runs/rotation_nifti",
    "data_dir_train": "scans",
    "label_dir_train": "masks",
    "num_classes": 2,
    "exp_splits": [100],
    "repetitions": 1,
    "epochs_initialized": 2,
    "epochs_warmup": 1,
    "epochs_random": 1,
    "epochs_frozen": 1,
    "steps_per_epoch": 2,
    "val_split": 0.25,
    "test_split": 0.25,
}
# Axes flipped and swapped, anisotropic voxels: what a scanner writes.
AFFINE = np.array([[0, -2.0, 0, 10], [-1.5, 0, 0, 20], [0, 0, 3.0, -30], [0, 0, 0, 1]])


def make_scans(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("scans", "masks"):
        (folder / kind).mkdir()
    for index in range(8):
        shape = (SIDE, SIDE + index, SIDE - 2)
        mask = np.zeros(shape, np.uint8)
        corner = rng.integers(2, 6, 3)
        mask[tuple(slice(start, start + 6) for start in corner)] = 1
        image = (100 * mask + rng.normal(50, 10, shape)).astype(np.float32)
        for kind, array in (("scans", image), ("masks", mask)):
            nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"case_{index}.nii.gz")


def start(folder: Path, script: str, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, script, *arguments)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def write(folder: Path, name: str, values: dict) -> str:
    (folder / name).write_text(json.dumps(values))
    return name


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Scans, and the run folders that the commands left."""
    folder = tmp_path_factory.mktemp("workspace")
    make_scans(folder)
    write(folder, "train.json", TRAIN)
    write(folder, "finetune.json", FINETUNE)
    for script, name, parent in (
        ("train.py", "rotation_nifti", "runs"),
        ("finetune.py", "rotation_nifti_test", "runs"),
    ):
        code, out, err = run(folder, script, f"{script.removesuffix('.py')}.json")
        assert code == 0, err
        assert out.splitlines()[-1] == f"run folder: {parent}/{name}"
    return folder


def test_pretraining_leaves_what_the_readme_says(workspace):
    found = {path.name for path in (workspace / "runs" / "rotation_nifti").iterdir()}
    expected = "config.json environment.json split.json history.csv encoder.keras encoder.keras.sha256 status.json"
    assert found >= {*expected.split(), "plots", "checkpoints"}


def test_finetuning_writes_upstreams_table_and_keeps_the_best_weights(workspace):
    folder = workspace / "runs" / "rotation_nifti_test"
    header, row = (folder / "results.csv").read_text().splitlines()
    modes = ("frozen", "initialized", "random")
    columns = [f"Weights_{mode}_dice_{statistic}" for mode in modes for statistic in ("min", "avg", "max")]
    assert header == ",".join(["Train Split", *columns])
    assert row.startswith("100%,")
    split = json.loads((folder / "split.json").read_text())
    rows = (folder / "results_long.csv").read_text().splitlines()[1:]
    assert len(rows) == len(modes) * len(split["test"])
    for mode in modes:
        assert (folder / "jobs" / f"100_{mode}_0" / "model.keras.sha256").exists()
    names = [set(split["test"]), set(split["validation"]), set(split["train"]["100%, repetition 0"])]
    assert len(set.union(*names)) == sum(map(len, names)) == 8


def test_the_frozen_encoder_is_the_pretrained_one_and_the_initialized_one_moved(workspace):
    pretrained = keras.saving.load_model(workspace / "runs/rotation_nifti/encoder.keras", compile=False)
    weights = {variable.path.rpartition("encoder/")[2]: variable.numpy() for variable in pretrained.variables}
    for mode, same in (("frozen", True), ("initialized", False)):
        path = workspace / f"runs/rotation_nifti_test/jobs/100_{mode}_0/model.keras"
        model = {v.path: v.numpy() for v in keras.saving.load_model(path, compile=False).variables}
        kernels = [name for name in weights if name.endswith("kernel")]
        assert kernels
        assert all(np.array_equal(model[name], weights[name]) for name in kernels) == same


def test_a_predicted_mask_lies_on_the_scan(workspace):
    source = workspace / "scans" / "case_3.nii.gz"
    code, out, err = run(workspace, "predict.py", "runs/rotation_nifti_test", str(source), "out", "--overlay")
    assert code == 0, err
    scan, mask = nib.load(source), nib.load(workspace / "out" / "case_3.nii.gz")
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert mask.header.get_zooms() == scan.header.get_zooms()
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    assert (workspace / "out" / "case_3.png").stat().st_size > 1000


def test_a_dry_run_prints_the_plan_and_makes_nothing(workspace):
    before = sorted(path.name for path in (workspace / "runs").iterdir())
    code, out, err = run(workspace, "finetune.py", "finetune.json", "--dry_run")
    assert code == 0, err
    assert "4 train, 2 validation scans, 2 epochs of 2 steps" in out
    assert "test             2 scans" in out
    assert "parameters" in out
    assert sorted(path.name for path in (workspace / "runs").iterdir()) == before


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_is_as_uninterrupted(workspace):
    """SIGKILL leaves no time to tidy up: only what was on the disk counts."""
    process = start(workspace, "train.py", "train.json", "--set", "run_name=killed")
    state = workspace / "runs" / "killed" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # into the second epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(json.loads(state.read_text())["history"]) < TRAIN["epochs"]
    assert not (workspace / "runs" / "killed" / "encoder.keras").exists()

    code, _, err = run(workspace, "train.py", "train.json", "--set", "run_name=killed", "--set", "lr=0.5", "--resume")
    assert code == 2
    assert "lr" in err

    code, out, err = run(workspace, "train.py", "train.json", "--set", "run_name=killed", "--resume")
    assert code == 0, err
    assert out.splitlines()[-1] == "run folder: runs/killed"
    one, other = (
        keras.saving.load_model(workspace / "runs" / name / "encoder.keras", compile=False)
        for name in ("rotation_nifti", "killed")
    )
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"epoch": 3}, ["train_bad.json", "epoch", "'epochs'"]),
        ({"data_dir": "nowhere"}, ["nowhere", "does not exist"]),
        ({"data_dir": "empty"}, ["empty"]),
    ],
)
def test_a_mistake_is_one_message_without_traceback(workspace, keys, parts):
    (workspace / "empty").mkdir(exist_ok=True)
    before = sorted((workspace / "runs").iterdir())
    code, out, err = run(workspace, "train.py", write(workspace, "train_bad.json", TRAIN | keys))
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    message = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    for part in parts:
        assert part in message[0]
    assert sorted((workspace / "runs").iterdir()) == before
