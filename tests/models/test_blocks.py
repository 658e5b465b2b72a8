"""Blocks of the encoders and decoders: what is normalized, by which constants, and what is told of it."""

from __future__ import annotations

import keras
import pytest
from absl import logging

from self_supervised_3d_tasks.models import blocks

OPTIONS = {"normalization": "batch", "dropout": 0.0, "seed": 0, "name": "block"}


@pytest.fixture
def told(monkeypatch):
    """What was warned of, formatted."""
    messages = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: messages.append(message % values))
    return messages


@pytest.mark.parametrize(("block", "number"), [(blocks.plain_block, 2), (blocks.residual_block, 3)])
def test_every_normalization_of_a_block_has_its_momentum(block, number):
    image = keras.Input((4, 4, 2))
    for options, momentum in (({}, 0.9), ({"momentum": 0.99}, 0.99)):
        layers = keras.Model(image, block(image, 8, **OPTIONS, **options)).layers
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert [(layer.momentum, layer.epsilon) for layer in norms] == [(momentum, 1e-3)] * number


def test_none_is_groups_and_a_word_is_needed_for_no_normalization():
    image = keras.Input((4, 4, 32))
    assert keras.Model(image, blocks.normalize(image, None, "norm")).get_layer("norm").groups == 8
    assert blocks.normalize(image, "none", "norm") is image


@pytest.mark.parametrize(
    ("shape", "kind", "values"),
    [
        ((1, 1, 1, 2), "group", 2),
        ((1, 1, 3), None, 3),
        ((2,), "layer", 2),
        ((1, 1, 4), "group", None),  # 1 group of 4 channels
        ((1, 1, 32), "group", None),  # 8 groups of 4
        ((2, 1, 2), "group", None),  # 1 group of 2 channels and 2 pixels
        ((1, 1, 2), "batch", None),
        ((1, 1, 2), "none", None),
        ((None, None, 2), "group", None),  # not known
    ],
)
def test_groups_of_which_little_is_left_are_told(told, shape, kind, values):
    blocks.normalize(keras.Input(shape), kind, "level_3_norm_1")
    expected = f"normalization: level_3_norm_1 normalizes groups of {values} value(s), of which little is left; "
    assert [message.split("use ")[0] for message in told] == ([expected] if values else [])
