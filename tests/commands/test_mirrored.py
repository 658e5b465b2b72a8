"""The commands on two devices and on one; run as a script, this file is the process that has two."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_end_to_end import FINETUNE, REPOSITORY, TRAIN, make_scans, write

SGD = {"optimizer": "sgd", "lr": 0.01, "normalization": "batch"}
ROTATION = TRAIN | SGD | {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "train_val_split": 0.6}
PCRLV2 = {key: value for key, value in ROTATION.items() if key not in ("head_units", "pooling", "dropout")}
PCRLV2 |= {"algorithm": "pcrlv2", "num_local_views": 1, "pooling": "none", "local_sizes": [4], "clipnorm": 1.0}
SEGMENTATION = FINETUNE | SGD | {"model_checkpoint": "runs/rotation_nifti_none", "epochs_random": 0, "metrics": []}
ENDINGS = {"rotation": "encoder.keras", "pcrlv2": "encoder_decoder.keras"}
MEASURED = ("seconds", "samples_per_second", "wait_share")
KINDS = ("none", "mirrored")


def main() -> None:
    """Run every file in the working folder with each kind of distribution."""
    import tensorflow as tf

    from self_supervised_3d_tasks.commands import experiment_run

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for name, command in (("rotation", "train"), ("pcrlv2", "train"), ("segmentation", "finetune")):
        for kind in KINDS:
            overrides = [f"distribution={kind}", f"run_name={name}_nifti_{kind}"]
            files = {name: f"{name}.json"}
            experiment_run.run_file(name, command=command, files=files, overrides=overrides, resume=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs ``<name>_nifti_<kind>``."""
    folder = tmp_path_factory.mktemp("mirrored")
    make_scans(folder)
    for name, values in {"rotation": ROTATION, "pcrlv2": PCRLV2, "segmentation": SEGMENTATION}.items():
        write(folder, f"{name}.json", values)
    command = [sys.executable, "-c", "from tests.commands import test_mirrored; test_mirrored.main()"]
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    return folder / "runs"


def histories(folder: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items() if name not in MEASURED} for row in rows]


def assert_same(one: Path, other: Path, model: str) -> None:
    """Weights of a model, its configuration and the whole history."""
    import keras

    first, second = (keras.models.load_model(folder / model) for folder in (one, other))
    assert first.to_json() == second.to_json()
    for a, b in zip(first.weights, second.weights, strict=True):
        # Several devices find a variance, which can be large, by the mean of squares.
        np.testing.assert_allclose(a, b, rtol=1e-4 if "variance" in a.path else 0, atol=1e-5, err_msg=a.path)
    for row, other_row in zip(histories(one), histories(other), strict=True):
        assert row == pytest.approx(other_row, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rotation", "pcrlv2"])
def test_a_pretraining_leaves_what_one_device_leaves(runs, name):
    assert_same(runs / f"{name}_nifti_none", runs / f"{name}_nifti_mirrored", ENDINGS[name])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "initialized"])
def test_a_finetuning_leaves_what_one_device_leaves(runs, mode):
    one, other = (runs / f"segmentation_nifti_{kind}" / "jobs" / f"100_{mode}_0" for kind in KINDS)
    assert_same(one, other, "model.keras")
    scores, others = (json.loads((folder / "scores.json").read_text())["scores"] for folder in (one, other))
    assert [row[:2] for row in scores] == [row[:2] for row in others]
    assert [row[2] for row in scores] == pytest.approx([row[2] for row in others], abs=1e-3)
