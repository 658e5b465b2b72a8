"""Losses: by hand, by a slow formula, and the rules that every loss keeps."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.errors import UserError

CLASSES = 3
NAMES = sorted(losses.LOSSES)
WEIGHTED = ("weighted_categorical_crossentropy", "weighted_sum_loss", "dice_crossentropy")
SHAPES = [(2, 5, 4), (3, 4, 3, 2)]


def example(shape, seed=0, num_classes=CLASSES):
    generator = np.random.default_rng(seed)
    mask = generator.integers(0, num_classes, shape).astype("int32")
    return mask, generator.normal(0, 2, (*shape, num_classes)).astype("float32")


def certain(mask, num_classes=CLASSES):
    """Logits that predict ``mask`` with a probability of 1 in float32."""
    return (np.eye(num_classes)[mask] * 200).astype("float32")


def probabilities(logits):
    exponentials = np.exp(logits.astype("float64"))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def slow_overlaps(mask, logits):
    """Per class (Σpt, Σp, Σt) of one sample, voxel by voxel."""
    p = probabilities(logits)
    sums = np.zeros((logits.shape[-1], 3))
    for voxel in itertools.product(*(range(size) for size in mask.shape)):
        for label in range(logits.shape[-1]):
            t = float(mask[voxel] == label)
            sums[label] += (p[voxel][label] * t, p[voxel][label], t)
    return sums


def slow_crossentropy(mask, logits, weights):
    p = probabilities(logits)
    voxels = list(itertools.product(*(range(size) for size in mask.shape)))
    return sum(-weights[mask[v]] * math.log(p[v][mask[v]]) for v in voxels) / len(voxels)


def slow_loss(name, mask, logits, weights):
    sums = slow_overlaps(mask, logits)
    dice = [(2 * i + 1e-5) / (p + t + 1e-5) for i, p, t in sums]
    jaccard = 1 - np.mean([(i + 1e-5) / (p + t - i + 1e-5) for i, p, t in sums])
    crossentropy = slow_crossentropy(mask, logits, weights)
    sigmoid = 1 / (1 + np.exp(-logits.astype("float64")))
    one_hot = np.eye(logits.shape[-1])[mask]
    return {
        "weighted_dice_loss": 1 - np.mean(dice),
        "jaccard_distance": jaccard,
        "categorical_crossentropy": slow_crossentropy(mask, logits, np.ones(len(weights))),
        "weighted_categorical_crossentropy": crossentropy,
        "weighted_sum_loss": 0.5 * crossentropy + 0.5 * jaccard,
        "dice_crossentropy": 1 - np.mean(dice[1:]) + crossentropy,
        "binary_crossentropy": -np.mean(one_hot * np.log(sigmoid) + (1 - one_hot) * np.log(1 - sigmoid)),
    }[name]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_slow_formula(name, shape):
    mask, logits = example(shape)
    takes_weights = name in WEIGHTED
    weights = (1.0, 5.0, 10.0) if takes_weights else None
    values = losses.get(name, class_weights=weights)(mask, logits)
    expected = [slow_loss(name, *sample, weights or (1, 1, 1)) for sample in zip(mask, logits, strict=True)]
    assert values.shape == (shape[0],)
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_value_per_sample_whatever_else_is_in_the_batch(name):
    mask, logits = example((3, 4, 4, 4))
    loss = losses.get(name)
    alone = np.concatenate([loss(mask[i : i + 1], logits[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(loss(mask, logits), alone, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_keras_averages_the_samples(name):
    mask, logits = example((4, 4, 4))
    image = keras.Input((4, 4, CLASSES))
    model = keras.Model(image, keras.layers.Identity()(image))
    takes_weights = name in WEIGHTED
    loss = losses.get(name, class_weights=(1, 2, 3) if takes_weights else None)
    model.compile(loss=loss)
    value = model.evaluate(logits, mask, batch_size=2, verbose=0)
    assert value == pytest.approx(float(np.mean(loss(mask, logits))), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_and_a_wrong_one(name):
    mask = np.arange(27, dtype="int32").reshape(1, 3, 3, 3) % CLASSES
    loss = losses.get(name)
    best, worst = loss(mask, certain(mask) - 100), loss(mask, certain((mask + 1) % CLASSES) - 100)
    assert float(best[0]) == pytest.approx(0, abs=1e-5)
    assert float(worst[0]) > 0.9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Four voxels, truth 0 0 1 1, prediction 0 1 1 1, both certain; class 2 is absent from both:
        # it counts as 1. Dice: 2/3, 4/5, 1. Jaccard: 1/2, 2/3, 1.
        ("weighted_dice_loss", 1 - (2 / 3 + 4 / 5 + 1) / 3),
        ("jaccard_distance", 1 - (1 / 2 + 2 / 3 + 1) / 3),
        # One voxel of four has cross-entropy 200.
        ("categorical_crossentropy", 50),
        ("weighted_sum_loss", 25 + 0.5 * (1 - (1 / 2 + 2 / 3 + 1) / 3)),
        ("dice_crossentropy", 1 - (4 / 5 + 1) / 2 + 50),
    ],
)
def test_by_hand(name, expected):
    truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    value = losses.get(name)(truth, certain(prediction))
    np.testing.assert_allclose(value, [expected], rtol=1e-4)


def test_weights_belong_to_the_true_class():
    mask = np.array([[0, 1]])
    logits = np.zeros((1, 2, 2), "float32")
    loss = losses.get("weighted_categorical_crossentropy", class_weights=[1, 5])
    np.testing.assert_allclose(loss(mask, logits), [3 * math.log(2)], rtol=1e-6)


def test_the_jaccard_term_is_not_scaled_away():
    """The predecessor's was multiplied by 1e-5."""
    mask, logits = example((1, 6, 6))
    terms = [losses.get(name) for name in ("categorical_crossentropy", "jaccard_distance")]
    total = losses.get("weighted_sum_loss")(mask, logits)
    np.testing.assert_allclose(total, 0.5 * sum(np.array(term(mask, logits)) for term in terms), rtol=1e-6)


