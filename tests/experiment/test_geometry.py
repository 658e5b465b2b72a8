"""The record of what scans are like for the network, and what finetuning makes of that of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import geometry
from self_supervised_3d_tasks.experiment.load import load_experiment

DATA = {"dataset_name": "nifti", "data_dim": [16, 8, 8], "algorithm": "rotation", "num_layers": 1, "enc_filters": 2}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(command="train", **keys):
    paths = {"train": {"data_dir": "scans"}, "finetune": {"data_dir_train": "scans"}}[command]
    Path("experiment.json").write_text(json.dumps(DATA | paths | keys))
    return load_experiment(command, "experiment.json")


def scan(shape, spacing, known=True):
    return Header((*shape, 1), Path("a.nii.gz"), np.diag([*spacing, 1]) if known else None, spacing if known else ())


SCANS = [scan((32, 16, 16), (1, 1, 2)), scan((16, 16, 8), (2, 1, 2)), scan((32, 16, 16), (1, 1, 4))]


def test_resized_scans_have_the_voxels_that_fill_data_dim():
    """The network sees 32 mm in 16 voxels, 16 mm in 8; along z 32, 16, 64 in 8, by the median 4 mm each."""
    found = geometry.record(load(volume_fitting="resize"), SCANS)
    assert found["spacing"] == [2, 2, 4] and found["field_of_view"] == [32, 16, 32]
    assert found["spacing_of_files"] == {"least": [1, 1, 2], "median": [1, 1, 2], "largest": [2, 1, 4]}
    assert (found["axes"], found["orientation"], found["channels"]) == (["x", "y", "z"], "RAS", ["0"])
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("keys", "spacing"), [({"volume_fitting": "crop"}, [1, 1, 2]), ({"target_spacing": [2, 1, 1]}, [2, 1, 1])]
)
def test_crops_have_the_voxels_of_the_files_or_those_that_are_asked_for(keys, spacing):
    found = geometry.record(load(**keys), SCANS)
    np.testing.assert_allclose(found["spacing"], spacing)
    np.testing.assert_allclose(found["field_of_view"], np.multiply(spacing, [16, 8, 8]))


def test_files_without_a_header_have_no_directions():
    arrays = geometry.record(load(), [scan((32, 16, 16), (1, 1, 1), known=False)])
    assert (arrays["orientation"], arrays["spacing"], arrays["field_of_view"]) == (None, None, None)
    assert geometry.record(load(), [*SCANS, scan((32, 16, 16), (1, 1, 1), known=False)])["orientation"] == "mixed"
    images = load(dataset_name="images", data_dim=[16, 8], number_channels=3)
    assert geometry.record(images, [Header((16, 8, 3), Path("a.png"))])["axes"] == ["rows", "columns"]


def test_labels_and_channels_are_named():
    keys = {"class_names": ["air", "shell"], "num_classes": 2, "channel_suffixes": ["_T1w", "-flair"]}
    found = geometry.record(load("finetune", **keys, number_channels=2, epochs_initialized=0), SCANS)
    assert found["labels"] == {"0": "air", "1": "shell"} and found["channels"] == ["t1w", "flair"]


def pretrained(**keys):
    """Make the run folder of a pretraining, without weights, and return its experiment."""
    experiment = load(**keys)
    Path("runs/first").mkdir(parents=True, exist_ok=True)
    Path("runs/first/config.json").write_text(experiment.model_dump_json())
    Path("runs/first/geometry.json").write_text(json.dumps(geometry.record(experiment, SCANS)))
    return experiment


def test_other_voxels_and_other_directions_are_told_with_a_remedy():
    pretrained(volume_fitting="crop")
    mine = load("finetune", volume_fitting="crop", model_checkpoint="runs/first")
    assert geometry.compare(geometry.record(mine, SCANS), "runs/first") == []
    assert geometry.compare(geometry.record(mine, [scan((9, 9, 9), (1.2, 1, 2.6))]), "runs/first") == []
    (line,) = geometry.compare(geometry.record(mine, [scan((9, 9, 9), (1, 1, 5))]), "runs/first/encoder.keras")
    assert "sees voxels of 1 × 1 × 5 mm" in line and "of 1 × 1 × 2 mm" in line
    assert line.endswith("set target_spacing to [1.0, 1.0, 2.0]")
    (line,) = geometry.compare(geometry.record(mine, [scan((9, 9, 9), (1, 1, 1), known=False)]), "runs/first")
    assert "without directions, as the files have them" in line and "turned to RAS" in line


def test_a_checkpoint_of_which_nothing_is_known_is_no_mistake():
    pretrained()
    mine = geometry.record(load(), SCANS)
    Path("runs/first/geometry.json").write_text("{")
    (line,) = geometry.compare(mine, "runs/first")
    assert "geometry.json" in line and "is not known" in line
    Path("runs/first/geometry.json").unlink()
    assert geometry.compare(mine, "runs/first") == []


def test_scans_unlike_those_of_the_training_are_told():
    pretrained(volume_fitting="crop")
    assert geometry.unlike_trained(Path("runs/first"), scan((9, 9, 9), (2.9, 1, 2))) == ""
    said = geometry.unlike_trained(Path("runs/first"), scan((9, 9, 9), (0.5, 1, 2)))
    assert said.startswith(
        "a.nii.gz: has voxels of 0.5 × 1 × 2 mm, the model was trained on 1 × 1 × 2 mm to 2 × 1 × 4 mm"
    )


@pytest.mark.parametrize(
    ("theirs", "mine", "channel_map"),
    [
        (["_t1", "_t2"], ["_t2", "_t1"], [1, 0]),
        (["_t1", "_t2"], ["-T1", "_t2"], None),  # the same names in another spelling
        (["_t1ce", "_flair"], ["_flair", "_t1", "_t1ce", "_t2"], [1, 0, 0, 1]),  # the others by their place
        (["_t1"], ["_t2"], None),  # one channel feeds one
        (None, ["_t1", "_t2"], None),
    ],
)
def test_named_channels_are_fed_by_those_of_the_same_name(theirs, mine, channel_map, caplog):
    pretrained(channel_suffixes=theirs, number_channels=len(theirs or mine))
    keys = {"model_checkpoint": "runs/first", "channel_suffixes": mine, "number_channels": len(mine)}
    caplog.clear()
    assert load("finetune", **keys).channel_map == channel_map
    assert ("channel_suffixes: " in caplog.text) == (mine in (["_t2"], ["-T1", "_t2"]))  # told, as nothing is matched
    given = list(range(len(theirs or mine))) * len(mine)
    assert load("finetune", **keys, channel_map=given[: len(mine)]).channel_map == given[: len(mine)]


def test_columns_of_an_index_and_suffixes_of_a_folder_name_the_same_channels():
    pretrained(dataset_name="index", data_dir="scans.csv", channel_columns=["t1", "t1ce"], number_channels=2)
    keys = {"model_checkpoint": "runs/first", "channel_suffixes": ["_t1ce", "_T1"], "number_channels": 2}
    assert load("finetune", **keys).channel_map == [1, 0]


def test_channels_without_a_common_name_need_a_map():
    pretrained(channel_suffixes=["_ct", "_pet"], number_channels=2)
    keys = {"model_checkpoint": "runs/first", "channel_suffixes": ["_t1", "_t2"], "number_channels": 2}
    with pytest.raises(
        UserError, match=r"the channels are t1, t2, in the pretraining \(.*\) ct, pet; no name is common"
    ):
        load("finetune", **keys)
    assert load("finetune", **keys, channel_map=[0, 1]).channel_map == [0, 1]
