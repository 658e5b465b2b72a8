from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_files import PretrainingSplit
from self_supervised_3d_tasks.files.run_folder import RunFolder


def test_create_takes_the_next_free_suffix_and_all_lists_them(tmp_path):
    base = tmp_path / "not" / "there" / "yet"
    assert RunFolder.all(base, "run") == []
    for number in range(12):
        folder = RunFolder.create(base, "run", {})
        assert folder.path == base / (f"run_{number}" if number else "run")
    RunFolder.create(base, "run_cpc", {})
    (base / "run_99").touch()
    # By number: as text, run_9 would follow run_11.
    names = [folder.path.name for folder in RunFolder.all(base, "run")]
    assert names == ["run", *(f"run_{number}" for number in range(1, 12))]
    assert [folder.path for folder in RunFolder.all(base, "run_cpc")] == [base / "run_cpc"]
    assert RunFolder.all(base, "ru") == []


def test_pinned_files_cannot_change(tmp_path):
    folder = RunFolder(tmp_path)
    folder.pin("split.json", {"train": ["a"], "validation": ("b",)}, PretrainingSplit)
    folder.pin("split.json", {"train": ["a"], "validation": ["b"]}, PretrainingSplit)
    with pytest.raises(UserError, match=r"split\.json: the run was started with other scans"):
        folder.pin("split.json", {"train": ["a", "b"], "validation": []}, PretrainingSplit)


def test_every_file_has_a_path_in_the_folder_and_a_bare_name(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.config == tmp_path / "config.json"
    assert str(RunFolder.config) == "config.json"
    assert folder.job("100_frozen_0").model == tmp_path / "jobs" / "100_frozen_0" / "model.keras"


def test_name_is_no_pattern(tmp_path):
    RunFolder.create(tmp_path, "axb", {})
    assert RunFolder.all(tmp_path, "a.b") == []


def _create(base):
    return RunFolder.create(base, "run", {}).path


def test_runs_started_together_get_different_folders(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(_create, [tmp_path] * 20)
    assert len(set(paths)) == 20


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_name_with_separators_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="run name"):
        RunFolder.create(tmp_path, name, {})


def test_a_base_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no run folder can be made here"):
        RunFolder.create(tmp_path / "file", "run", {})
    with pytest.raises(UserError, match="no such folder"):
        RunFolder.open(tmp_path / "missing")


def test_status_and_json(tmp_path):
    folder = RunFolder.create(tmp_path, "run", {})
    assert not folder.is_finished
    folder.mark("running")
    assert not folder.is_finished
    folder.mark("finished")
    assert RunFolder.open(folder.path).is_finished
    folder.write_json("config.json", {"lr": 1e-3, "data_dim": [8, 8, 8]})
    assert folder.read_json("config.json") == {"lr": 1e-3, "data_dim": [8, 8, 8]}
    (folder.path / "config.json").write_text('{"lr": ')
    with pytest.raises(UserError, match=r"config\.json: expected a JSON file"):
        folder.read_json("config.json")
    with pytest.raises(UserError, match=r"split\.json: no such file"):
        folder.read_json("split.json")


def test_environment_can_be_written_and_loads_no_framework(tmp_path):
    code = (
        "import json, sys; from self_supervised_3d_tasks.files.run_folder import environment;"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); print(json.dumps(environment(seed=7)))"
    )
    result = subprocess.run([sys.executable, "-c", code, "a b"], capture_output=True, text=True, check=True)
    environment = json.loads(result.stdout)
    assert environment["seed"] == 7
    assert environment["command"] == "-c 'a b'"
    assert environment["versions"]["keras"].startswith("3.")
    assert environment["python"] and environment["platform"]
