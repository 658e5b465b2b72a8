"""The learning rate of each step, by hand and against Keras's own schedules."""

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.training.optimizers import make_optimizer
from self_supervised_3d_tasks.training.schedules import learning_rates, make_schedule


def rates(steps, **options):
    return learning_rates(make_schedule(0.5, total_steps=steps, **options), steps)


def test_without_schedule_and_warmup_it_is_a_number():
    assert make_schedule(0.5) == 0.5
    np.testing.assert_array_equal(rates(3), [0.5, 0.5, 0.5])


def test_the_cosine_falls_to_zero():
    np.testing.assert_allclose(rates(4, lr_schedule="cosine"), 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), atol=1e-7)
    optimizer = make_optimizer(0.5, lr_schedule="cosine", total_steps=40)
    found = []
    for step in (0, 10, 20, 40, 50):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(found, [0.5, 0.25 * (1 + np.sqrt(0.5)), 0.25, 0.0, 0.0], atol=1e-7)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_the_polynomial_is_that_of_keras(power):
    reference = keras.optimizers.schedules.PolynomialDecay(0.5, 7, end_learning_rate=0.0, power=power)
    found = rates(7, lr_schedule="poly", lr_power=power)
    np.testing.assert_allclose(found, [reference(step) for step in range(7)], atol=1e-6)


def test_the_warmup_is_a_line_that_ends_at_the_highest_rate():
    np.testing.assert_allclose(rates(6, lr_warmup_steps=4), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    found = rates(8, lr_warmup_steps=4, lr_schedule="poly", lr_power=1.0)
    np.testing.assert_allclose(found, [0.125, 0.25, 0.375, 0.5, 0.5, 0.375, 0.25, 0.125], atol=1e-7)


@pytest.mark.parametrize("name", ["constant", "cosine", "poly"])
def test_it_stays_within_an_update(name):
    options = {"lr_schedule": name, "lr_power": 0.9, "lr_warmup_steps": 2}
    found = rates(15, **options, gradient_accumulation_steps=3)
    np.testing.assert_array_equal(found, np.repeat(rates(5, **options), 3))


@pytest.mark.parametrize("options", [{}, {"total_steps": 4, "lr_warmup_steps": 4}])
def test_a_decay_needs_steps(options):
    with pytest.raises(ValueError, match="'poly' needs the number of steps, beyond those of the warm-up"):
        make_schedule(0.5, lr_schedule="poly", lr_power=0.9, **options)
