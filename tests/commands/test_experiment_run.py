"""Which run folder a command takes."""

from __future__ import annotations

import json

import pytest

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment


@pytest.fixture
def experiment(tmp_path):
    keys = {"algorithm": "rotation", "dataset_name": "npy", "data_dir": "scans", "data_dim": [32, 32, 32]}
    (tmp_path / "train.json").write_text(json.dumps(keys | {"base_workspace": str(tmp_path / "runs")}))
    return load_experiment("train", tmp_path / "train.json")


def test_a_run_from_before_a_key_was_added_is_continued(experiment):
    folder = experiment_run.claim(experiment, resume=False)
    stored = folder.read_json("config.json")
    del stored["augment"]
    folder.write_json("config.json", stored)
    assert experiment_run.claim(experiment, resume=True).path == folder.path


def test_a_run_with_another_value_is_not_continued(experiment):
    folder = experiment_run.claim(experiment, resume=False)
    folder.write_json("config.json", folder.read_json("config.json") | {"augment_zoom_only": True})
    with pytest.raises(UserError, match="other values of augment_zoom_only"):
        experiment_run.claim(experiment, resume=True)


def test_a_run_of_another_task_names_what_differs(experiment):
    folder = experiment_run.claim(experiment, resume=False)
    folder.write_json("config.json", folder.read_json("config.json") | {"algorithm": "jigsaw", "patch_gap": 2})
    with pytest.raises(UserError, match="other values of algorithm, patch_gap"):
        experiment_run.claim(experiment, resume=True)
