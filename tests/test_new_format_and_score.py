"""A new format or score is one file: its scans then train, finetune and predict, and it stands in the tables."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
FORMAT = '''
"""Numbers as text: the shape in the first line, the voxels in the second."""

import numpy as np

from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels, with_channels

SUFFIXES = (".toy",)
MASK_SUFFIXES = (".toy",)
HOLDS_VOLUMES = True


def read_header(path, rank):
    with open(path) as file:
        return Header(with_channels(tuple(map(int, file.readline().split())), path, rank), path)


def read_image(path, rank):
    array = np.loadtxt(path, skiprows=1).reshape(read_header(path, rank).shape)
    return Volume.without_affine(as_float32(array), rank, path)


def read_mask(path, rank):
    array = np.loadtxt(path, skiprows=1).reshape(read_header(path, rank).shape[:-1])
    return Volume.without_affine(as_labels(array, path), rank, path)


def write_mask(path, mask, reference):
    path.write_text("\\n".join(" ".join(map(str, row)) for row in (mask.shape, mask.ravel().tolist())))
'''
SCORE = '''
"""The share of voxels that are foreground in the truth and in the prediction alike, a toy."""

TASK = "segmentation"


def scores(outputs):
    return {"toy": {"toy": lambda found: float(((found.truth > 0) & (found.prediction > 0)).mean())}}
'''
SIDE = 8
COMMON = {
    **{"algorithm": "rotation", "dataset_name": "volumes", "data_dim": SIDE, "batch_size": 2, "steps_per_epoch": 2},
    **{"enc_filters": 2, "num_layers": 1, "pooling": "none", "normalization": "group", "tensorboard": False},
}
TRAIN = COMMON | {"data_dir": "scans", "epochs": 1, "head_units": [4], "train_val_split": 0.75}
FINETUNE = COMMON | {
    **{"model_checkpoint": "runs/rotation_volumes", "data_dir_train": "scans", "num_classes": 2},
    **{
        "exp_splits": [100],
        "repetitions": 1,
        "epochs_initialized": 1,
        "epochs_warmup": 0,
        "epochs_random": 0,
        "epochs_frozen": 0,
    },
    **{"val_split": 0.25, "test_split": 0.4, "scores": ["dice", "toy"]},
}


def write_scans(folder: Path) -> None:
    """Write six scans and their masks as .toy files, and one scan as an .npy file beside them."""
    rng = np.random.default_rng(0)
    for name in ("scans", "scans_labels"):
        (folder / name).mkdir()
    for number in range(7):
        mask = np.zeros((SIDE, SIDE + number, SIDE), int)
        mask[2:6, 1:4] = 1
        for name, array in (("scans", mask + rng.normal(0, 0.3, mask.shape).round(2)), ("scans_labels", mask)):
            if number == 6:
                np.save(folder / name / "case6.npy", array)
            else:
                text = "\n".join(" ".join(map(str, row)) for row in (array.shape, array.ravel().tolist()))
                (folder / name / f"case{number}.toy").write_text(text)


def foreground(folder: Path, name: str) -> np.ndarray:
    """Return where a mask is not background, in the order of the voxels."""
    if (folder / f"{name}.npy").exists():
        return np.load(folder / f"{name}.npy").ravel() > 0
    return np.loadtxt(folder / f"{name}.toy", skiprows=1) > 0


def test_one_file_is_enough(run_scripts, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "self_supervised_3d_tasks", tmp_path / "self_supervised_3d_tasks", ignore=ignored)
    (tmp_path / "self_supervised_3d_tasks/data/formats/toy.py").write_text(FORMAT)
    (tmp_path / "self_supervised_3d_tasks/scores/toy.py").write_text(SCORE)
    for script in ("train.py", "finetune.py", "predict.py"):
        shutil.copy(REPOSITORY / script, tmp_path)
    write_scans(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(TRAIN))
    (tmp_path / "finetune.json").write_text(json.dumps(FINETUNE))
    out = run_scripts(
        tmp_path,
        ["train.py", "train.json", "--dry_run"],
        ["train.py", "train.json"],
        ["finetune.py", "finetune.json"],
        ["predict.py", "runs/rotation_volumes_test", "scans", "out"],
    )
    assert "5 train, 2 validation" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*(f"case{number}.toy" for number in range(6)), "case6.npy"}
    shape, voxels = (tmp_path / "out" / "case3.toy").read_text().splitlines()
    assert shape == f"{SIDE} {SIDE + 3} {SIDE}"
    assert set(voxels.split()) <= {"0", "1"} and len(voxels.split()) == SIDE * (SIDE + 3) * SIDE

    with open(tmp_path / "runs/rotation_volumes_test/results_long.csv", newline="", encoding="utf-8") as file:
        received = {row["case"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "toy"}
    assert len(received) == 3
    for name, value in received.items():
        truth, prediction = (foreground(tmp_path / folder, name) for folder in ("scans_labels", "out"))
        assert value == np.mean(truth & prediction)
    assert any(received.values())
