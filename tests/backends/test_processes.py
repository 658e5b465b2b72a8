"""One training by two processes, in a network of their own: JAX's coordinator listens to every one it has."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.network import alone

pytest.importorskip("jax", reason="needs the backend JAX: pip install self_supervised_3d_tasks[jax]")
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK = {"enc_filters": 2, "num_layers": 1, "normalization": "batch", "dropout": 0.2, "head_units": [4]}
TRAIN = NETWORK | {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dir": "scans",
    "data_dim": 8,
    "volume_fitting": "crop",
    "epochs": 3,
    "steps_per_epoch": 20,
    "batch_size": 4,
    "train_val_split": 0.6,
    "tensorboard": False,
    "distribution": "data_parallel",
}


def environment():
    added = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "Agg"}
    return os.environ | added | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def history(folder):
    """Return the columns of losses and metrics of a run."""
    (path,) = folder.glob("runs/*/history.csv")
    with open(path) as file:
        rows = list(csv.DictReader(file))
    timing = {"seconds", "samples_per_second", "wait_share"}
    return [{name: float(value) for name, value in row.items() if name not in timing} for row in rows]


def test_two_processes_are_one_also_when_one_of_them_was_killed(write_scans, tmp_path):
    """Minutes: five processes, each of which loads TensorFlow and JAX and compiles."""
    start = alone()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        write_scans(folder / "scans", 10)
        (folder / "file.json").write_text(json.dumps(TRAIN))
    command = [str(REPOSITORY / "train.py"), "file.json", "--resume"]
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 1500}
    one = subprocess.run([*start, sys.executable, *command], cwd=folders[0], **options)
    assert one.returncode == 0, one.stderr

    def together(port, kill):
        pair = [sys.executable, str(REPOSITORY / "tests/backends/pair.py"), port, str(tmp_path), kill]
        done = subprocess.run([*start, *pair, *command], cwd=folders[1], **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), *((tmp_path / f"{index}.txt").read_text() for index in range(2))

    ended, first, _ = together("23451", "1")
    assert ended["codes"] == [2, -9], first
    assert ended["seconds"] < 100
    said = [line for line in first.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "another process of this training has ended" in said[0] and "--resume" in said[0]
    assert "Traceback" not in first
    kept = len(history(folders[1]))
    assert 1 <= kept < TRAIN["epochs"]

    ended, first, second = together("23452", "0")
    assert ended["codes"] == [0, 0], first + second
    assert "resumed after epoch" in first and "run folder: " in first
    assert "epoch" not in second and "run folder" not in second
    assert [path.name for path in (folders[1] / "runs").iterdir() if path.name != "cache"] == ["rotation_nifti"]
    for row, other in zip(history(folders[0]), history(folders[1]), strict=True):
        assert row == pytest.approx(other, abs=1e-5)
