"""Two devices train as one does; the numbers are those of processes that have two, see `two_devices`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.training import distribution as kinds
from self_supervised_3d_tasks.training.distribution import mirrored
from self_supervised_3d_tasks.training.distribution.base import Distribution
from tests.test_conformance import ALGORITHMS
from tests.training.two_devices import CASES

REPOSITORY = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
CHECKED = ("gathered", "negatives")
FAST = ("clipnorm", "batch normalization", "dropout", "three to validate", *CHECKED)
RESUMED = ("batch normalization: resumed", "cpc: resumed")
# What compares scans, or normalizes over them, is scaled up by a division by their spread.
OF_LOGS = 1e-4


def measured(*cases: str) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "tests.training.two_devices", *cases]
    ended = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=3000)
    assert ended.returncode == 0, ended.stderr
    return {case: numbers for line in ended.stdout.splitlines() for case, numbers in json.loads(line).items()}


def assert_all_same(found: dict[str, list[float]]) -> None:
    for case, (weights, logs, moved) in found.items():
        assert moved > 50 * TOLERANCE, f"{case}: weights that stay where they were are equal"
        assert weights < TOLERANCE, case
        assert logs < OF_LOGS, case


def test_two_devices_give_the_weights_and_logs_of_one():
    """By SGD, which passes on a difference of gradients as large as it is.

    "negatives" are those of both devices: where all codes are alike, the losses are at chance among all four scans.
    """
    found = measured(*FAST)
    assert found.keys() == set(FAST)
    assert_all_same(found)


@pytest.mark.slow
def test_every_task_every_option_and_a_resumed_training():
    """A minute of computing: every pretext task with its batches, 7 scans to validate in batches of 4, both labels.

    adamw has a bias that is not decayed.
    """
    cases = [*ALGORITHMS, *(case for case in CASES if case not in FAST), *RESUMED]
    found = measured(*cases)
    assert found.keys() == set(cases)
    assert_all_same(found)


def test_a_batch_that_cannot_be_divided_is_refused_with_those_that_can():
    with pytest.raises(UserError, match="batch of 7 scans .* 4 devices; use a batch_size of 4 or 8$"):
        Distribution(devices=4).check_batch(7)
    with pytest.raises(UserError, match="3 scans .* 4 devices; use a batch_size of 4$"):
        Distribution(devices=4).check_batch(3)
    with pytest.raises(UserError, match="3 scans .* 2 devices; use a batch_size of 16 or 32$"):
        Distribution(devices=2).check_batch(3, examples_per_scan=8)
    Distribution(devices=4).check_batch(8)
    Distribution().check_batch(7)


def test_one_device_is_told_once_and_trains_as_without(caplog):
    mirrored._over_all_devices.cache_clear()
    assert [training.start_distribution("mirrored").devices for _ in range(2)] == [1, 1]
    (record,) = (record for record in caplog.records if "distribution" in record.message)
    assert "finds one device, /device:CPU:0, and so it trains as without" in record.message
    mirrored._over_all_devices.cache_clear()


@pytest.mark.parametrize(("kind", "backend"), [("mirrored", "jax"), ("data_parallel", "tensorflow")])
def test_another_backend_is_refused(monkeypatch, kind, backend):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    with pytest.raises(UserError, match=f"distribution: .*the backend of Keras is {backend}; set KERAS_BACKEND="):
        kinds.start(kind)
