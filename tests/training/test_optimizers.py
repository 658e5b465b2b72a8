"""Optimizers against PyTorch's update rules, written out."""

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.training.optimizers import make_optimizer

LR, MOMENTUM, DECAY = 0.1, 0.9, 0.1
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


def trained(gradients, start, **options):
    """Return a weight after one step per gradient."""
    optimizer = make_optimizer(LR, **options)
    weight = keras.Variable(start, dtype="float32")
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
    return keras.ops.convert_to_numpy(weight)


def torch_sgd(gradients, weight, *, decay):
    """``torch.optim.SGD(momentum=, weight_decay=)``, from its documentation."""
    buffer = np.zeros_like(weight)
    for gradient in gradients:
        buffer = MOMENTUM * buffer + (gradient + decay * weight)
        weight = weight - LR * buffer
    return weight


def torch_adam(gradients, weight, *, decay):
    """``torch.optim.Adam(weight_decay=)``, likewise; not AdamW."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + decay * weight
        first = BETA_1 * first + (1 - BETA_1) * gradient
        second = BETA_2 * second + (1 - BETA_2) * gradient**2
        scale = np.sqrt(second / (1 - BETA_2**step)) + EPSILON
        weight = weight - LR * first / (1 - BETA_1**step) / scale
    return weight


@pytest.mark.parametrize(("form", "expected"), [("decoupled", 0.605), ("coupled", -0.058)])
def test_decay_alone_pulls_in_the_two_forms(form, expected):
    """50 steps from 1 without a gradient of the loss: the momentum makes the coupled form far stronger."""
    options = {"optimizer": "sgd", "momentum": MOMENTUM, "weight_decay": DECAY, "weight_decay_form": form}
    weight = trained([0.0] * 50, 1.0, **options)
    assert weight == pytest.approx(expected, abs=5e-4)
    slow = (1 - LR * DECAY) ** 50 if form == "decoupled" else torch_sgd([0.0] * 50, np.float64(1), decay=DECAY)
    assert weight == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_coupled_form_is_that_of_torch(name, decay):
    rng = np.random.default_rng(0)
    gradients, start = rng.normal(size=(6, 4)), rng.normal(size=4)
    reference = {"sgd": torch_sgd, "adam": torch_adam}[name](gradients, start, decay=decay)
    found = trained(gradients, start, optimizer=name, momentum=MOMENTUM, weight_decay=decay)
    np.testing.assert_allclose(found, reference, atol=2e-5)


@pytest.mark.parametrize("form", ["coupled", "decoupled"])
def test_clipping_does_not_see_the_decay(form):
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.5, "weight_decay_form": form}
    start = np.array([30.0, -40.0])
    decayed = start - LR * 0.5 * start
    found = trained([[3.0, -4.0]], start, clipnorm=1.0, **options)
    np.testing.assert_allclose(found, decayed - LR * np.array([0.6, -0.8]), rtol=1e-6)
    found = trained([[3.0, -0.25]], start, clipvalue=0.5, **options)
    np.testing.assert_allclose(found, decayed - LR * np.array([0.5, -0.25]), rtol=1e-6)


def test_decay_reaches_every_trainable_variable_and_no_other():
    inputs = keras.Input((3,))
    frozen = keras.layers.Dense(3, trainable=False)(inputs)
    normal = keras.layers.BatchNormalization()(frozen)
    model = keras.Model(inputs, keras.layers.Dense(2, bias_initializer="ones")(normal))
    before = {id(weight): keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}
    optimizer = make_optimizer(LR, optimizer="sgd", weight_decay=DECAY)
    zeros = [keras.ops.zeros(weight.shape) for weight in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    trainable = {id(weight) for weight in model.trainable_variables}
    assert len(trainable) == 4  # gamma, beta, kernel, bias
    for weight in model.weights:
        factor = 1 - LR * DECAY if id(weight) in trainable else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), factor * before[id(weight)], rtol=1e-6)


def test_the_cosine_falls_from_the_learning_rate_to_zero():
    optimizer = make_optimizer(0.5, lr_schedule="cosine", total_steps=40)
    rates = []
    for step in (0, 10, 20, 40, 50):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.5, 0.25 * (1 + np.sqrt(0.5)), 0.25, 0.0, 0.0], atol=1e-7)
    with pytest.raises(ValueError, match="cosine.*number of steps"):
        make_optimizer(0.5, lr_schedule="cosine")


def test_the_default_is_plain_adam():
    optimizer = make_optimizer(0.01)
    assert type(optimizer) is keras.optimizers.Adam
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert optimizer.weight_decay is None
    assert make_optimizer(0.01, optimizer="sgd", momentum=None).momentum == 0.0


def test_at_most_one_kind_of_clipping():
    with pytest.raises(ValueError, match="clipnorm"):
        make_optimizer(0.1, clipnorm=1.0, clipvalue=1.0)
    assert make_optimizer(0.1, clipnorm=0.5).clipnorm == 0.5
    assert make_optimizer(0.1, clipvalue=0.5).clipvalue == 0.5
