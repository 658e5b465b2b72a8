"""Work on a Ray of two nodes, each with processes of its own, as on two machines."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from self_supervised_3d_tasks import executors
from self_supervised_3d_tasks.executors.base import Resources
from self_supervised_3d_tasks.files.run_folder import RunFolder
from tests.executors import nodes, work
from tests.finetuning.outcomes import outcome
from tests.finetuning.test_execution import SETTINGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install -e .[ray]"),
    # Of Ray itself, which leaves files and processes to be collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def cluster(monkeypatch):
    """A Ray of two nodes with one core each, which ends with the test."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    with nodes.two(num_cpus=1) as found:
        yield found


def test_a_sweep_is_spread_over_both_nodes(cluster, tmp_path, write_scans, run_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 8)
    (tmp_path / "sweep.json").write_text(json.dumps(SETTINGS | {"data_dir_train": "scans"}))
    options = {"address": cluster.address, "num_cpus": 1}
    on_ray = ["executor=ray", "workers=2", f"executor_options={json.dumps(options)}", "run_name=ray"]
    with nodes_at_work() as busy:
        for name, keys in {"ray": on_ray, "one": ["run_name=one"]}.items():
            ended = run_command("finetune", "sweep.json", *(part for key in keys for part in ("--set", key)))
            assert ended.code == 0, (name, ended.err)
    assert len(busy) == 2
    folders = [RunFolder(tmp_path / "runs" / name) for name in ("ray", "one")]
    assert outcome(folders[0]) == outcome(folders[1]) and len(outcome(folders[0])) > 8


@pytest.mark.parametrize(("tries", "done"), [(2, "every"), (0, "not every")])
def test_the_work_of_a_node_that_dies_is_done_by_another_or_said(cluster, tmp_path, tries, done):
    """Two items wait in two processes, one on each node; then the second node and all its processes are killed."""
    resources = Resources(
        2, tmp_path / "logs", options={"address": cluster.address, "max_retries": tries, "num_cpus": 1}
    )
    waiting = functools.partial(work.wait_for_the_word, folder=str(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: list(executors.run("ray", waiting, ["a", "b"], resources)))
        processes = work.until(lambda: sorted(tmp_path.glob("*.process")), 2)
        places = {path.stem.split("@")[0]: int(path.stem.split("@")[1]) for path in processes}
        first, second = (node_of(process) for process in places.values())
        assert first != second, "both items are on one node"
        (killed,) = cluster.worker_nodes
        cluster.remove_node(killed, allow_graceful=False)
        (tmp_path / "go on").touch()
        reasons = {end.item: end.reason for end in ended.result(timeout=240)}
    assert reasons.keys() == {"a", "b"}
    if done == "every":
        assert reasons == {"a": None, "b": None}
        assert len(list(tmp_path.glob("*.process"))) == 3, "that of the dead node was not begun again"
    else:
        (reason,) = filter(None, reasons.values())
        assert "node" in reason or "worker" in reason


@contextlib.contextmanager
def nodes_at_work() -> Iterator[set[int]]:
    """Collect the nodes that do a task during the block."""
    found: set[int] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for process in psutil.process_iter(["cmdline"]):
                if (process.info["cmdline"] or [""])[0].startswith("ray::do"):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found.add(node_of(process.pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def node_of(process: int) -> int:
    """The raylet that a process belongs to."""
    return next(parent.pid for parent in psutil.Process(process).parents() if "raylet" in parent.name())
