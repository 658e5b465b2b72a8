"""A new score is one file: finetune.py then writes it into its tables."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
SCORE = '''
"""The share of voxels that are foreground in the truth and in the prediction alike, a toy."""

TASK = "segmentation"


def scores(outputs):
    return {"toy": {"toy": lambda found: float(((found.truth > 0) & (found.prediction > 0)).mean())}}
'''
EXPERIMENT = {
    **{"algorithm": "rotation", "dataset_name": "nifti", "data_dir_train": "scans", "data_dim": 16, "num_classes": 2},
    **{"epochs_initialized": 0, "epochs_frozen": 0, "epochs_random": 1, "steps_per_epoch": 2, "repetitions": 1},
    **{"exp_splits": [100], "val_split": 0.25, "test_split": 0.25, "scores": ["dice", "toy"], "run_name": "sweep"},
    **{"enc_filters": 2, "num_layers": 1, "pooling": "none", "normalization": "group", "tensorboard": False},
}


def test_one_file_is_enough(tmp_path, write_scans, run_scripts):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "self_supervised_3d_tasks", tmp_path / "self_supervised_3d_tasks", ignore=ignored)
    (tmp_path / "self_supervised_3d_tasks/scores/toy.py").write_text(SCORE)
    for script in ("finetune.py", "predict.py"):
        shutil.copy(REPOSITORY / script, tmp_path)
    write_scans(tmp_path / "scans", 6)
    (tmp_path / "finetune.json").write_text(json.dumps(EXPERIMENT))
    run_scripts(tmp_path, ["finetune.py", "finetune.json"], ["predict.py", "runs/sweep", "scans", "out"])

    with open(tmp_path / "runs/sweep/results_long.csv", newline="", encoding="utf-8") as file:
        received = {row["case"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "toy"}
    assert len(received) == 2
    for name, value in received.items():
        masks = [nib.load(tmp_path / folder / f"{name}.nii.gz").get_fdata() for folder in ("scans_labels", "out")]
        assert value == np.mean((masks[0] > 0) & (masks[1] > 0))
