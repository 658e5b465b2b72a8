"""Layers by rank."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.shapes import as_tuple


@pytest.mark.parametrize(
    ("value", "rank", "expected"),
    [(2, 3, (2, 2, 2)), ([1, 2], 2, (1, 2)), (np.int64(3), 1, (3,)), ((4, 4, 1), 3, (4, 4, 1))],
)
def test_as_tuple_gives_one_integer_per_axis(value, rank, expected):
    assert as_tuple(value, rank, "strides") == expected


@pytest.mark.parametrize("value", [0, -1, (2, 2), (2, 2, 2, 2), (1, 2, 0), (1.0, 2, 2)])
def test_as_tuple_names_the_argument_that_is_wrong(value):
    with pytest.raises(UserError, match="strides: expected one positive integer or 3"):
        as_tuple(value, 3, "strides")


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


def test_a_dilated_convolution_sees_voxels_apart():
    x = np.zeros((1, 9, 9, 9, 1), "float32")
    x[0, 4, 4, 4] = 1
    layer = layers.convolution(3, 1, 3, dilation=(1, 2, 4), use_bias=False, seed=0, name="conv")
    seen = np.argwhere(layer(x).numpy()[0, ..., 0])
    assert [sorted(set(axis.tolist())) for axis in seen.T] == [[3, 4, 5], [2, 4, 6], [0, 4, 8]]
    assert len(layer.weights) == 1


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_an_overlapping_pool_keeps_half_of_the_voxels_rounded_up(length):
    x = np.random.default_rng(0).normal(size=(1, length, 4, 1)).astype("float32")
    pooled = layers.overlapping_max_pool(2, 3, (2, 1), name="pool")(x).numpy()
    assert pooled.shape == (1, -(-length // 2), 4, 1)
    start = 0 if length % 2 == 0 else -1  # "same" padding: one voxel on each side of odd lengths
    windows = [range(max(0, 2 * i + start), min(length, 2 * i + start + 3)) for i in range(-(-length // 2))]
    rows = np.stack([x[:, list(window)].max(axis=1) for window in windows], axis=1)
    expected = np.stack([rows[:, :, max(0, j - 1) : j + 2].max(axis=2) for j in range(4)], axis=2)
    np.testing.assert_array_equal(pooled, expected)


def torch_bins(x: np.ndarray, bins: tuple[int, ...]) -> np.ndarray:
    """Adaptive average pooling voxel by voxel, as PyTorch's documentation defines it."""
    rank = x.ndim - 2
    pooled = np.zeros((len(x), *bins, x.shape[-1]))
    for place in np.ndindex(*bins):
        box = [
            slice(
                int(np.floor(place[axis] * x.shape[axis + 1] / bins[axis])),
                int(np.ceil((place[axis] + 1) * x.shape[axis + 1] / bins[axis])),
            )
            for axis in range(rank)
        ]
        pooled[:, *place] = x[:, *box].mean(axis=tuple(range(1, rank + 1)))
    return pooled


def test_adaptive_pooling_has_the_bins_of_pytorch():
    rng = np.random.default_rng(0)
    for draw in range(40):
        rank = 2 + draw % 2
        shape, bins = rng.integers(1, 9, size=rank), tuple(rng.integers(1, 6, size=rank).tolist())
        x = rng.normal(size=(2, *shape, 3)).astype("float32")
        pooled = layers.adaptive_average_pool(x, bins, name="pool")
        assert pooled.shape == (2, *bins, 3)
        np.testing.assert_allclose(pooled, torch_bins(x, bins), atol=1e-5)


def test_adaptive_pooling_by_hand():
    """5 voxels in 2 bins overlap in the middle one; 2 voxels in 3 bins are [0], [0, 1], [1]."""
    x = np.arange(10.0, dtype="float32").reshape(1, 5, 2, 1)
    pooled = layers.adaptive_average_pool(x, (2, 3), name="pool").numpy()[0, ..., 0]
    np.testing.assert_allclose(pooled, [[2, 2.5, 3], [6, 6.5, 7]])


