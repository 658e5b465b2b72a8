"""Tiny scans of every format, experiment files for them, and finished and interrupted runs: what trials start from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from benchmarks.reliability.process import AtWrite, command, run

SIDE = 16
NETWORK = {"enc_filters": 2, "num_layers": 1, "pooling": "none", "normalization": "group"}
COMMON = {"data_dim": SIDE, "batch_size": 2, "steps_per_epoch": 2, "tensorboard": False, "log_level": "WARNING"}
NIFTI = COMMON | NETWORK | {"algorithm": "rotation", "dataset_name": "nifti"}
TRAIN = NIFTI | {"data_dir": "images", "epochs": 3, "head_units": [8], "train_val_split": 0.75, "run_name": "pre"}
FINETUNE = NIFTI | {
    **{"model_checkpoint": "runs/pre", "data_dir_train": "images", "data_dir_test": "test", "num_classes": 2},
    **{"exp_splits": [100], "repetitions": 1, "epochs_initialized": 2, "epochs_warmup": 1, "epochs_random": 2},
    **{"val_split": 0.25, "run_name": "fine"},
}
CLASSIFY = FINETUNE | {
    **{"data_dim": SIDE, "dataset_name": "images", "data_dir_train": "photos", "csv_file": "photos.csv"},
    **{"data_dir_test": None, "image_column": "image", "label_column": "grade", "subject_column": "subject"},
    **{
        "prediction_architecture": "simple_multiclass",
        "test_split": 0.3,
        "run_name": "class",
        "model_checkpoint": None,
    },
    **{"epochs_initialized": 0, "epochs_random": 1, "number_channels": 3},
}
INDEX = CLASSIFY | {
    **{"dataset_name": "index", "data_dir_train": "index.csv", "csv_file": None, "number_channels": 1},
    **{"data_is_3D": True, "run_name": "indexed", "image_column": None, "label_column": None, "subject_column": None},
}
FOLDERS = {"images": range(6), "test": range(6, 8), "new": range(8, 11)}
EXPERIMENTS = {"train": TRAIN, "finetune": FINETUNE, "classify": CLASSIFY, "index": INDEX}
COMMAND_OF = {"train": "train", "finetune": "finetune", "classify": "finetune", "index": "finetune"}


def scan(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright box in noise and its mask."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE,) * 3, np.uint8)
    mask[tuple(slice(first, first + 7) for first in rng.integers(2, 7, 3))] = 1
    return (100 * mask + rng.normal(50, 10, mask.shape)).astype(np.float32), mask


def write_data(folder: Path) -> None:
    """Write the scans, tables and experiment files."""
    for name, numbers in FOLDERS.items():
        for number in numbers:
            for kind, array in zip((name, f"{name}_labels"), scan(number), strict=True):
                (folder / kind).mkdir(exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"s{number:02}.nii.gz")
    (folder / "photos").mkdir()
    indexed = ["id,subject,image,label"]
    for number, path in enumerate(path for name in FOLDERS for path in sorted((folder / name).iterdir())):
        indexed.append(f"c{number},m{number},{path.relative_to(folder)},{number % 2}")
    rows = ["image,grade,subject"]
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"p{number:02}.png")
        rows.append(f"p{number:02}.png,{number % 2},m{number}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
    (folder / "index.csv").write_text("\n".join(indexed) + "\n")
    for name, values in EXPERIMENTS.items():
        write_experiment(folder, name, values)


def write_experiment(folder: Path, name: str, values: dict) -> str:
    """Write an experiment file and return its name."""
    (folder / f"{name}.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return f"{name}.json"


def make(folder: Path, *, part: str) -> Path:
    """Make the world in a new folder; every run in it is made by the command that a trial tries.

    ``half`` has each run (of a small part, the pretraining) as it was after an epoch, ``runs`` as it is at the end.
    """
    folder.mkdir()
    write_data(folder)
    if part == "small":
        interrupted(folder, "train", "pre", "state.json")
        expect(0, command("finetune", "finetune.json"), folder)
        return folder
    interrupted(folder, "train", "pre", "state.json")
    interrupted(folder, "finetune", "fine", "jobs/100_random_0/state.json")
    expect(0, command("finetune", "classify.json"), folder)
    expect(0, command("finetune", "index.json", "--dry_run"), folder)
    return folder


def interrupted(folder: Path, name: str, run_name: str, state: str) -> None:
    """Make a run that is killed after its first epoch, keep a copy of it, and finish it."""
    line = (name, f"{name}.json")
    expect(-9, command(*line), folder, stop=_AfterFirst(folder, f"runs/{run_name}/{state}"))
    shutil.copytree(folder / "runs" / run_name, folder / "half" / run_name)
    expect(0, command(*line, "--resume"), folder)


def expect(code: int, function: Callable[[], None], folder: Path, stop=None) -> None:
    """Run a command that must end with an exit code, without which there is nothing to try."""
    ended = run(function, folder, seconds=240, stop=stop)
    if ended.code != code:
        raise RuntimeError(f"expected exit code {code}, received {ended.code}: {ended.err}")


class _AfterFirst(AtWrite):
    """Kills at the first write after a file is there."""

    def __init__(self, folder: Path, file: str):
        super().__init__(folder, 0)
        self._file = file

    def _hear(self, event: str, arguments: tuple) -> None:
        if os.path.exists(self._file):
            super()._hear(event, arguments)


def copy(world: Path, folder: Path) -> None:
    """Copy the world into an empty folder."""
    shutil.copytree(world, folder, dirs_exist_ok=True, symlinks=True)
