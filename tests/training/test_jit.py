"""Steps that XLA compiles, against plain ones; on a CPU it is asked for, as "auto" takes it on a GPU alone."""

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training.optimizers import make_optimizer


def trained(jit_compile):
    encoder = unet((8, 8, 1), num_layers=1, enc_filters=4, seed=3)
    model = keras.Model(encoder.input, keras.layers.Dense(2)(keras.layers.Flatten()(encoder.output)))
    for variable in model.trainable_variables[-2:]:
        variable.assign(np.full(variable.shape, 0.1))
    options = {"lr_schedule": "poly", "total_steps": 8, "clipnorm": 1.0, "gradient_accumulation_steps": 2}
    optimizer = make_optimizer(0.01, optimizer="adamw", weight_decay=0.1, ema_momentum=0.9, **options)
    model.compile(optimizer, loss="mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    for _ in range(4):
        model.train_on_batch(rng.normal(size=(2, 8, 8, 1)), rng.normal(size=(2, 2)))
    return model, [keras.ops.convert_to_numpy(variable) for variable in (*model.variables, *optimizer.variables)]


@pytest.mark.slow
def test_a_compiled_step_is_the_plain_one():
    (plain, expected), (compiled, found) = trained(False), trained(True)
    assert (plain.jit_compile, compiled.jit_compile) == (False, True)
    assert len(found) == len(expected) > 40
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_auto_is_plain_on_a_cpu():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(make_optimizer(0.01), loss="mse", jit_compile="auto")
    assert model.jit_compile is False
