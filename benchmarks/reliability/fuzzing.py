"""Mutated experiment files, scans and files of run folders: each is read rightly, or refused with one message."""

from __future__ import annotations

import functools
import gzip
import importlib
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.reliability import mutations, products, world
from benchmarks.reliability.bad_files import FORMATS, as_format
from benchmarks.reliability.process import command, no_training, run
from benchmarks.reliability.trials import Trial, flaw, refused
from self_supervised_3d_tasks.commands.experiment_run import MODULES
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import bases
from self_supervised_3d_tasks.experiment.load import load_experiment

CONFIGS = Path(__file__).resolve().parents[2] / "configs_json"
SECONDS = 30
# The data of these keys are the tiny ones, so that a file is followed to its plan.
TINY = {key: world.FINETUNE[key] for key in ("data_dir_train", "data_dir_test", "model_checkpoint")} | {
    **{"data_dir": "images", "dataset_name": "nifti", "data_is_3D": True, "number_channels": 1, "csv_file": None},
    **{"label_dir_train": None, "channel_suffixes": None, "tensorboard": False, "csv_file_test": None},
}
# Of a run, and the command that goes on with it or reads it. Those of "half" are interrupted.
READERS = {
    ("half", "pre"): [("train", "train.json", "--resume")],
    ("half", "fine"): [("finetune", "finetune.json", "--resume")],
    ("runs", "pre"): [("train", "train.json", "--resume"), ("finetune", "finetune.json", "--set", "run_name=other")],
    ("runs", "fine"): [
        ("predict", "runs/fine", "new", "masks"),
        ("finetune", "finetune.json", "--resume"),
        ("finetune", "finetune.json", "--set", "run_name=other", "--set", "random_from=runs/fine"),
    ],
    ("runs", "class"): [("predict", "runs/class", "photos", "masks.csv")],
}


def trials(made: Path, *, seed: int, experiments: int, scans: int, run_files: int) -> list[Trial]:
    """Return so many mutations of each kind; ``made`` is the world."""
    kinds = (
        ("mutated experiment files", experiments, _experiment),
        ("mutated scans", scans, _scan),
        ("mutated files of a run", run_files, _run_file),
    )
    return [
        Trial(kind, f"seed {seed}, number {number}", functools.partial(mutate, made, f"{seed}-{number}"))
        for kind, count, mutate in kinds
        for number in range(count)
    ]


def _experiment(made: Path, seed: str, folder: Path) -> str | None:
    rng = random.Random(seed)
    path = rng.choice(sorted([*CONFIGS.glob("*.json"), *CONFIGS.glob("finetune/*.json")]))
    name = "finetune" if path.parent != CONFIGS else "train"
    values = bases.read(path)[0]
    if rng.random() < 0.5:
        values = world.EXPERIMENTS[name] | {key: item for key, item in values.items() if key not in TINY}
    values |= {key: item for key, item in TINY.items() if key in values}
    values = {key: item for key, item in values.items() if item is not None}
    file = folder / "experiment.json"
    file.write_bytes(mutations.text(rng, values))
    ended = run(_or_message(functools.partial(_planned, name, file)), made, seconds=SECONDS)
    return _judged(ended, f"{path.stem}, {{}}")


def _planned(name: str, file: Path) -> None:
    experiment = load_experiment(name, file)
    importlib.import_module(MODULES[name]).plan(experiment).check_headers()


def _scan(made: Path, seed: str, folder: Path) -> str | None:
    rng = random.Random(seed)
    suffix = rng.choice([*FORMATS, ".npz", ".dcm"])
    images = folder / "images"
    if suffix == ".npz":
        images.mkdir()
        arrays = np.stack([world.scan(number)[0] for number in range(4)]).astype(np.uint8)
        np.savez(images / "a.npz", train_images=arrays, train_labels=np.zeros((4, 1), np.uint8))
    elif suffix == ".dcm":
        _dicom(images)
    else:
        images.mkdir()
        shutil.copy(made / "images" / "s00.nii.gz", images)
        as_format(suffix, str(images))
    path = rng.choice(sorted(images.iterdir()))
    data = path.read_bytes()
    if suffix == ".nii.gz" and rng.random() < 0.7:
        data = gzip.compress(mutations.damaged(rng, gzip.decompress(data)))
    else:
        data = mutations.damaged(rng, data)
    path.write_bytes(data)
    ended = run(_or_message(functools.partial(_decoded, suffix, images)), folder, seconds=SECONDS)
    return _judged(ended, f"{path.name}, {{}}")


def _decoded(suffix: str, images: Path) -> None:
    """Read header, image and mask of what is in a folder."""
    if suffix == ".npz":
        cases = find_cases("medmnist", f"{images}/a.npz/train")
        paths = [case.image for case in cases]
    elif suffix == ".dcm":
        paths = formats.scans_in(images)
        if not paths:
            raise UserError(f"{images}: no scan")
    else:
        paths = [path for path in images.iterdir() if formats.suffix_of(path)]
    rank = 2 if FORMATS.get(suffix) == "images" else 3
    for path in paths:
        header, image = formats.read_header(path, rank), formats.read_image(path, rank)
        assert image.array.shape[:-1] == tuple(header.shape[:rank]), f"{image.array.shape}, header {header.shape}"


def _dicom(folder: Path) -> None:
    """Write a series of slices."""
    import SimpleITK as sitk

    folder.mkdir()
    voxels = world.scan(0)[0].astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for place in range(4):
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[None, place]))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0020|0013": str(place)}
        tags |= {"0008|0018": f"1.2.3.4.{place}", "0020|0032": f"0\\0\\{place}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, item in tags.items():
            image.SetMetaData(tag, item)
        writer.SetFileName(str(folder / f"{place}.dcm"))
        writer.Execute(image)


def _run_file(made: Path, seed: str, folder: Path) -> str | None:
    rng = random.Random(seed)
    parent, name = place = rng.choice([place for place in READERS if made.joinpath(*place).exists()])
    world.copy(made, folder)
    if parent == "half":
        shutil.rmtree(folder / "runs" / name)
        (folder / "half" / name).rename(folder / "runs" / name)
    root = folder / "runs" / name
    texts = sorted(path for path in root.rglob("*") if path.suffix in (".json", ".csv", ".sha256", ".keras", ".h5"))
    path = rng.choice(texts)
    if path.suffix == ".json" and rng.random() < 0.85:
        data = mutations.text(rng, json.loads(path.read_text()))
    else:
        data = mutations.damaged(rng, path.read_bytes(), head=5000)
    path.write_bytes(data)
    line = rng.choice(READERS[place])
    # Some train on to the end; of the others it is seen how they begin.
    whole = parent == "half" and rng.random() < 0.15
    ended = run(command(*line), folder, seconds=SECONDS, stop=None if whole else no_training)
    what = f"{path.relative_to(folder)}, {' '.join(line[:3])}, {{}}"
    if lost := _judged(ended, what):
        return lost
    if whole and ended.code == 0:
        # What nobody reads any more stays as it is.
        untouched = path.exists() and path.read_bytes() == data
        kept = path.relative_to(root).as_posix() if untouched else ""
        different = products.difference(made / "runs" / name, root, but=kept)
        return different and what.format(different)
    return None


def _or_message(function: Callable[[], None]) -> Callable[[], None]:
    """Return a function that ends as a command does after a mistake."""

    def call() -> None:
        try:
            function()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return call


def _judged(ended, what: str) -> str | None:
    lost = refused(ended) if ended.code == 2 else flaw(ended)
    return lost and what.format(lost)
