"""The same numbers from both backends, and from one device and several: every pretext task, a few steps from the same
weights on the same batch, in processes of their own."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.files.models import load_model
from tests.backends import few_steps

pytest.importorskip("jax", reason="needs the backend JAX: pip install self_supervised_3d_tasks[jax]")

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 5
CASES = [f"{name}-{rank}" for name, rank in itertools.product(registry.known("algorithm"), (2, 3))]
CASES += [f"rotation-2-{variant}" for variant in few_steps.VARIANTS]
FEW = ["exemplar-2"]  # compares the scans of a batch


def run(backend, devices, folder, output, cases, steps=STEPS):
    """Train the cases in a process of their own."""
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    program = REPOSITORY / "tests" / "backends" / "few_steps.py"
    distribution = "data_parallel" if devices > 1 else "none"
    command = [sys.executable, program, folder, output, distribution, steps, *cases]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-4000:]


def losses(output, case):
    return np.array(json.loads((output / f"{case}.json").read_text())["losses"])


def moved(output, case):
    """Return how far a weight went at most."""
    return json.loads((output / f"{case}.json").read_text())["moved"]


def weights(output, case):
    with np.load(output / f"{case}.npz", allow_pickle=False) as found:
        return [found[f"arr_{place}"] for place in range(len(found.files))]


def assert_close(one, other, case, tolerance):
    assert len(weights(one, case)) == len(weights(other, case)) > 4
    for left, right in zip(weights(one, case), weights(other, case), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def test_two_devices_of_jax_train_as_tensorflow_does(tmp_path):
    """The validation's last batch, 3 scans, cannot be divided between them."""
    few_steps.main(tmp_path, tmp_path / "tensorflow", "none", 3, *FEW)
    run("jax", 2, tmp_path, tmp_path / "jax", FEW, steps=3)
    for case in FEW:
        expected = losses(tmp_path / "tensorflow", case)
        assert len(np.unique(expected)) == 6
        np.testing.assert_allclose(losses(tmp_path / "jax", case), expected, rtol=0, atol=1e-4)
        assert_close(tmp_path / "jax", tmp_path / "tensorflow", case, 1e-4)
        # What JAX has written is read here.
        model = load_model(tmp_path / "jax" / f"{case}.keras")
        for variable, value in zip(model.weights, weights(tmp_path / "jax", case), strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What one device of TensorFlow, one of JAX and two of JAX make of every case: minutes each."""
    folder = tmp_path_factory.mktemp("steps")
    for backend, devices in (("tensorflow", 1), ("jax", 1), ("jax", 2)):
        run(backend, devices, folder, folder / f"{backend}{devices}", CASES)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_backends_have_the_same_losses(outputs, case):
    expected = losses(outputs / "tensorflow1", case)[:3]
    assert np.isfinite(expected).all() and len(np.unique(expected)) > 3
    np.testing.assert_allclose(losses(outputs / "jax1", case)[:3], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_device_and_two_have_the_same_weights(outputs, case):
    assert moved(outputs / "jax1", case) > 50 * 1e-5, "weights that stay where they were are equal"
    assert_close(outputs / "jax1", outputs / "jax2", case, 1e-5)
    np.testing.assert_allclose(losses(outputs / "jax1", case), losses(outputs / "jax2", case), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["exemplar-2", "rotation-2-ema", "rotation-2-accumulation"])
@pytest.mark.parametrize("before", [("jax", 2), ("tensorflow", 1)], ids=lambda before: before[0])
def test_a_training_goes_on_with_another_number_of_devices_or_another_backend(outputs, tmp_path, case, before):
    run(*before, outputs, tmp_path / "run", [case], steps=2)
    run("jax", 1, outputs, tmp_path / "run", [case])
    assert len(losses(tmp_path / "run", case)) == STEPS
    assert_close(tmp_path / "run", outputs / "jax1", case, 1e-5 if before[0] == "jax" else 1e-4)
