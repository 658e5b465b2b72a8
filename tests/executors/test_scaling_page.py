"""docs/scaling.md: every command that stands in it is run as it stands, on a cohort of a few synthetic scans.

Only what makes a training short is added behind it. A command that nobody has taught this file to run is an error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from tests.backends.network import alone
from tests.executors import nodes, scheduler

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scaling.md"
# Keys that a command of the page may set, beside which nothing has to be prepared for it.
KEYS = {"workers", "executor", "executor_options", "distribution"}
FLAGS = {"--resume": 0, "--coordinator": 1, "--num_processes": 1, "--process_id": 1}  # and how many words follow
JAX = "KERAS_BACKEND=jax "
FILES = {"train.py": "configs_json/rotation_demo.json", "finetune.py": "configs_json/finetune/cpc_demo.json"}
# Four scans divide among two devices, and are as many as every task of the page can compare.
SHORT = ["log_level=WARNING", "epochs=1", "steps_per_epoch=1", "batch_size=4", "enc_filters=2", "tensorboard=false"]
SHORT_SWEEP = [
    *("log_level=WARNING", "epochs_random=1", "epochs_initialized=1", "epochs_warmup=0", "epochs_frozen=0"),
    *("exp_splits=[100]", "steps_per_epoch=1", "enc_filters=2", "tensorboard=false"),
]
PATIENCE = 600  # seconds for a command


def commands(text: str) -> list[str]:
    """Return the commands of all bash blocks, each on one line."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


COMMANDS = commands(PAGE.read_text())


def settings(command: str) -> dict[str, str]:
    """Return the keys that a command of this project sets, or fail: nobody has said how it is to be run."""
    words = shlex.split(command.removeprefix(JAX))
    if words[0] == "srun":
        words = [word for word in words[1:] if not re.fullmatch(r"--(nodes|ntasks-per-node|gpus-per-node)=\d+", word)]
    script, files, flags = words[1:2], words[2:], {}
    for flag, more in FLAGS.items():
        if flag in files:
            place = files.index(flag)
            del files[place : place + 1 + more]
    while "--set" in files:
        place = files.index("--set")
        key, _, flags[key] = files[place + 1].partition("=")
        del files[place : place + 2]
    is_known = words[0] == "python" and script in (["train.py"], ["finetune.py"]) and flags.keys() <= KEYS
    if not is_known or not files or not all(name.endswith(".json") for name in files):
        pytest.fail(f"{PAGE.name}: this test does not know how to run the following; teach it to: {command}")
    return flags


def is_install(command: str) -> bool:
    return command.startswith("pip install ")


