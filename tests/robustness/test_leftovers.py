"""What killed processes leave behind: removed at the next start, and never what a living one works on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from self_supervised_3d_tasks.files import atomic, leftovers
from self_supervised_3d_tasks.files.leftovers import owned_name, remove_leftovers
from self_supervised_3d_tasks.files.scratch import own_temporary_folder

ROOT = Path(__file__).parents[2]
WRITE = """
import sys, time
from self_supervised_3d_tasks.files.atomic import atomic_write, atomic_write_files
context = {"file": atomic_write, "folder": atomic_write_files}[sys.argv[1]]
with context(__import__("pathlib").Path(sys.argv[2])) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    sys.stdin.readline()
    temporary.write_text("whole")
"""


@pytest.fixture
def fresh(monkeypatch):
    """This process has not looked into any folder yet."""
    monkeypatch.setattr(atomic, "_looked_into", set())


def begin(kind, path):
    """Start a process that is in the middle of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, kind, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_was_writing_goes_at_the_next_write(kind, tmp_path, fresh):
    with begin(kind, tmp_path / "mask.nii.gz") as process:
        process.kill()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"{atomic.TEMPORARY_PREFIX}") and f"-{process.pid}-" in left.name
    atomic.atomic_write_bytes(tmp_path / "other.csv", b"")
    assert [file.name for file in tmp_path.iterdir()] == ["other.csv"]


def test_a_process_has_ended_though_nobody_has_asked_how(tmp_path, fresh):
    """As one whose parent was killed with it, in a container whose first process asks for none."""
    process = begin("file", tmp_path / "mask.nii.gz")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    atomic.atomic_write_bytes(tmp_path / "other.csv", b"")
    assert [file.name for file in tmp_path.iterdir()] == ["other.csv"]
    process.communicate()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_living_process_writes_is_left_to_it(kind, tmp_path, fresh):
    with begin(kind, tmp_path / "mask.nii.gz") as process:
        atomic.atomic_write_bytes(tmp_path / "mask.nii.gz", b"of this process")
        assert len(list(tmp_path.iterdir())) == 2
        process.communicate("\n")
    assert process.returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mask.nii.gz"]
    assert (tmp_path / "mask.nii.gz").read_text() == "whole"


def name_of(monkeypatch, *, pid=None, machine=None):
    with monkeypatch.context() as patched:
        if pid:
            patched.setattr(os, "getpid", lambda: pid)
        if machine:
            patched.setattr(leftovers, "_machine", lambda: machine)
        return owned_name(".unfinished-", ".nii.gz")


@pytest.mark.parametrize(
    ("owner", "days", "stays"),
    [
        ("this process", 30, True),
        ("its parent", 30, True),
        ("a dead one", 0, False),
        ("of another machine", 6, True),
        ("of another machine", 8, False),
        ("nobody", 6, True),
        ("nobody", 8, False),
        ("another kind of file", 30, True),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_who_is_asked(owner, days, stays, is_folder, tmp_path, monkeypatch):
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = {
        "this process": {},
        "its parent": {"pid": os.getppid()},
        "a dead one": {"pid": dead.pid},
        "of another machine": {"pid": dead.pid, "machine": "00000000"},
    }
    others = {"nobody": ".unfinished-0123abcd-mask.nii.gz", "another kind of file": "mask.nii.gz"}
    path = tmp_path / (name_of(monkeypatch, **names[owner]) if owner in names else others[owner])
    if is_folder:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").touch()
    else:
        path.touch()
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    remove_leftovers(tmp_path, ".unfinished-")
    assert path.exists() == stays


def test_names_are_short_different_and_keep_their_ending():
    names = {owned_name(".unfinished-", ".weights.h5") for _ in range(100)}
    assert len(names) == 100
    assert all(name.endswith(".weights.h5") and len(name) <= 50 for name in names)


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    remove_leftovers(tmp_path / "none", ".unfinished-")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_temporary_files_of_a_command_go_with_it(error, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    monkeypatch.setattr(os, "getpid", lambda: dead.pid)
    left = tmp_path / owned_name("ss3d-")
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (left / "inner").mkdir(parents=True)

    @own_temporary_folder()
    def command():
        assert not left.exists()
        file, name = tempfile.mkstemp()
        os.close(file)
        assert Path(name).parent.parent == tmp_path and f"-{os.getpid()}-" in Path(name).parent.name
        if error:
            raise error

    if error:
        pytest.raises(error, command)
    else:
        command()
    assert list(tmp_path.iterdir()) == [] and tempfile.tempdir == str(tmp_path)


def test_what_tensorflow_compiles_lies_in_that_folder(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def double(x):
        if x > 0:  # converted by AutoGraph
            x = 2 * x
        return x

    for is_new in (True, False):  # what was compiled before works on without its file
        with own_temporary_folder():
            function = tf.function(double)
            assert float(function(tf.constant(2.0))) == 4.0
            places = [path.parent.parent for path in tmp_path.rglob("__autograph_generated_file*.py")]
            assert places == [tmp_path] * is_new
        assert list(tmp_path.iterdir()) == []
    assert float(function(tf.constant(-2.0))) == -2.0
    assert float(function(tf.constant([3.0])[0])) == 6.0
