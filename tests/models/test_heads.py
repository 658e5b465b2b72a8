"""Heads."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import heads


def build(head, shape, *arguments, **options):
    x = keras.Input(shape)
    return keras.Model(x, head(x, *arguments, seed=0, **options))


@pytest.mark.parametrize(
    ("head", "arguments", "parameters"),
    [
        # 16384 -> 2048 -> 1024 -> 10, batch normalization after both hidden layers
        (heads.big_fully, (10,), 16385 * 2048 + 4 * 2048 + 2049 * 1024 + 4 * 1024 + 1025 * 10),
        (heads.simple_multiclass, (), 16385 * 1024 + 4 * 1024 + 1025 * 5),
        (heads.softmax, (4,), 16385 * 4),
    ],
)
def test_parameters_are_the_predecessors(head, arguments, parameters):
    assert build(head, (4, 4, 4, 256), *arguments).count_params() == parameters


def test_layer_order():
    model = build(heads.big_fully, (3, 3, 2), 6, head_units=(8, 4), name="top")
    names = [layer.name for layer in model.layers[1:]]
    assert names == [
        "top_flatten",
        *("top_dense_1", "top_norm_1", "top_dropout_1"),
        *("top_dense_2", "top_norm_2", "top_dropout_2"),
        "top_logits",
    ]


def test_a_code_is_not_flattened_and_dropout_can_be_left_out():
    model = build(heads.big_fully, (5,), 6, head_units=(8,), dropout_rate=0.0)
    assert [layer.name for layer in model.layers[1:]] == ["head_dense_1", "head_norm_1", "head_logits"]


@pytest.mark.parametrize("head", heads.HEADS.values())
def test_untrained_logits_say_that_every_class_is_equally_likely(head):
    model = build(head, (32,), 10)
    x = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    y = np.arange(64) % 10
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x, training=False))
    assert abs(float(loss) - np.log(10)) < 0.05 * np.log(10)


def test_logits_have_no_activation():
    model = build(heads.softmax, (4,), 3)
    x = np.full((1, 4), -100.0, "float32")
    kernel = model.get_layer("head_logits").get_weights()[0]
    np.testing.assert_allclose(model(x), x @ kernel, rtol=1e-5)


def test_names_lead_to_heads():
    assert heads.get("big_fully") is heads.big_fully
    assert list(heads.HEADS) == ["big_fully", "simple_multiclass", "softmax"]
    assert all("seed" in inspect.signature(head).parameters for head in heads.HEADS.values())
    with pytest.raises(UserError, match="Did you mean 'big_fully'"):
        heads.get("big_full")
