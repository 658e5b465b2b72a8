"""Layers by rank."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers


@pytest.mark.parametrize(
    ("value", "rank", "expected"),
    [(2, 3, (2, 2, 2)), ([1, 2], 2, (1, 2)), (np.int64(3), 1, (3,)), ((4, 4, 1), 3, (4, 4, 1))],
)
def test_as_tuple_gives_one_integer_per_axis(value, rank, expected):
    assert layers.as_tuple(value, rank, "strides") == expected


@pytest.mark.parametrize("value", [0, -1, (2, 2), (2, 2, 2, 2), (1, 2, 0), (1.0, 2, 2)])
def test_as_tuple_names_the_argument_that_is_wrong(value):
    with pytest.raises(UserError, match="strides: expected one positive integer or 3"):
        layers.as_tuple(value, 3, "strides")


def test_every_layer_has_its_own_stream_of_every_seed():
    seeds = {layers.layer_seed(seed, name) for seed in range(50) for name in ("conv_1", "conv_2", "dropout")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert layers.layer_seed(3, "conv_1") == layers.layer_seed(3, "conv_1")


@pytest.mark.parametrize("rank", [2, 3])
def test_shapes_in_each_rank(rank):
    x = np.zeros((2, *(8,) * rank, 6), "float32")
    shape = {
        "convolution": layers.convolution(rank, 4, 3, strides=2, seed=0, name="a")(x).shape,
        "transposed": layers.transposed_convolution(rank, 4, 2, seed=0, name="b")(x).shape,
        "logits": layers.logits_convolution(rank, 3, seed=0, name="c")(x).shape,
        "max": layers.max_pool(rank, 2, name="d")(x).shape,
        "avg": layers.average_pool(rank, 4, name="e")(x).shape,
        "up": layers.up_sampling(rank, 2, name="f")(x).shape,
        "global": layers.global_pool(rank, "avg", name="g")(x).shape,
    }
    assert shape == {
        "convolution": (2, *(4,) * rank, 4),
        "transposed": (2, *(16,) * rank, 4),
        "logits": (2, *(8,) * rank, 3),
        "max": (2, *(4,) * rank, 6),
        "avg": (2, *(2,) * rank, 6),
        "up": (2, *(16,) * rank, 6),
        "global": (2, 6),
    }


def test_axes_can_differ():
    x = np.zeros((1, 8, 8, 4, 1), "float32")
    assert layers.max_pool(3, (2, 2, 1), name="a")(x).shape == (1, 4, 4, 4, 1)
    assert layers.transposed_convolution(3, 2, (2, 2, 1), seed=0, name="b")(x).shape == (1, 16, 16, 4, 2)


def test_pooling_and_up_sampling_values():
    x = np.arange(4.0, dtype="float32").reshape(1, 2, 2, 1)
    assert layers.max_pool(2, 2, name="a")(x).numpy().item() == 3
    assert layers.average_pool(2, 2, name="b")(x).numpy().item() == 1.5
    assert layers.global_pool(2, "max", name="c")(x).numpy().item() == 3
    enlarged = layers.up_sampling(2, 2, name="d")(x).numpy()[0, ..., 0]
    np.testing.assert_array_equal(enlarged, np.kron(x[0, ..., 0], np.ones((2, 2))))


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (4, 4), (7, 7), (11, 1), (20, 5), (1, 1)])
def test_group_normalization_has_the_largest_divisor_up_to_eight(channels, groups):
    assert layers.normalization("group", channels, name="norm").groups == groups


def test_group_normalization_does_not_depend_on_the_batch():
    x = np.random.default_rng(0).normal(3, 2, (4, 6, 6, 8)).astype("float32")
    layer = layers.normalization("group", 8, name="norm")
    np.testing.assert_allclose(layer(x, training=True)[:1], layer(x[:1], training=False), atol=1e-5)


def test_logits_are_small_and_float32_under_mixed_precision():
    x = np.ones((2, 256), "float32")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = layers.logits_dense(10, seed=0, name="logits")
        assert layer(x).dtype == "float32"
        assert layers.logits_convolution(2, 3, seed=0, name="conv")(np.ones((1, 4, 4, 2), "float32")).dtype == "float32"
        assert layers.dense(4, seed=0, name="hidden")(x).dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(policy)
    assert 0.008 < layer.kernel.numpy().std() < 0.012


def test_dropout_draws_from_its_seed():
    x = np.ones((1, 1000), "float32")
    masks = [
        layers.dropout(0.5, seed=seed, name=name)(x, training=True).numpy()
        for seed, name in ((0, "a"), (0, "a"), (0, "b"), (1, "a"))
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 400 < np.count_nonzero(masks[0]) < 600
    assert all((masks[0] != other).mean() > 0.3 for other in masks[2:])