def test_a_command_is_found_and_one_that_is_not_known_is_named():
    text = "```bash\n# a remark\npython a.py \\\n    b\n```\nas\n```json\n{}\n```\n```bash\nc\n```\n"
    assert commands(text) == ["python a.py b", "c"]
    assert settings("python train.py a.json b.json --set workers=2") == {"workers": "2"}
    for unknown in (
        "srun --pty python train.py a.json",
        "X=1 python train.py a.json",
        "python train.py a.json --set epochs=1",
        "python train.py a.json --coordinator=here",
        "python train.py",
    ):
        with pytest.raises(pytest.fail.Exception, match=re.escape(unknown)):
            settings(unknown)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_known(command):
    """Those that install name an extra that there is; the others are run below."""
    if not is_install(command):
        assert settings(command).keys() <= KEYS
        return
    asked = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", asked.update)
        patch.setattr(sys, "argv", ["setup.py"])
        runpy.run_path(str(ROOT / "setup.py"))
    (extra,) = re.fullmatch(r'pip install -e "\.\[(\w+)\]"', command).groups()
    assert extra in asked["extras_require"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the scripts, the experiment files, the cohort of the demo and a pretrained encoder."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "configs_json", folder / "configs_json")
    for script in ("train.py", "finetune.py", "prepare.py"):
        shutil.copy(ROOT / script, folder)
    few = "--num_unlabelled 4 --num_labelled 4 --num_test 2 --output demo_data"
    done(start(f"python prepare.py demo {few}", folder))
    done(start(with_settings("python train.py configs_json/cpc_demo.json", [*SHORT, "run_name=cpc_demo"]), folder))
    return folder


def environment(**more: str) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | threads | {"PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | more


def start(command: str, folder: Path, **more: str) -> subprocess.Popen:
    """Start a command in a shell, as a reader does."""
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment(**more), stdout=pipe, stderr=pipe)


def with_settings(command: str, keys: list[str]) -> str:
    return " ".join([command, *(f"--set {shlex.quote(key)}" for key in keys)])


def done(process: subprocess.Popen) -> str:
    """Wait for a command that ends well, and return what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out if isinstance(out, str) else out.decode()


@pytest.fixture
def run(place):
    """A function that runs a command where its executor is."""
    with contextlib.ExitStack() as stack:

        def run_it(command: str, executor: str) -> str:
            if command.startswith(JAX):
                return run_on_jax(command, place, stack)
            if executor == "ray":
                address = stack.enter_context(nodes.two(num_cpus=1, num_gpus=1)).address
                return done(start(command, place, RAY_ADDRESS=address))
            if executor == "slurm" and not scheduler.lacking():
                found = stack.enter_context(scheduler.slurm())
                return done(found.start(["bash", "-c", command], place, environment()))
            if executor == "slurm":  # the same array, without its scheduler
                command = command.replace('executor_options={"', 'executor_options={"cluster": "local", "')
            return done(start(command, place))

        yield run_it


def run_on_jax(command: str, place: Path, stack: contextlib.ExitStack) -> str:
    """Run a command on two devices of the processor, or by two processes, and return what it printed."""
    pytest.importorskip("jax", reason="needs the backend JAX: pip install self_supervised_3d_tasks[jax]")
    if "srun" in command:
        if why := scheduler.lacking():
            pytest.skip(why)
        command = re.sub(r"--nodes=\d+ --ntasks-per-node=\d+ --gpus-per-node=\d+", "--ntasks=2", command)
        found = stack.enter_context(scheduler.slurm())
        return done(found.start(["bash", "-c", command], place, environment(JAX_PLATFORMS="cpu")))
    if "--coordinator" not in command:
        two = "--xla_force_host_platform_device_count=2"
        return done(start(command, place, JAX_PLATFORMS="cpu", XLA_FLAGS=two))
    first = command.replace("host0:12345", "127.0.0.1:23453").replace("--num_processes 4", "--num_processes 2")
    second = first.replace("--process_id 0", "--process_id 1")
    assert first != second
    both = f"{second} & {first}; code=$?; wait $! && exit $code"
    return done(start(shlex.join([*alone(), "bash", "-c", both]), place, JAX_PLATFORMS="cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if not is_install(command)])
def test_every_command_does_what_the_page_says(command, run, place):
    keys = settings(command)
    executor = keys.get("executor", "local")
    if executor == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    number = COMMANDS.index(command)
    workspace = place / f"runs_of_{number}"
    is_sweep = "finetune.py" in command
    base = FILES["finetune.py" if is_sweep else "train.py"]
    (place / "FILE.json").write_text(json.dumps({"base": base, "run_name": "mine"}))
    short = [*(SHORT_SWEEP if is_sweep else SHORT), f"base_workspace={workspace.name}"]
    printed = run(with_settings(command, short), executor)
    runs = [place / line.removeprefix("run folder: ") for line in printed.splitlines() if line.startswith("run folder")]
    assert len(runs) == command.count(".json")
    for folder in runs:
        assert (folder / ("results.csv" if is_sweep else "encoder.keras")).exists()
    if not keys.keys() & {"workers", "executor"}:
        return
    logs = (runs[0] if is_sweep else workspace) / "logs"
    assert {path.stem for path in logs.glob("*.log")}
    assert (logs / "slurm").exists() == (executor == "slurm")
