"""The same networks and losses on another Keras backend, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

ONE_STEP_OF_EVERYTHING = """
import keras
import numpy as np

from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.losses import contrastive
from self_supervised_3d_tasks.scores import logged

assert keras.backend.backend() == {backend!r}
generator = np.random.default_rng(0)
image = generator.normal(size=(2, 8, 8, 8, 1)).astype("float32")
mask = generator.integers(0, 4, (2, 8, 8, 8)).astype("int32")


def step(model, loss):
    before = [weight.copy() for weight in model.get_weights()]
    model.compile(optimizer="adam", loss=losses.get(loss))
    value = model.train_on_batch(image, mask)
    assert np.isfinite(value), (loss, value)
    assert any((a != b).any() for a, b in zip(before, model.get_weights()))


for preset, normalization in [("upstream", "batch"), ("paper", "group")]:
    encoder = registry.encoder("unet")(
        image.shape[1:], unet_preset=preset, normalization=normalization, num_layers=2, enc_filters=2
    )
    for name in registry.known("decoder"):
        step(registry.decoder(name)(encoder, num_classes=4, normalization=normalization), "dice_crossentropy")
for loss in losses.LOSSES:
    step(keras.Sequential([keras.Input(image.shape[1:]), keras.layers.Dense(4)]), loss)
for metric in (metric for found in logged.known("segmentation", ["0", "1", "2", "3"]).values() for metric in found):
    assert np.allclose(np.asarray(metric(mask, 200 * np.eye(4, dtype="float32")[mask])), 1)
value = contrastive.info_nce(np.zeros((2, 3, 4), "float32"), np.zeros((2, 3), "int32"))
assert np.allclose(np.asarray(value), np.log(4))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_one_train_step_of_every_network_and_loss(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend}
    code = ONE_STEP_OF_EVERYTHING.format(backend=backend)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
