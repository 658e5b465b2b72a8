"""The U-Net decoder."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.decoders.unet import levels_above, unet, way_up
from self_supervised_3d_tasks.models.encoders import unet as encoders

TINY = {"enc_filters": 2, "num_layers": 2}
# TensorFlow's arrays under numpy 2, whenever Keras saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def strided_encoder(shape: tuple[int, ...]) -> keras.Model:
    """An encoder of other strides: a stem of 2 without a map, then 1, then (4, 2)."""
    x = image = keras.Input(shape)
    x = layers.convolution(2, 4, 3, strides=2, seed=0, name="stem")(x)
    x = keras.layers.Identity(name="pyramid_0")(x)
    x = layers.convolution(2, 6, 3, strides=(4, 2), seed=0, name="deep")(x)
    x = keras.layers.Identity(name="pyramid_1")(x)
    return keras.Model(image, x, name="encoder")


def test_parameters_of_the_predecessors_3d_network():
    encoder = encoders.unet((128, 128, 128, 1), enc_filters=16)
    model = unet(encoder, num_classes=3, unet_preset="upstream")
    assert model.count_params() - encoder.count_params() == 2_113_411
    assert model.output_shape == (None, 128, 128, 128, 3)
    # By default it lacks the running mean and variance of two convolutions of 128, 64, 32 and 16 filters.
    assert unet(encoder, num_classes=3).count_params() - encoder.count_params() == 2_113_411 - 4 * (128 + 64 + 32 + 16)


@pytest.mark.parametrize(
    ("preset", "options", "momentum", "rates"),
    [
        ("plain", {}, None, []),
        ("paper", {}, None, []),
        ("upstream", {}, 0.99, [0.5] * 2),
        ("plain", {"normalization": "batch", "dropout": 0.25}, 0.9, [0.25] * 2),
        ("upstream", {"normalization": "group", "dropout": 0.0}, None, []),
    ],
)
def test_the_preset_gives_the_decoders_normalization_and_dropout_too(preset, options, momentum, rates):
    """None as momentum: the normalization is of groups, here of 16 and 8 channels."""
    model = unet(encoders.unet((8, 8, 1), enc_filters=8, num_layers=2), num_classes=2, unet_preset=preset, **options)
    added = [layer for layer in model.layers if layer.name.startswith("decoder_")]
    norms = [layer for layer in added if "norm" in layer.name]
    if momentum is None:
        assert [(type(layer), layer.groups) for layer in norms] == [
            (keras.layers.GroupNormalization, groups) for groups in (4, 4, 2, 2)
        ]
    else:
        assert [(type(layer), layer.momentum) for layer in norms] == [(keras.layers.BatchNormalization, momentum)] * 4
    assert [layer.rate for layer in added if isinstance(layer, keras.layers.Dropout)] == rates


@pytest.mark.parametrize("preset", encoders.PRESETS)
@pytest.mark.parametrize("shape", [(16, 8, 3), (8, 16, 8, 1)])
@pytest.mark.parametrize("pooling", ["max", "none"])
def test_any_rank(preset, shape, pooling):
    encoder = encoders.unet(shape, unet_preset=preset, pooling=pooling, **TINY)
    model = unet(encoder, num_classes=4)
    assert model.output_shape == (None, *shape[:-1], 4)
    unpools = [layer for layer in model.layers if layer.name == "decoder_unpool"]
    assert len(unpools) == (pooling == "max")
    assert np.isfinite(model(np.ones((2, *shape), "float32"), training=True)).all()


def test_logits_have_no_softmax():
    model = unet(encoders.unet((8, 8, 1), **TINY), num_classes=2)
    model.get_layer("decoder_logits").set_weights([np.zeros((1, 1, 2, 2)), np.array([5.0, -7.0])])
    np.testing.assert_allclose(model(np.ones((1, 8, 8, 1), "float32"))[0, 0, 0], [5, -7])


def test_skips_carry_detail_to_the_output():
    """With the bottom silenced, the output still depends on single voxels."""
    encoder = encoders.unet((16, 16, 1), enc_filters=8, num_layers=2)
    model = unet(encoder, num_classes=2)
    up = model.get_layer("decoder_level_1_up")
    up.set_weights([np.zeros_like(weight) for weight in up.get_weights()])
    x = np.zeros((2, 16, 16, 1), "float32")
    x[1, 3, 3] = 10
    first, second = model(x).numpy()
    changed = np.abs(first - second).max(axis=-1) > 1e-6
    assert changed[3, 3]


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_without_skips_only_the_concatenations_and_their_weights_are_gone(pooling):
    encoder = encoders.unet((16, 8, 16, 1), pooling=pooling, **TINY)
    model, plain = (unet(encoder, num_classes=3, skips=skips, normalization="none") for skips in (True, False))
    names, left = ([layer.name for layer in network.layers] for network in (model, plain))
    assert set(names) - set(left) == {"decoder_level_0_concat", "decoder_level_1_concat"}
    assert not set(left) - set(names)
    assert plain.output_shape == model.output_shape
    widths = (2, 4)
    assert model.count_params() - plain.count_params() == sum(27 * width * width for width in widths)


def test_without_skips_detail_is_lost_beneath_a_silent_bottom():
    encoder = encoders.unet((16, 16, 1), enc_filters=8, num_layers=2)
    model = unet(encoder, num_classes=2, skips=False)
    up = model.get_layer("decoder_level_1_up")
    up.set_weights([np.zeros_like(weight) for weight in up.get_weights()])
    first, second = model(np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")).numpy()
    np.testing.assert_array_equal(first, second)


def test_without_skips_any_strides_lead_back_to_the_image():
    encoder = strided_encoder((32, 16, 1))
    model = unet(encoder, num_classes=3, skips=False)
    assert model.output_shape == (None, 32, 16, 3)
    assert levels_above(encoder) == [("decoder_level_0", (4, 2), 4), ("decoder_stem", (2, 2), 2)]


def test_an_encoder_of_other_strides():
    model = unet(strided_encoder((32, 16, 1)), num_classes=3)
    assert model.output_shape == (None, 32, 16, 3)
    assert model.get_layer("decoder_level_0_up").strides == (4, 2)
    assert model.get_layer("decoder_stem_up").strides == (2, 2)


def test_a_size_that_is_not_known_is_doubled():
    encoder = encoders.unet((None, None, 1), **TINY)
    model = unet(encoder, num_classes=3)
    for size in (8, 24):
        assert model(np.zeros((1, size, size, 1), "float32")).shape == (1, size, size, 3)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", ["unet", "vgg11", "resnet18"])
def test_levels_at_a_size_are_those_of_an_encoder_built_for_it(name, rank):
    build, options = registry.encoder(name), TINY if name == "unet" else {"width_multiplier": 1 / 32}
    known, unknown = (build((*[side] * rank, 1), **options) for side in (32, None))
    levels = levels_above(unknown, [32] * rank)
    assert levels == levels_above(known)
    factors = np.prod([level.factor for level in levels], axis=0)
    assert tuple(factors * known.output_shape[1:-1]) == (32,) * rank


def test_the_way_up_gives_a_map_per_level_with_weights():
    encoder = encoders.unet((None, None, None, 1), **TINY)
    levels = levels_above(encoder, (16, 8, 8))
    assert [level.channels for level in levels] == [None, 4, 2]
    bottom = keras.Input((2, 1, 1, 8))
    maps = way_up(bottom, levels, normalization="batch", dropout=0.0, seed=0)
    assert [x.shape[1:] for x in maps] == [(8, 4, 4, 4), (16, 8, 8, 2)]
    (unpooled,) = way_up(bottom, levels[:1], normalization="batch", dropout=0.0, seed=0)
    assert unpooled.shape[1:] == (4, 2, 2, 8)


def test_maps_that_do_not_meet_are_refused():
    with pytest.raises(UserError, match=r"cannot enlarge a map of size \(2, 3\) to \(5, 6\)"):
        levels_above(encoders.unet((None, None, 1), **TINY), (20, 24))
    with pytest.raises(UserError, match=r"cannot enlarge a map of size \(2, 3\) to \(5, 6\)"):
        unet(encoders.unet((20, 24, 1), **TINY), num_classes=2)


@saves
def test_a_loaded_encoder_can_be_completed_and_the_whole_saved(tmp_path):
    encoders.unet((8, 8, 1), pooling="none", **TINY).save(tmp_path / "encoder.keras")
    encoder = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    model = unet(encoder, num_classes=2)
    assert "decoder_unpool" not in [layer.name for layer in model.layers]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))


def test_seeds_decide_the_weights():
    def weights(seed):
        model = unet(encoders.unet((8, 8, 1), **TINY), num_classes=2, seed=seed)
        return {layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")}

    first, again, other = weights(0), weights(0), weights(1)
    decoder = [name for name in first if name.startswith("decoder_")]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in decoder)


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_logits_are_float32_under_mixed_precision(normalization):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = encoders.unet((8, 8, 1), normalization=normalization, **TINY)
        model = unet(encoder, num_classes=2, normalization=normalization)
        x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
        assert encoder(x).dtype == "bfloat16"
        logits = model(x, training=True)
    finally:
        keras.config.set_dtype_policy(policy)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()
