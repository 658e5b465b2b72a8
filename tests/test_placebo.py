"""A pretraining that learned nothing brings nothing: what finetuning reports as a gain comes from the weights.

With running statistics that lag behind, the placebo once "gained" 0.13 Dice: its encoder came with warm statistics.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {
    "dataset_name": "nifti",
    "data_dim": 16,
    "enc_filters": 8,
    "num_layers": 2,
    "pooling": "none",
    "tensorboard": False,
}
FEW_STEPS = {"steps_per_epoch": 10, "batch_size": 2, "lr": 0.002}


def run(folder, script, **keys):
    (folder / f"{script}.json").write_text(json.dumps(SMALL | keys))
    command = [sys.executable, str(REPOSITORY / f"{script}.py"), f"{script}.json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["group", "layer", "batch"])
def test_a_placebo_brings_nothing(tmp_path, write_scans, normalization):
    write_scans(tmp_path / "scans", 28)
    shared = {"algorithm": "rotation", "normalization": normalization}
    run(
        tmp_path,
        "train",
        **shared | {"data_dir": "scans", "epochs": 5, "steps_per_epoch": 10, "batch_size": 4, "lr": 1e-12},
        run_name="placebo",
    )
    sweep = {"data_dir_train": "scans", "num_classes": 2, "exp_splits": [50], "repetitions": 4, "test_split": 0.4}
    epochs = {"epochs_initialized": 8, "epochs_random": 8, "epochs_frozen": 0, "epochs_warmup": 0}
    run(tmp_path, "finetune", **shared | sweep | epochs | FEW_STEPS, model_checkpoint="runs/placebo", run_name="sweep")
    with open(tmp_path / "runs" / "sweep" / "statistics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["metric"] == "dice" and int(row["num_repetitions"]) == 4
    assert float(row["low"]) <= 0 <= float(row["high"]), f"a placebo 'gains' {row['difference']}"
    assert abs(float(row["difference"])) < 0.05
