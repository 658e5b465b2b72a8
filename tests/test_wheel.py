"""Installed away from the checkout it is the same software."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what it is made of."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("self_supervised_3d_tasks", "configs_json"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(source),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(target),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def ss3d(wheel, tmp_path_factory):
    """The installed command, run in a folder of its own; its environment borrows this one's other packages."""
    home, work = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("work")
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--prefix",
        str(home),
        "--ignore-installed",
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    script = home / "bin" / "ss3d"
    script.write_text(f"#!{home / 'bin' / 'python'}\n" + script.read_text().partition("\n")[2])

    def run(*arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([script, *arguments], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run.work = work
    run.site = site
    return run


def test_the_wheel_holds_every_experiment_file_base_and_schema(wheel):
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs_json").rglob("*.json")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"self_supervised_3d_tasks/{name}" for name in expected} <= names
    assert not any(name.startswith(("tests/", "configs_json/")) for name in names)


def test_prepare_example_train(ss3d):
    ss3d("prepare", "demo", "--output", "demo_data", "--num_unlabelled=6", "--num_labelled=2", "--num_test=1")
    assert "cpc_demo " in ss3d("example")
    assert ss3d("example", "cpc_demo") == "cpc_demo.json\n"
    out = ss3d("train", "cpc_demo.json", "--set", "epochs=1", "--set", "tensorboard=false")
    assert out.splitlines()[-1] == "run folder: runs/cpc_demo"
    run = ss3d.work / "runs" / "cpc_demo"
    assert (run / "encoder.keras").is_file()
    assert "ss3d train cpc_demo.json" in (run / "environment.json").read_text()
    # The package of the environment ran, not that of the checkout.
    program = "import self_supervised_3d_tasks as package; print(package.__file__)"
    found = subprocess.run([ss3d.site.parents[2] / "bin" / "python", "-c", program], cwd=ss3d.work, capture_output=True)
    assert Path(found.stdout.decode().strip()).is_relative_to(ss3d.site)
