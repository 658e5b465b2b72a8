"""A new pretext task is one file and one JSON file: the conformance suite then covers it by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

TASK = '''
"""Inversion: was the contrast of the scan inverted?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from self_supervised_3d_tasks.algorithms.base import Algorithm, Panel
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.ops import seeds


class Inversion(Algorithm):
    """A toy task with one hyper-parameter."""

    def __init__(self, input_shape: Sequence[int], *, share: Annotated[float, Field(gt=0, lt=1)] = 0.5) -> None:
        super().__init__(input_shape)
        self.share = share

    def make_example(self, image, seed):
        inverted = tf.random.stateless_uniform((), seeds.fold(seed, 0)) < self.share
        image = tf.ensure_shape(image, self.input_shape)
        return tf.where(inverted, 1.0 - image, image), tf.cast(inverted, tf.int32)

    def make_model(self, encoder, *, seed):
        image = keras.Input(self.input_shape)
        return keras.Model(image, heads.softmax(encoder(image), 2, seed=seed))

    def loss(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    def metrics(self):
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def describe(self, inputs, targets):
        return [Panel(f"inverted: {bool(targets)}", np.asarray(inputs))]
'''

EXPERIMENT = """{
  "algorithm": "inversion", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32, "share": 0.25
}"""


def test_one_file_and_one_experiment_are_enough(tmp_path):
    for folder in ("self_supervised_3d_tasks", "configs_json"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("test_conformance.py", "conftest.py"):
        shutil.copy(REPOSITORY / "tests" / name, tmp_path / "tests" / name)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "self_supervised_3d_tasks" / "algorithms" / "inversion.py").write_text(TASK)
    (tmp_path / "configs_json" / "inversion_toy.json").write_text(EXPERIMENT)

    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "inversion"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-3000:]
    passed = [line for line in done.stdout.splitlines() if " PASSED" in line]
    # Eight properties in 2D, seven in 3D (its training is slow), and two of the experiment file.
    assert sum("[inversion-2d]" in line for line in passed) == 8
    assert sum("[inversion-3d]" in line for line in passed) == 7
    assert sum("inversion_toy" in line for line in passed) == 2
