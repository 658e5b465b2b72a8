"""Two processes on one folder: one works, the other is told who does, and a crash leaves nothing that is in the way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.preparation import demo

EXPERIMENT = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": [32, 32, 32]}


def test_the_second_is_told_who_holds_the_lock_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "folder"
    with lock.hold(folder, "wait for it") as held:
        assert held
        with pytest.raises(UserError) as caught, lock.hold(folder, "wait for it"):
            pass
        message = str(caught.value)
        assert message.startswith(f"{folder}: another process works here (process {os.getpid()} on ")
        assert message.endswith("; wait for it") and "\n" not in message
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []
    with lock.hold(tmp_path, "wait for it") as held:
        assert held
    assert tmp_path.is_dir()


def test_different_outputs_of_one_folder_do_not_meet(tmp_path):
    with lock.beside(tmp_path / "a", "wait"), lock.beside(tmp_path / "b", "wait"), lock.hold(tmp_path, "wait"):
        with pytest.raises(UserError, match="another process works here"), lock.beside(tmp_path / "a", "wait"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_waited_for(tmp_path):
    entered, order = threading.Event(), []

    def first():
        with lock.hold(tmp_path, "wait"):
            entered.set()
            order.append("first")
            threading.Event().wait(0.2)
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with lock.hold(tmp_path, "wait", wait=10):
        order.append("second")
    thread.join()
    assert order == ["first", "first ends", "second"]


def test_only_one_of_many_holds_the_lock(tmp_path):
    inside, most, times = 0, 0, 0

    def work(_):
        nonlocal inside, most, times
        with lock.hold(tmp_path, "wait", wait=30):
            inside += 1
            most, times = max(most, inside), times + 1
            threading.Event().wait(0.001)
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert (most, times) == (1, 40)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def holder(folder: Path):
    """Hold the lock of a folder in a process of its own, which is yielded."""
    code = (
        "import sys, time; from pathlib import Path; from self_supervised_3d_tasks.files import lock\n"
        "with lock.hold(Path(sys.argv[1]), 'wait'):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_lock_of_a_process_ends_with_it_however_it_ends(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(UserError, match=rf"\(process {process.pid} on .*; wait"), lock.hold(tmp_path, "wait"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / lock.NAME).exists()
        with lock.hold(tmp_path, "wait") as held:
            assert held
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_once_and_used(code, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.hold(tmp_path, "wait") as held:
        assert held is False
    assert len(caplog.messages) == 1 and "offers no locks" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/folder: files cannot be made here \(.*: Not a directory\)"):
        with lock.hold(tmp_path / "file" / "folder", "wait"):
            pass


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(EXPERIMENT | {"base_workspace": str(tmp_path / "runs")}))
    return load_experiment("train", path)


def test_two_resumes_of_one_run_do_not_meet(experiment):
    folder = experiment_run.claim(experiment, resume=False)
    before = folder.config.read_bytes()
    with experiment_run.held(experiment, resume=True) as first:
        assert first.path == folder.path
        with pytest.raises(UserError) as caught, experiment_run.held(experiment, resume=True):
            pass
        assert f"{folder.path}: another process works here" in str(caught.value)
        assert "new run without --resume" in str(caught.value) and "delete" not in str(caught.value)
        with experiment_run.held(experiment, resume=False) as other:
            assert other.path.name == f"{folder.path.name}_1"
    assert folder.config.read_bytes() == before
    with experiment_run.held(experiment, resume=True) as again:
        assert again.path.name.endswith("_1")  # the newest unfinished one


def test_two_resumes_without_a_run_yet_make_one(experiment):
    with experiment_run.held(experiment, resume=True) as first:
        with pytest.raises(UserError, match="another process works here"):
            with experiment_run.held(experiment, resume=True):
                pass
        assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]


def test_a_run_folder_has_its_keys_from_the_first_moment(tmp_path, monkeypatch):
    named = []
    write = RunFolder.write_json

    def look(folder, name, data):
        named.append(sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".unfinished-run-")))
        write(folder, name, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_json", look)
    with pytest.raises(KeyboardInterrupt):
        RunFolder.create(tmp_path, "run", {"lr": 1})
    assert named == [[]]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert RunFolder.create(tmp_path, "run", {"lr": 1}).read_json(RunFolder.config) == {"lr": 1}


def test_what_killed_starts_and_trainings_left_is_removed_once_nobody_works_there(experiment):
    folder = experiment_run.claim(experiment, resume=False)
    runs = folder.path.parent
    left = [
        *(runs / ".unfinished-run-0123abcd" / "config.json", folder.path / ".unfinished-0123abcd-state.json"),
        *(folder.checkpoints / ".unfinished-0123abcd-epoch_0001.weights.h5", folder.path / ".unfinished-x" / "part"),
        folder.job("100_random_0").checkpoints / ".unfinished-0123abcd-epoch_0001.weights.h5",
    ]
    kept = [folder.checkpoints / "epoch_0001.weights.h5", folder.path / "mine" / ".unfinished-0123abcd-notes"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with lock.hold(folder.path, "wait"), pytest.raises(UserError), experiment_run.held(experiment, resume=True):
        pass
    assert all(path.exists() for path in left[1:])
    with experiment_run.held(experiment, resume=True):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_a_command_on_a_held_run_ends_with_one_line(experiment, tmp_path, run_command, write_scans):
    keys = {"data_dir": str(write_scans(tmp_path / "scans", 4)), "base_workspace": str(tmp_path / "runs")}
    (tmp_path / "train.json").write_text(json.dumps(EXPERIMENT | keys))
    folder = experiment_run.claim(load_experiment("train", tmp_path / "train.json"), resume=False)
    before = sorted(folder.path.rglob("*"))
    with lock.hold(folder.path, "wait"):
        ended = run_command("train", tmp_path / "train.json", "--resume")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert ended.err.startswith(f"error: {folder.path}: another process works here (process {os.getpid()} on ")
    assert sorted(folder.path.rglob("*")) == before


def test_two_indexes_of_one_name_do_not_meet(tmp_path, run_command, write_scans):
    folder, output = write_scans(tmp_path / "scans", 2), tmp_path / "index.csv"
    with lock.beside(output, "wait"):
        ended = run_command("prepare", "index", folder, "--output", output)
    assert ended.code == 2 and "another process works here" in ended.err
    assert not output.exists()
    assert run_command("prepare", "index", folder, "--output", output).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("index.csv", "index_left_out.csv", "scans", "scans_labels")
    ]


def test_a_cohort_that_was_killed_is_made_anew_and_two_do_not_meet(tmp_path):
    options = demo.Options(num_unlabelled=1, num_labelled=1, num_test=1, size=16, num_slices=0)
    left = tmp_path / ".unfinished-cohort" / "images"
    left.mkdir(parents=True)
    (left / "images_999.nii.gz").touch()
    with lock.beside(tmp_path / "cohort", "wait"), pytest.raises(UserError, match="another process works here"):
        demo.prepare(tmp_path / "cohort", options)
    demo.prepare(tmp_path / "cohort", options)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]
    assert [path.name for path in (tmp_path / "cohort" / "images").iterdir()] == ["images_000.nii.gz"]


def test_two_that_fill_one_cache_read_the_same(tmp_path):
    both, path = threading.Barrier(2), tmp_path / "cache" / "array.npy"

    def compute():
        both.wait(10)  # each has found nothing
        return np.arange(1000)

    with ThreadPoolExecutor(2) as pool:
        arrays = list(pool.map(lambda _: disk.recall(path, compute, lambda array: array.shape == (1000,)), range(2)))
    for array in arrays:
        np.testing.assert_array_equal(array, np.arange(1000))
    assert [file.name for file in path.parent.iterdir()] == ["array.npy"]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), np.arange(1000))
