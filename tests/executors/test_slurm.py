"""Sweeps on a real SLURM of one node, with the commands that a user types; each takes about a minute."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import keras
import pytest

from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.training import read_history
from tests.executors import scheduler
from tests.finetuning.outcomes import outcome
from tests.finetuning.test_execution import SETTINGS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ON_SLURM = ("--set", "executor=slurm", "--set", "workers=2", "--set", 'executor_options={"cpus_per_task": 1}')
PATIENCE = 600  # seconds for anything


@pytest.fixture(scope="module")
def cluster():
    with scheduler.slurm() as found:
        yield found


@pytest.fixture
def start(cluster, tmp_path, write_scans, monkeypatch):
    """A function that writes an experiment file and starts finetune.py with it, in the folder of the test."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    write_scans(tmp_path / "scans", 8)
    started = []

    def begin(name, *flags, executor=ON_SLURM, **keys):
        content = SETTINGS | {"data_dir_train": "scans", "run_name": name} | keys
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        command = [sys.executable, ROOT / "finetune.py", f"{name}.json", *executor, *flags]
        started.append(cluster.start(command, tmp_path))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            cluster.interrupt(process)
            process.communicate(timeout=PATIENCE)


def wait_for(condition, process):
    """Wait until a condition holds, and return what it gave; the command must not end before."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until, "nothing came of it"
        time.sleep(0.2)
    return found


def finish(process):
    """Wait for a command and return its exit code and what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_a_sweep_is_one_array_whose_failed_tasks_do_not_stop_the_others(cluster, start, tmp_path):
    """The pretrained encoder is another one, so that the trainings that begin with it fail, and those alone."""
    (tmp_path / "pretrained").mkdir()
    image = keras.Input((1,))
    save_model(keras.Model(image, keras.layers.Dense(2)(image)), tmp_path / "pretrained" / "encoder.keras")
    keys = {"repetitions": 2, "epochs_initialized": 2, "model_checkpoint": "pretrained"}
    process, at_once, numbers = start("sweep", **keys), [], set()
    while process.poll() is None:
        running = cluster.tasks("running")
        at_once.append(len(running))
        numbers |= set(running)
        time.sleep(0.3)
    code, _, err = finish(process)
    assert code == 1, err
    assert max(at_once) == 2, "there is room for 8"
    arrays, tasks = ({number.split("_")[place] for number in numbers} for place in (0, 1))
    assert len(arrays) == 1 and tasks == set("0123")
    assert "2 of 4 trainings failed" in err
    folder = RunFolder(tmp_path / "runs" / "sweep")
    for number in range(2):
        failure = read_json(folder.job(f"100_initialized_{number}").failure)
        assert failure["kind"] == "mistake" and "0 of 16 tensors matched" in failure["reason"]
        assert folder.job(f"100_random_{number}").scores.exists()
    rows = folder.results_long.read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"random"}
    assert cluster.tasks("pending,running,completing") == []


def test_ctrl_c_cancels_the_array_and_resume_goes_on(cluster, start, tmp_path):
    code, _, err = finish(start("here", executor=()))
    assert code == 0, err
    folder = RunFolder(tmp_path / "runs" / "swept")
    process = start("swept")
    wait_for(lambda: list(folder.path.glob("jobs/*/scores.json")), process)
    cluster.interrupt(process)
    code, _, err = finish(process)
    assert code == 130 and "--resume" in err, err
    assert cluster.tasks("pending,running,completing") == []
    done = {path: path.stat().st_mtime_ns for path in folder.path.glob("jobs/*/scores.json")}
    assert 1 <= len(done) < 4
    code, _, err = finish(start("swept", "--resume"))
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished training was done again"
    assert outcome(folder) == outcome(RunFolder(tmp_path / "runs" / "here"))


def test_a_task_goes_on_after_its_last_epoch_when_queued_again_and_is_recorded_when_cancelled(cluster, start, tmp_path):
    keys = {"repetitions": 3, "epochs_random": 40}
    folder = RunFolder(tmp_path / "runs" / "queued_again")
    queued_again, cancelled = folder.job("100_random_0"), folder.job("100_random_1")
    process = start("queued_again", **keys)
    wait_for(lambda: all(len(read_history(job)) > 3 for job in (queued_again, cancelled)), process)
    tasks = {number.partition("_")[2]: number for number in cluster.tasks("running")}
    cluster.run("scontrol", "requeue", tasks["0"])
    cluster.run("scancel", "--signal=KILL", tasks["1"])
    begun = len(read_history(queued_again))
    wait_for(lambda: tasks["0"] in cluster.tasks("pending"), process)
    cluster.run("scontrol", "update", f"JobId={tasks['0']}", "StartTime=now")  # by itself in two minutes
    code, _, err = finish(process)
    assert code == 1 and "1 of 3 trainings failed" in err, err
    failure = read_json(cancelled.failure)
    assert failure["kind"] == "ended" and re.search("CANCELLED|FAILED", failure["reason"])
    log = (folder.logs / "100_random_0.log").read_text()
    (continued,) = re.findall(r"resumed after epoch (\d+)", log)
    assert int(continued) >= begun > 3
    code, _, err = finish(start("queued_again", "--resume", **keys))
    assert code == 0 and not cancelled.failure.exists(), err
    assert [row["epoch"] for row in read_history(queued_again)] == list(range(1, keys["epochs_random"] + 1))