@pytest.mark.parametrize("truth", [0, 1])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_at_the_extremes(name, truth, scale):
    """A mask of one class only, and logits from undecided to saturated."""
    mask = np.full((2, 4, 4, 4), truth, "int32")
    logits = tf.Variable(example(mask.shape)[1] * scale)
    with tf.GradientTape() as tape:
        value = losses.get(name)(mask, logits)
    gradient = tape.gradient(value, logits)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    if scale == 1:
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_give_a_float32_loss(name, dtype):
    mask, logits = example((2, 16, 16, 16))
    loss = losses.get(name)
    value = loss(mask, tf.cast(logits, dtype))
    assert value.dtype == "float32"
    np.testing.assert_allclose(value, loss(mask, logits), rtol=1e-2)


def test_masks_may_arrive_as_floats():
    """Keras casts targets to float32 before it calls a loss."""
    mask, logits = example((2, 4, 4))
    for name in NAMES:
        loss = losses.get(name)
        np.testing.assert_array_equal(loss(mask, logits), loss(mask.astype("float32"), logits))


def test_names():
    loss = losses.get("dice_crossentropy", class_weights=[1, 2])
    assert loss.__name__ == "dice_crossentropy"
    with pytest.raises(UserError, match="Did you mean 'weighted_dice_loss'"):
        losses.get("weighted_dice")
    takers = "remove them, or use weighted_sum_loss or weighted_categorical_crossentropy or dice_crossentropy"
    with pytest.raises(UserError, match=f"weighted_dice_loss takes none; {takers}$"):
        losses.get("weighted_dice_loss", class_weights=[1, 2])
    with pytest.raises(UserError, match="binary_crossentropy takes none; remove them$"):
        losses.get("binary_crossentropy", class_weights=[1, 2], choices=["binary_crossentropy"])
