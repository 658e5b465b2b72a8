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


def test_the_default_is_plain_adam():
    optimizer = make_optimizer(0.01)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert optimizer.weight_decay is None
    assert make_optimizer(0.01, optimizer="sgd", momentum=None).momentum == 0.0


def test_at_most_one_kind_of_clipping():
    with pytest.raises(ValueError, match="clipnorm"):
        make_optimizer(0.1, clipnorm=1.0, clipvalue=1.0)
    assert make_optimizer(0.1, clipvalue=0.5).clipvalue == 0.5


def test_clipnorm_is_that_of_all_gradients_together():
    """Of norm 13 together and 5 and 12 alone; below the limit nothing happens."""
    gradients = [np.array([3.0, -4.0]), np.array([[12.0]])]
    for limit, factor in ((2.6, 0.2), (12.5, 12.5 / 13), (13.5, 1.0)):
        weights = [keras.Variable(np.zeros(gradient.shape), dtype="float32") for gradient in gradients]
        optimizer = make_optimizer(1.0, optimizer="sgd", momentum=0.0, clipnorm=limit)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32") for gradient in gradients], weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            np.testing.assert_allclose(weight, -factor * gradient, rtol=1e-6)


def test_adamw_decays_kernels_alone():
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(4, 3, name="bias_of_gamma")(inputs)  # a name that means nothing
    x = keras.layers.BatchNormalization()(keras.layers.GroupNormalization(1)(x))
    x = keras.layers.GRU(2)(keras.layers.Reshape((2, 8))(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = make_optimizer(LR, optimizer="adamw", weight_decay=DECAY, weight_decay_form="decoupled")
    assert isinstance(optimizer, keras.optimizers.Adam)
    zeros = [keras.ops.zeros(weight.shape) for weight in model.trainable_variables]
    for _ in range(3):
        optimizer.apply(zeros, model.trainable_variables)
    decayed = [variable.path for variable in model.trainable_variables if np.all(np.asarray(variable) < 0.99)]
    assert [path.split("/")[-1] for path in decayed] == ["kernel", "kernel", "recurrent_kernel", "kernel"]
    for variable in model.trainable_variables:
        expected = (1 - LR * DECAY) ** 3 if variable.path in decayed else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, expected), rtol=1e-6)


def test_adamw_is_that_of_torch():
    """``torch.optim.AdamW``: the variable shrinks before a step of Adam without decay."""
    rng = np.random.default_rng(0)
    gradients, weight = rng.normal(size=(6, 4)), rng.normal(size=4)
    found = trained(gradients, weight, optimizer="adamw", weight_decay=0.3)
    first, second = np.zeros(4), np.zeros(4)
    for step, gradient in enumerate(gradients, start=1):
        weight = weight * (1 - LR * 0.3)
        first = BETA_1 * first + (1 - BETA_1) * gradient
        second = BETA_2 * second + (1 - BETA_2) * gradient**2
        scale = np.sqrt(second / (1 - BETA_2**step)) + EPSILON
        weight = weight - LR * first / (1 - BETA_1**step) / scale
    np.testing.assert_allclose(found, weight, atol=2e-5)


ENGINES = {
    "sgd": {"optimizer": "sgd", "momentum": MOMENTUM, "weight_decay": DECAY},
    "adamw": {"optimizer": "adamw", "weight_decay": DECAY, "clipnorm": 0.5},
    "warm-up and cosine": {"lr_schedule": "cosine", "lr_warmup_steps": 2, "clipvalue": 0.3},
    "average and poly": {"lr_schedule": "poly", "lr_power": 0.9, "ema_momentum": 0.8},
}


@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES)
def test_the_mean_of_three_gradients_makes_one_update(options):
    """Weights, and averages where there are any, are those of the mean gradients, whatever the schedule."""
    gradients = np.random.default_rng(0).normal(size=(4, 3, 5))
    results = []
    for accumulated, given in ((1, gradients.mean(axis=1)), (3, gradients.reshape(12, 5))):
        optimizer = make_optimizer(LR, **options, total_steps=4 * accumulated, gradient_accumulation_steps=accumulated)
        weight = keras.Variable(np.arange(5.0), dtype="float32")
        for gradient in given:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        averages = optimizer._model_variables_moving_average if "ema_momentum" in options else []
        results.append([np.asarray(variable) for variable in (weight, *averages)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_average_begins_with_the_first_update_and_can_be_exchanged():
    optimizer = make_optimizer(1.0, optimizer="sgd", momentum=0.0, ema_momentum=0.75)
    weight = keras.Variable([0.1], dtype="float32")
    optimizer.build([weight])
    (average,) = optimizer._model_variables_moving_average
    assert float(average[0]) == float(weight[0])
    for gradient in (-1.0, -4.0, -8.0):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
    # 1.1, 5.1, 13.1: the first is the average, and then it keeps three quarters of itself.
    assert float(average[0]) == pytest.approx(0.75 * (0.75 * 1.1 + 0.25 * 5.1) + 0.25 * 13.1)
    before = float(weight[0]), float(average[0])
    optimizer.swap_averages()
    assert (float(average[0]), float(weight[0])) == before
    optimizer.finalize_variable_values([weight])
    assert (float(average[0]), float(weight[0])) == before