def test_adaptive_pooling_has_as_few_layers_as_it_can():
    def classes(size, bins):
        x = keras.Input((*size, 2))
        model = keras.Model(x, layers.adaptive_average_pool(x, bins, name="pool"))
        assert model.output_shape == (None, *as_tuple(bins, len(size), "bins"), 2)
        return [type(layer).__name__ for layer in model.layers[1:]]

    assert classes((7, None, 5), 1) == ["GlobalAveragePooling3D"]
    assert classes((8, 6), 2) == ["AveragePooling2D"]
    assert classes((2, 2, 2), 2) == []
    assert sorted(set(classes((8, 7, 6), 2))) == ["AveragePooling3D", "Concatenate", "Cropping3D"]
    with pytest.raises(ValueError, match="known size, received"):
        classes((8, None), 2)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_adaptive_pooling_needs_no_code_of_ours_to_load(tmp_path):
    image = keras.Input((5, 7, 4, 2))
    model = keras.Model(image, layers.adaptive_average_pool(image, (3, 2, 5), name="pool"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert all(type(layer).__module__.startswith("keras.") for layer in loaded.layers)
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 4, 2)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    np.testing.assert_allclose(loaded(x), torch_bins(x, (3, 2, 5)), atol=1e-5)


def test_pooling_and_up_sampling_values():
    x = np.arange(4.0, dtype="float32").reshape(1, 2, 2, 1)
    assert layers.max_pool(2, 2, name="a")(x).numpy().item() == 3
    assert layers.average_pool(2, 2, name="b")(x).numpy().item() == 1.5
    assert layers.global_pool(2, "max", name="c")(x).numpy().item() == 3
    enlarged = layers.up_sampling(2, 2, name="d")(x).numpy()[0, ..., 0]
    np.testing.assert_array_equal(enlarged, np.kron(x[0, ..., 0], np.ones((2, 2))))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (4, 1), (7, 1), (8, 2), (11, 1), (12, 3), (16, 4), (20, 5), (24, 6), (28, 7), (32, 8), (36, 6), (64, 8)]
    + [(512, 8)],
)
def test_groups_are_at_most_eight_and_of_at_least_four_channels(channels, groups):
    assert layers.normalization("group", channels, name="norm").groups == groups
    assert layers.normalization(None, channels, name="norm").groups == groups  # the default
    assert layers.normalization("layer", channels, name="norm").groups == 1


def test_constants_of_the_normalizations():
    """0.9, where Keras keeps 0.99 of the running statistics in a step; epsilon is Keras's."""
    default, given = (layers.normalization("batch", 4, name="norm", **options) for options in ({}, {"momentum": 0.99}))
    assert (default.momentum, default.epsilon) == (0.9, 1e-3)
    assert (given.momentum, given.epsilon) == (0.99, 1e-3)
    for kind in ("group", "layer", None):
        assert layers.normalization(kind, 4, name="norm").epsilon == 1e-3
    for kind in ("batch", "group", "layer"):
        assert layers.normalization(kind, 4, epsilon=1e-5, name="norm").epsilon == 1e-5


@pytest.mark.parametrize(("kind", "groups"), [("group", 2), ("layer", 1)])
@pytest.mark.parametrize("shape", [(4, 6, 6, 8), (4, 3, 2, 5, 8), (4, 8)])
def test_group_and_layer_normalization_are_of_each_scan_by_itself(kind, groups, shape):
    x = np.random.default_rng(0).normal(3, 2, shape).astype("float32")
    layer = layers.normalization(kind, 8, name="norm")
    parts = x.reshape(4, -1, groups, 8 // groups)
    mean, variance = (reduce(parts, axis=(1, 3), keepdims=True) for reduce in (np.mean, np.var))
    expected = ((parts - mean) / np.sqrt(variance + 1e-3)).reshape(shape)
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-5)
    np.testing.assert_allclose(layer(x[:1], training=False), expected[:1], atol=1e-5)


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
