from __future__ import annotations

import hashlib
import json
import multiprocessing
import subprocess
import sys

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import run_folder
from self_supervised_3d_tasks.files.run_folder import RunFolder, atomic_write


def test_atomic_write_replaces_the_file_and_keeps_its_suffixes(tmp_path):
    target = tmp_path / "new" / "mask.nii.gz"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.name.endswith("mask.nii.gz") and temporary != target
            temporary.write_text(text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "weights.h5"
    target.write_text("old")

    def write():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    pytest.raises(error, write)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_new_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.touch()
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_checksum_file_is_that_of_sha256sum(tmp_path):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    sidecar = run_folder.write_checksum(file)
    assert sidecar.name == "encoder.keras.sha256"
    assert sidecar.read_text() == f"{hashlib.sha256(b'abc').hexdigest()}  encoder.keras\n"
    run_folder.verify_checksum(file)


@pytest.mark.parametrize("content", [b"abd", b"", b"abcd"])
def test_a_changed_file_is_named(tmp_path, content):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    run_folder.write_checksum(file)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.keras: damaged or changed"):
        run_folder.verify_checksum(file)


def test_checksum_without_file_or_sidecar_is_an_error(tmp_path):
    file = tmp_path / "encoder.keras"
    file.write_bytes(b"abc")
    with pytest.raises(UserError, match=r"encoder\.keras\.sha256: no such file"):
        run_folder.verify_checksum(file)
    run_folder.checksum_path(file).write_text("")
    with pytest.raises(UserError, match="says nothing"):
        run_folder.verify_checksum(file)


def test_create_takes_the_next_free_suffix_and_all_lists_them(tmp_path):
    base = tmp_path / "not" / "there" / "yet"
    assert RunFolder.all(base, "run") == []
    for number in range(12):
        folder = RunFolder.create(base, "run")
        assert folder.path == base / (f"run_{number}" if number else "run")
    RunFolder.create(base, "run_cpc")
    (base / "run_99").touch()
    # By number: as text, run_9 would follow run_11.
    names = [folder.path.name for folder in RunFolder.all(base, "run")]
    assert names == ["run", *(f"run_{number}" for number in range(1, 12))]
    assert [folder.path for folder in RunFolder.all(base, "run_cpc")] == [base / "run_cpc"]
    assert RunFolder.all(base, "ru") == []


def test_pinned_files_cannot_change(tmp_path):
    folder = RunFolder(tmp_path)
    folder.pin_json("split.json", {"train": ["a"], "test": ("b",)})
    folder.pin_json("split.json", {"train": ["a"], "test": ["b"]})
    with pytest.raises(UserError, match=r"split\.json: the run was started with other scans"):
        folder.pin_json("split.json", {"train": ["a", "b"], "test": []})


def test_name_is_no_pattern(tmp_path):
    RunFolder.create(tmp_path, "axb")
    assert RunFolder.all(tmp_path, "a.b") == []


def _create(base):
    return RunFolder.create(base, "run").path


def test_runs_started_together_get_different_folders(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(_create, [tmp_path] * 20)
    assert len(set(paths)) == 20


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_name_with_separators_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="run name"):
        RunFolder.create(tmp_path, name)


def test_a_base_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no run folder can be made here"):
        RunFolder.create(tmp_path / "file", "run")
    with pytest.raises(UserError, match="no such folder"):
        RunFolder.open(tmp_path / "missing")


def test_status_and_json(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
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
