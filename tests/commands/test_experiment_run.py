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
from self_supervised_3d_tasks.files.run_folder import RunFolder
from tests.finetuning.outcomes import outcome

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


KEYS = {"algorithm": "rotation", "dataset_name": "nifti", "data_dim": 8, "enc_filters": 2, "num_layers": 1} | {
    "pooling": "none",
    "head_units": [4],
    "epochs": 1,
    "train_val_split": 0.5,
    "tensorboard": False,
    "log_level": "ERROR",
}


@pytest.fixture
def files(tmp_path, write_scans, monkeypatch):
    """A function that writes experiment files of the current folder, by name, and returns their paths."""
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 4, shape=(8, 8, 8))

    def write(**experiments):
        for name, keys in experiments.items():
            content = KEYS | {"data_dir": "scans", "run_name": name} | keys
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return [f"{name}.json" for name in experiments]

    return write


def test_several_files_are_run_one_after_the_other(files, run_command):
    ended = run_command("train", *files(a={}, b={"seed": 1}))
    assert (ended.code, ended.out) == (0, "run folder: runs/a\nrun folder: runs/b\n")
    assert all((Path("runs") / name / "encoder.keras").exists() for name in "ab")


def test_one_of_several_files_that_fails_does_not_stop_the_others(files, run_command):
    (Path("bad")).mkdir()
    for number in range(4):
        (Path("bad") / f"{number}.nii.gz").write_bytes(b"no scan")
    ended = run_command("train", *files(a={"data_dir": "bad"}, b={}))
    assert (ended.code, ended.out) == (1, "run folder: runs/b\n")
    first, reason = ended.err.splitlines()[:2]
    assert first.startswith("error: 1 of 2 trainings failed")
    assert reason.startswith("  a.json: ") and "bad/0.nii.gz" in reason


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ({"run_name": "a"}, "run_name: a.json and b.json have the same run folder"),
        ({"workers": 2}, "workers: differs between the files"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_several_files_are_checked_before_the_first_is_run(files, run_command, b, message):
    ended = run_command("train", *files(a={}, b=b))
    assert ended.code == 2 and message in ended.err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_several_files_are_run_at_once(files, run_command, monkeypatch):
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    paths = files(a={"workers": 2}, b={"workers": 2, "algorithm": "jigsaw", "data_dim": 12})
    ended = run_command("train", *paths)
    assert ended.code == 0
    assert sorted(ended.out.splitlines()) == ["run folder: runs/a", "run folder: runs/b"]
    assert {path.stem for path in Path("runs/logs").glob("*.log")} == {"1_a", "2_b"}
    assert run_command("train", *paths, "--set", "workers=1", "--set", "base_workspace=alone").code == 0
    for name in "ab":
        at_once, alone = (outcome(RunFolder(Path(place) / name)) for place in ("runs", "alone"))
        assert at_once == alone and {"encoder.keras", "model.keras"} & at_once.keys()
