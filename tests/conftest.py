"""Settings of every test, made before TensorFlow or matplotlib can be loaded, and the scans that several files use."""

import gc
import importlib
import json
import logging as standard_logging
import os
import subprocess
import sys
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from absl import flags, logging

from self_supervised_3d_tasks import training

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            pytest.skip("needs a GPU that TensorFlow sees")


@pytest.fixture(scope="session")
def write_scans():
    """Write NIfTI scans of a bright box in noise, and their masks into ``<folder>_labels``."""

    def write(folder, count, *, shape=(16, 16, 16), prefix="case"):
        rng = np.random.default_rng(0)
        labels = folder.with_name(f"{folder.name}_labels")
        for path in (folder, labels):
            path.mkdir(parents=True)
        for number in range(count):
            first, size = rng.integers(1, 6, len(shape)), rng.integers(4, 9, len(shape))
            mask = np.zeros(shape, np.uint8)
            mask[tuple(slice(start, start + length) for start, length in zip(first, size, strict=True))] = 1
            image = (mask + rng.normal(0, 0.3, shape)).astype(np.float32)
            for path, array in ((folder, image), (labels, mask)):
                nib.save(nib.Nifti1Image(array, np.eye(4)), path / f"{prefix}{number}.nii.gz")
        return folder

    return write


@pytest.fixture(autouse=True, scope="session")
def libraries_are_no_garbage():
    """Leave what has been imported out of every later collection: a fifth of the time of the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def graphs_of_a_file():
    """Free what the tests of a file have traced: in gigabytes of old graphs, every later collection takes longer."""
    with training.own_graphs():
        yield


# Runs scripts one after the other, each in a child of a process that has loaded the libraries.
_RUN_SCRIPTS = """
import json, os, runpy, sys
import keras, matplotlib.pyplot, SimpleITK, skimage.measure, tensorflow
for command in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
        break
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{command}: exit code {code}")
"""


@pytest.fixture(scope="session")
def run_scripts():
    """Run scripts of a folder, ``run_scripts(folder, ["train.py", "file.json"], ...)``, and return their stdout."""

    def run(folder, *commands):
        environment = os.environ | {"PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
        line = [sys.executable, "-c", _RUN_SCRIPTS, json.dumps(commands)]
        ended = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    return run


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_command(capsys):
    """Run a command in this process, ``run_command("train", "file.json", "--resume")``, and say how it ended.

    Flags are defined anew each time, as in a new process. Lines of the log are not among ``err``; what ends a command
    is. A defect of ours raises here.
    """

    def run(name, *arguments):
        module = importlib.import_module(f"self_supervised_3d_tasks.commands.{name}")
        before, verbosity = set(flags.FLAGS), logging.get_verbosity()
        handlers = standard_logging.root.handlers[:]
        capsys.readouterr()
        code = 0
        try:
            module.main([f"{name}.py", *map(str, arguments)])
        except SystemExit as end:
            code = end.code or 0
        finally:
            for flag in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, flag)
            flags.FLAGS["verbosity"].unparse()
            flags.FLAGS.unparse_flags()
            logging.set_verbosity(verbosity)
            standard_logging.root.handlers = handlers
        return Ended(code, *capsys.readouterr())

    return run
