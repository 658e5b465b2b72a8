"""The jobs of a sweep in this process and in others: the same files, and what failed is said."""

from __future__ import annotations

import contextlib
import json
import shutil

import joblib
import pytest

from self_supervised_3d_tasks import executors, training
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import JobsFailed, TrainingDiverged, UserError
from self_supervised_3d_tasks.executors import base
from self_supervised_3d_tasks.executors.base import Ended
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.finetuning import execution, sweep
from self_supervised_3d_tasks.finetuning.job import write_scores
from tests.finetuning.outcomes import outcome
from tests.finetuning.test_sweep import SETTINGS as ONE_REPETITION

SETTINGS = ONE_REPETITION | {
    "exp_splits": [100],
    "repetitions": 4,
    "epochs_frozen": 0,
    "epochs_initialized": 0,
    "scores": ["dice"],
}
JOBS = [f"100_random_{number}" for number in range(4)]


@pytest.fixture
def load(tmp_path, write_scans):
    """A function that returns a plan and the run folder that finetune.py would make for it."""
    write_scans(tmp_path / "scans", 8)

    def make(**keys):
        path = tmp_path / "sweep.json"
        paths = {"data_dir_train": str(tmp_path / "scans"), "base_workspace": str(tmp_path / "runs")}
        path.write_text(json.dumps(SETTINGS | paths | keys))
        experiment = load_experiment("finetune", path)
        return sweep.plan(experiment), experiment_run.claim(experiment, resume=False)

    return make


def losses(folder) -> dict[str, list[float]]:
    """The losses of every epoch of every job, without what tells the time."""
    histories = {name: training.read_history(folder.job(name)) for name in JOBS}
    return {name: [row[part] for row in rows for part in ("loss", "val_loss")] for name, rows in histories.items()}


@pytest.mark.slow
def test_one_process_and_several_leave_the_same_files(load, monkeypatch):
    """Each has one thread: with another number of threads sums are added up in another order."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    results = {}
    for name, keys in {
        "one": {"executor": "slurm", "executor_options": {"cluster": "local"}},
        "two": {"workers": 2},
        "interrupted": {"workers": 2},
    }.items():
        plan, folder = load(run_name=name, **keys)
        if name == "interrupted":
            done = JOBS[2]
            shutil.copytree(results["two"].job(done).path, folder.job(done).path)
        sweep.run(plan, folder)
        results[name] = folder
    one, two, interrupted = (outcome(folder) for folder in results.values())
    assert len(one) == len(two) > 4 * 2
    assert one == two == interrupted
    assert losses(results["one"]) == losses(results["two"]) == losses(results["interrupted"])
    logs = {path.stem for path in results["interrupted"].logs.glob("*.log")}
    assert logs == set(JOBS) - {done}, "a finished job was done again"


@pytest.fixture
def untrained(monkeypatch):
    """Training is replaced by scores, or by what it is to raise for a job."""
    errors = {}

    def run_job(experiment, job, store, folder):
        if job.name in errors:
            raise errors[job.name]
        write_scores(folder, 0.0, [])

    monkeypatch.setattr(execution, "run_job", run_job)
    return errors


def test_every_kind_of_failure_is_recorded_and_the_rest_goes_on(load, untrained):
    plan, folder = load()
    untrained |= {
        JOBS[0]: TrainingDiverged("the loss became inf"),
        JOBS[1]: KeyError("a defect"),
        JOBS[2]: UserError("weights: do not fit"),
    }
    with pytest.raises(JobsFailed) as failed:
        sweep.run(plan, folder)
    first, *lines = str(failed.value).splitlines()
    assert first.startswith("3 of 4 trainings failed")
    assert [line.split(":")[0].strip() for line in lines] == JOBS[:3]
    records = [read_json(folder.job(name).failure) for name in JOBS[:3]]
    assert [record["kind"] for record in records] == ["diverged", "defect", "mistake"]
    assert "KeyError" in records[1]["traceback"] and records[0]["traceback"] is None
    assert folder.job(JOBS[3]).scores.exists()
    untrained.clear()
    sweep.run(plan, folder)
    assert not list(folder.path.rglob("failure.json"))


def test_a_mistake_that_stops_every_job_is_said_once(load, untrained):
    plan, folder = load()
    untrained |= dict.fromkeys(JOBS, UserError("model_checkpoint: does not fit"))
    with pytest.raises(UserError, match="^model_checkpoint: does not fit$"):
        sweep.run(plan, folder)


def test_what_another_process_says_of_a_job_is_believed_only_with_its_file(load, untrained, monkeypatch):
    """An executor that calls a job finished is not enough for a row of the table."""
    monkeypatch.setattr(executors, "run", lambda *arguments: (Ended(name, None) for name in JOBS))
    monkeypatch.setattr(executors, "ready", lambda *arguments: contextlib.nullcontext())
    plan, folder = load(workers=2)
    with pytest.raises(JobsFailed, match="without scores"):
        sweep.run(plan, folder)
    assert {read_json(folder.job(name).failure)["kind"] for name in JOBS} == {"ended"}


def test_the_longest_trainings_are_the_first_to_begin(load, untrained, monkeypatch):
    given = []
    monkeypatch.setattr(executors, "run", lambda *arguments: (given.extend(arguments[2]), (end for end in ()))[1])
    monkeypatch.setattr(executors, "ready", lambda *arguments: contextlib.nullcontext())
    plan, folder = load(workers=2, exp_splits=[50, 100], epochs_random=2, repetitions=2, steps_per_epoch=None)
    with pytest.raises(JobsFailed):
        sweep.run(plan, folder)
    assert given == ["100_random_0", "100_random_1", "050_random_0", "050_random_1"]
    assert [job.name for job in plan.jobs] != given


def test_workers_share_what_is_prepared(load):
    assert load(workers=2)[0].experiment.cache_kind == "disk"
    assert load(workers=1)[0].experiment.cache_kind == "auto"
    assert load(workers=2, cache="memory")[0].experiment.cache_kind == "memory"


@pytest.mark.parametrize("gpus", [["0"], ["0", "1", "2"]])
def test_no_more_processes_than_gpus(load, monkeypatch, gpus):
    seen = []
    monkeypatch.setattr(base, "gpus_of_this_machine", lambda allowed: gpus)
    monkeypatch.setattr(executors, "run", lambda *arguments: (seen.append(arguments[-1]), (end for end in ()))[1])
    monkeypatch.setattr(executors, "ready", lambda *arguments: contextlib.nullcontext())
    plan, folder = load(workers=2)
    with pytest.raises(JobsFailed):
        sweep.run(plan, folder)
    assert (seen[0].workers, seen[0].gpus) == (min(2, len(gpus)), gpus)
    assert seen[0].threads == max(1, joblib.cpu_count() // seen[0].workers)
