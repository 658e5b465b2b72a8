"""What `train` and `finetune` print, and which run folder they take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment

ROOT = Path(__file__).resolve().parents[2]


def test_the_resolved_file_is_all_that_print_config_writes(tmp_path):
    keys = {"base": str(ROOT / "configs_json" / "cpc_demo.json"), "n_channels": 1, "data_dir": "nowhere"}
    (tmp_path / "own.json").write_text(json.dumps(keys))
    command = [sys.executable, ROOT / "train.py", "own.json", "--print_config", "--set", "epochs=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown == load_experiment("train", tmp_path / "own.json", ["epochs=3"]).model_dump(mode="json")
    assert (shown["epochs"], shown["optimizer"], shown["data_dir"]) == (3, "adam", "nowhere")
    assert "n_channels is called number_channels now" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]


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
