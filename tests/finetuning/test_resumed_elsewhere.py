"""A sweep that is killed and goes on with other processes than it began with: the tables are those of one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from self_supervised_3d_tasks.files.run_folder import RunFolder
from tests.finetuning.outcomes import outcome
from tests.finetuning.test_execution import SETTINGS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds
WAYS = {
    "one": ["workers=1"],
    "two": ["workers=2"],
    "array": ["workers=2", "executor=slurm", 'executor_options={"cluster": "local"}'],
}


def start(folder: Path, name: str, way: str, *flags: str) -> subprocess.Popen:
    """Start finetune.py in a group of processes of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    keys = [f"run_name={name}", *WAYS[way]]
    command = [sys.executable, ROOT / "finetune.py", "sweep.json", *flags]
    command += [part for key in keys for part in ("--set", key)]
    with (folder / f"{name}.err").open("a") as err:
        return subprocess.Popen(command, cwd=folder, env=os.environ | threads, stderr=err, start_new_session=True)


def finished(folder: Path, name: str, process: subprocess.Popen) -> RunFolder:
    assert process.wait(PATIENCE) == 0, (folder / f"{name}.err").read_text()[-3000:]
    return RunFolder(folder / "runs" / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_scans):
    place = tmp_path_factory.mktemp("resumed")
    write_scans(place / "scans", 8)
    (place / "sweep.json").write_text(json.dumps(SETTINGS | {"data_dir_train": "scans", "epochs_random": 8}))
    return place


@pytest.fixture(scope="module")
def expected(folder):
    """What the sweep leaves when nothing happens to it."""
    return outcome(finished(folder, "undisturbed", start(folder, "undisturbed", "one")))


@pytest.mark.parametrize(("before", "after"), [("one", "two"), ("two", "one"), ("one", "array"), ("array", "two")])
def test_killed_and_resumed_with_other_processes(folder, expected, before, after):
    name = f"{before}_{after}"
    process, jobs = start(folder, name, before), folder / "runs" / name / "jobs"
    until = time.monotonic() + PATIENCE
    while len(list(jobs.glob("*/scores.json"))) < 1 or len(list(jobs.glob("*/history.csv"))) < 2:
        assert process.poll() is None and time.monotonic() < until, (folder / f"{name}.err").read_text()[-3000:]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in jobs.glob("*/scores.json")}
    assert 1 <= len(done) < 4
    assert outcome(finished(folder, name, start(folder, name, after, "--resume"))) == expected
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished training was done again"
