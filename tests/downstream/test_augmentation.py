"""The keys of the augmentation reach the examples that a network is trained on, before and after pretraining."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.stream.source import Position
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.pretraining.scans import find_scans, read_scans

DATA = {"dataset_name": "npy", "data_dim": 8, "num_layers": 1, "algorithm": "exemplar", "intensity_window": [0, 1]}
SCRATCH = {"epochs_initialized": 0, "epochs_frozen": 0, "data_dir_train": "scans"}
UPRIGHT = {"augment": True, "augment_degrees": 0}


@pytest.fixture(autouse=True)
def scans(tmp_path, monkeypatch):
    """Two scans that are brightest at one corner; their masks are 1 in the first half of axis 0 and 2 in the second."""
    monkeypatch.chdir(tmp_path)
    ramp = np.indices((8, 8, 8)).sum(axis=0) / 42
    halves = 1 + (np.indices((8, 8, 8))[0] > 3)
    for folder, array in (("scans", 0.2 + 0.6 * ramp), ("scans_labels", halves)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            np.save(tmp_path / folder / f"{name}.npy", array.astype(np.float32))


def load(command, **keys):
    with open("experiment.json", "w") as file:
        json.dump(DATA | keys, file)
    return load_experiment(command, "experiment.json")


def batches(experiment, number=8, training=True):
    """Some batches of a finetuning on masks."""
    task = task_of(experiment)
    store = task.read(find_cases("npy", "scans", Labels()))
    dataset = task.dataset(store, Position(0, training=training))
    return list(dataset.take(number).as_numpy_iterator())


def rising(image):
    """Along which axes an image ``(*spatial, channels)`` still grows brighter."""
    centre = [(image * np.indices(image.shape)[axis]).mean() / image.mean() for axis in range(3)]
    return tuple(bool(value > 3.5) for value in centre)


def test_labels_of_masks_follow_the_sides():
    experiment = load("finetune", **SCRATCH, **UPRIGHT, augment_flip_axes=[0, 2], augment_swap_labels=[[1, 2]])
    seen = Counter()
    for images, masks in batches(experiment):
        for image, mask in zip(images, masks, strict=True):
            assert (mask[:4] == 1).all() and (mask[4:] == 2).all()
            seen[rising(image)] += 1
    assert set(seen) == {(first, True, last) for first in (True, False) for last in (True, False)}


def test_without_pairs_labels_go_where_their_voxels_go():
    for images, masks in batches(load("finetune", **SCRATCH, **UPRIGHT)):
        for image, mask in zip(images, masks, strict=True):
            assert (mask[:4] == (1 if rising(image)[0] else 2)).all()


def test_validation_is_not_augmented():
    experiment = load("finetune", **SCRATCH, **UPRIGHT, augment_swap_labels=[[1, 2]])
    ((images, masks),) = batches(experiment, training=False)
    assert {rising(image) for image in images} == {(True, True, True)}
    assert (masks[:, 0] == 1).all()


@pytest.mark.parametrize(("axes", "number"), [([], 1), ([1], 2), (None, 8)])
def test_pretraining_flips_the_axes_of_the_file(axes, number):
    experiment = load("train", data_dir="scans", **UPRIGHT, augment_flip_axes=axes)
    algorithm = build.make_algorithm(experiment)
    found = read_scans(experiment, algorithm, find_scans(experiment, "scans"))
    views = [inputs for inputs, _ in found.batches(2, training=True).take(16).as_numpy_iterator()]
    # The second view of exemplar is the scan as it came; the first is changed by the task itself.
    assert len({rising(image) for batch in views for image in batch[:, 1]}) == number


@pytest.mark.parametrize(("axes", "number"), [([], 1), ([2], 2)])
def test_whole_scans_are_flipped_along_the_axes_of_the_file(axes, number):
    with open("labels.csv", "w") as file:
        file.write("file,grade\na.npy,0\nb.npy,1\n")
    table = {"csv_file": "labels.csv", "image_column": "file", "label_column": "grade", "num_classes": 2}
    keys = SCRATCH | UPRIGHT | table | {"prediction_architecture": "softmax", "augment_flip_axes": axes}
    experiment = load("finetune", **keys)
    task = task_of(experiment)
    cases = [replace(case, label=number) for number, case in enumerate(find_cases("npy", "scans"))]
    dataset = task.dataset(task.read(cases), Position(0)).take(8).as_numpy_iterator()
    assert len({rising(image) for images, _ in dataset for image in images}) == number
