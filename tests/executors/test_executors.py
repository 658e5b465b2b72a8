"""Work in other processes: each item once, with its share of the machine, its log, and its reason when it fails."""

from __future__ import annotations

import functools
import importlib.util
import os

import joblib
import psutil
import pytest

from self_supervised_3d_tasks import executors
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.executors.base import Resources, gpus_of_this_machine
from tests.executors import work

EXECUTORS = ["local", pytest.param("slurm", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)]
OPTIONS = {"local": {}, "slurm": {"cluster": "local", "timeout_min": 2}, "ray": {}}


@pytest.fixture
def fresh(monkeypatch):
    """The environment of a user, who has not said how many threads there are."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    joblib.externals.loky.get_reusable_executor(kill_workers=True).shutdown(kill_workers=True)


def run(name, folder, items, **keys):
    if name == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    resources = Resources(2, folder / "logs", **{"options": OPTIONS[name]} | keys)
    return list(executors.run(name, functools.partial(work.note, folder=str(folder)), items, resources))


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_item_is_done_once_in_another_process(name, tmp_path, fresh, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = ["a", "b", "bad", "c"]
    ended = run(name, tmp_path, items)
    assert sorted(end.item for end in ended) == items
    reasons = {end.item: end.reason for end in ended}
    assert reasons.pop("bad").endswith("the reason") and set(reasons.values()) == {None}
    share = str(max(1, joblib.cpu_count() // 2))
    for item in reasons:
        where, process, *threads, gpu = (tmp_path / f"{item}.txt").read_text().split("|")
        assert where == str(tmp_path) and int(process) != os.getpid()
        assert threads == [share, share] and gpu in ("-", "")
    for item in items:
        log = (tmp_path / "logs" / f"{item}.log").read_text()
        assert log.startswith("a library speaks\n") and log.endswith(f"{item} is done\n")


def test_what_libraries_say_does_not_reach_the_terminal(tmp_path, fresh, capfd):
    assert run("local", tmp_path, ["a"]) == [("a", None)]
    assert capfd.readouterr() == ("", "")
    assert "a library speaks" in (tmp_path / "logs" / "a.log").read_text()


def test_each_process_has_one_of_the_gpus(tmp_path, fresh):
    run("local", tmp_path, list("abcd"), gpus=["3", "5"])
    seen = {tuple((tmp_path / f"{item}.txt").read_text().split("|")[1::3]) for item in "abcd"}
    assert {gpu for _, gpu in seen} <= {"3", "5"}
    assert len({process for process, _ in seen}) == len(seen), "a process has seen two GPUs"
    assert len({gpu for _, gpu in seen}) == len(seen), "two processes have seen one GPU"


def test_a_process_that_is_killed_does_not_pass_for_finished(tmp_path, fresh):
    reasons = {end.item: end.reason for end in run("local", tmp_path, ["killed", "a"])}
    assert reasons.keys() == {"killed", "a"}
    assert "ended from outside" in reasons["killed"]
    assert {end.reason for end in run("local", tmp_path, ["killed"])} == {None}


def test_processes_that_were_made_ready_do_the_work(tmp_path, fresh):
    resources = Resources(2, tmp_path / "logs")
    prepare = functools.partial(work.be_ready, folder=str(tmp_path))
    with executors.ready("local", prepare, resources):
        ended = run("local", tmp_path, list("abcd"))
    assert sorted(ended) == [(item, None) for item in "abcd"]
    share = str(max(1, joblib.cpu_count() // 2))
    prepared = {tuple(path.read_text().split("|")) for path in tmp_path.glob("ready_*.txt")}
    did = {tuple((tmp_path / f"{item}.txt").read_text().split("|")[1:3]) for item in "abcd"}
    assert did <= prepared and {threads for _, threads in prepared} == {share}


def has_ended(process):
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def test_processes_that_are_made_ready_for_nothing_are_ended(tmp_path, fresh):
    prepare = functools.partial(work.be_ready, folder=str(tmp_path), seconds=600)
    with pytest.raises(UserError, match="a scan"), executors.ready("local", prepare, Resources(2, tmp_path / "logs")):
        paths = work.until(lambda: [path for path in tmp_path.glob("ready_*.txt") if path.read_text()], 2)
        raise UserError("a scan cannot be used")
    for path in paths:
        work.until(functools.partial(has_ended, int(path.read_text().split("|")[0])))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local", {"num_cpus": 2}, "num_cpus is none of executor local; it has none"),
        ("slurm", {"slurm_setup": ["touch /tmp/mine"]}, "slurm_setup is none of executor slurm"),
        ("slurm", {"slurm_additional_parameters": {}}, "slurm_additional_parameters is none of"),
        ("slurm", {"slurm_partition": "gpu\ntouch mine"}, "slurm_partition: expected letters"),
        ("ray", {"runtime_env": {"pip": ["mine"]}}, "runtime_env is none of executor ray"),
        ("ray", {"num_cpu": 2}, "Did you mean 'num_cpus'"),
        pytest.param("slurm", {}, "cannot be submitted", marks=pytest.mark.slow),
        pytest.param("ray", {"num_cpus": -1}, "num_cpus", marks=pytest.mark.slow),
        pytest.param("ray", {"address": "127.0.0.1:1"}, "no Ray at 127.0.0.1:1", marks=pytest.mark.slow),
    ],
)
def test_options_that_an_executor_does_not_have_are_told(name, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(name, tmp_path, ["a"], options=options)


def test_gpus_are_those_that_may_be_used(monkeypatch):
    assert gpus_of_this_machine([1, 3]) == ["1", "3"]
    for visible, names in {"": [], "-1": [], "0,2": ["0", "2"], "GPU-8f": ["GPU-8f"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus_of_this_machine(None) == names
