"""Small experiment files, written and loaded."""

import json
from pathlib import Path

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment

REPOSITORY = Path(__file__).resolve().parents[2]

TRAIN = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32, "number_channels": 1}

FINETUNE = {
    "algorithm": "cpc",
    "dataset_name": "nifti",
    "model_checkpoint": "runs/cpc",
    "data_dir_train": "scans",
    "data_dim": 32,
    "number_channels": 1,
}

ARCHIVE = {"dataset_name": "medmnist", "data_dir_train": "organ.npz/train", "csv_file": None, "label_column": None}

HU = {"volume_fitting": "crop", "intensity_window": [-1000, 1000]}


def write(folder: Path, values: dict) -> Path:
    path = folder / "experiment.json"
    path.write_text(json.dumps(values))
    return path


def train(folder, **keys):
    return load_experiment("train", write(folder, TRAIN | keys))


def finetune(folder, **keys):
    return load_experiment("finetune", write(folder, FINETUNE | keys))


def classify(folder, **keys):
    head = {"prediction_architecture": "simple_multiclass", "csv_file": "labels.csv", "label_column": "grade"}
    return finetune(folder, **head | keys)


def assert_refused(load, folder, keys, parts):
    """Loading these keys is refused in one line that has every part."""
    with pytest.raises(UserError) as error:
        load(folder, **keys)
    message = str(error.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message
