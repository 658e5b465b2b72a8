"""Which backend is chosen, and what is said of one that cannot be."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks import backend, training
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.training.distribution import processes
from self_supervised_3d_tasks.training.distribution.base import Distribution
from self_supervised_3d_tasks.training.distribution.processes import Place

FILE = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Write Keras's own settings."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return lambda text: (tmp_path / "keras.json").write_text(text)


def test_the_backend_is_the_one_of_keras(settings, monkeypatch):
    assert backend.name() == "tensorflow"
    settings('{"backend": "jax", "floatx": "float32"}')
    assert backend.name() == "jax"
    for damaged in ("", "[]", "{}", '{"backend"'):
        settings(damaged)
        assert backend.name() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert backend.name() == "jax"


def test_other_backends_are_refused(settings, tmp_path, monkeypatch):
    settings('{"backend": "torch"}')
    with pytest.raises(UserError, match=r"keras\.json: the backend 'torch' is not supported; use tensorflow or jax"):
        backend.check()
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    with pytest.raises(UserError, match="^KERAS_BACKEND: the backend 'numpy' is not supported"):
        backend.check()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"jax is not installed; install self_supervised_3d_tasks\[jax\]"):
        backend.check()


def test_commands_refuse_a_backend_before_they_read_scans(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.json").write_text(json.dumps(FILE))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    code, _, err = run_command("train", "file.json")
    assert code == 2
    assert err == "error: KERAS_BACKEND: the backend 'torch' is not supported; use tensorflow or jax\n"


def test_a_run_tells_its_backend_and_that_another_one_goes_on(tmp_path, monkeypatch, caplog):
    folder = RunFolder(tmp_path)
    for name, warnings in (("tensorflow", 0), ("tensorflow", 0), ("jax", 1), ("jax", 0)):
        monkeypatch.setenv("KERAS_BACKEND", name)
        caplog.clear()
        folder.record_environment(seed=3)
        assert folder.read_json("environment.json")["backend"] == name
        said = [text for level, text in ((r.levelno, r.message) for r in caplog.records) if level == logging.WARNING]
        assert len(said) == warnings
        assert all("goes on with the backend jax, after tensorflow" in text for text in said)
    folder.environment.write_text("[")
    folder.record_environment(seed=3)
    assert folder.read_json("environment.json")["seed"] == 3


def test_deterministic_kernels_of_jax_are_asked_for_as_it_starts(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    for name, expected in (("tensorflow", "--xla_a=1"), ("jax", "--xla_a=1 --xla_gpu_deterministic_ops=true")):
        monkeypatch.setenv("KERAS_BACKEND", name)
        backend.make_deterministic()
        assert backend.os.environ["XLA_FLAGS"] == expected


def test_what_jax_cannot_do_is_refused(monkeypatch):
    for given in (False, True, "auto"):
        training.check_compilation(given)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for given in (True, "auto"):
        training.check_compilation(given)
    with pytest.raises(UserError, match="jit_compile: false: the backend JAX would compile and start every operation"):
        training.check_compilation(False)


@pytest.mark.parametrize(
    ("scans", "devices", "said"),
    [(5, 2, "a batch of 5 scans .* 2 devices; use a batch_size of 4 or 6"), (3, 4, "4$"), (9, 4, ".* of 8 or 12")],
)
def test_batches_that_cannot_be_divided_are_refused_with_those_that_can(scans, devices, said):
    with pytest.raises(UserError, match=f"batch_size, distribution: .*{said}"):
        Distribution(devices).check_batch(scans)
    Distribution(devices).check_batch(12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--process_id=0"], "--process_id: give all of --coordinator, --num_processes, --process_id"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=0"], 'with "distribution": "data_parallel" alone'),
        (["--coordinator=a", "--num_processes=2", "--process_id=0"], "--coordinator: expected HOST:PORT, received 'a'"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "expected a number from 0 to 1"),
    ],
)
def test_flags_of_processes_that_do_not_fit_are_refused(run_command, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    distribution = "none" if "data_parallel" in said else "data_parallel"
    (tmp_path / "file.json").write_text(json.dumps(FILE | {"distribution": distribution}))
    code, _, err = run_command("train", "file.json", *arguments)
    assert code == 2
    assert said in err


def test_data_parallel_needs_jax(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.json").write_text(json.dumps(FILE | {"distribution": "data_parallel"}))
    code, _, err = run_command("train", "file.json")
    assert code == 2
    assert 'distribution: "data_parallel" needs JAX, but the backend of Keras is tensorflow; set KERAS_BACKEND' in err


def test_the_address_of_the_first_process_may_be_of_any_kind():
    for coordinator in ("node01:1234", "10.0.0.1:1", "[::1]:1234"):
        Place(coordinator, 2, 1).check()


def test_an_error_of_a_lost_peer_is_known_also_behind_another_one(monkeypatch):
    lost = ValueError("UNKNOWN: Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:45444\nmore")
    after = RuntimeError("Array has been deleted")
    after.__context__ = lost
    assert not processes.has_lost(lost)  # alone
    monkeypatch.setattr(processes, "count", lambda: 2)
    for error in (lost, after):
        assert processes.has_lost(error)
        said = str(processes.lost(error))
        assert "(UNKNOWN: Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:45444)" in said
        assert said.endswith("start all of them again with --resume")
    assert not processes.has_lost(RuntimeError("Array has been deleted"))
    assert not processes.has_lost(UserError("NCCL"))


@pytest.mark.parametrize(
    ("end", "said"), [("os.abort()", 1), ("sys.exit(3)", 0), ("last_words.omit(); os._exit(3)", 0)]
)
def test_what_ends_a_process_in_c_is_told_behind_it(end, said):
    folder = Path(processes.__file__).parent  # the file alone: its package loads more than a second's worth
    start = f"import os, sys; sys.path[0] = {str(folder)!r}; import last_words"
    program = f"{start}; last_words.prepare(); last_words.prepare(); {end}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: JAX has ended this process")]
    assert len(lines) == said
    assert done.returncode == (-6 if said else 3)
