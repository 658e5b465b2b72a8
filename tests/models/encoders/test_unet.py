"""The U-Net encoder."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.encoders import pyramid_outputs
from self_supervised_3d_tasks.models.encoders.unet import PRESETS, check_input_shape, unet

TINY = {"enc_filters": 2, "num_layers": 2}
# TensorFlow's arrays under numpy 2, whenever Keras saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_parameters_of_the_predecessors_3d_network():
    encoder = unet((128, 128, 128, 1), enc_filters=16, unet_preset="upstream")
    assert encoder.count_params() == 3_537_424
    assert encoder.output_shape == (None, 4, 4, 4, 256)
    rotation = keras.Model(encoder.input, heads.big_fully(encoder.output, 10, normalization="batch", seed=0))
    assert rotation.count_params() == 39_214_618


def test_the_plain_network_lacks_the_predecessors_running_statistics_alone():
    """A mean and a variance of each of two convolutions with 16, 32, 64, 128 and 256 filters."""
    plain = unet((32, 32, 32, 1))
    assert plain.count_params() == 3_537_424 - 2 * 2 * (16 + 32 + 64 + 128 + 256)
    upstream = unet((32, 32, 32, 1), unet_preset="upstream")
    assert [weight.path for weight in plain.trainable_weights] == [weight.path for weight in upstream.trainable_weights]


def test_layer_order_of_a_level_is_the_predecessors():
    names = [layer.name for layer in unet((8, 8, 1), unet_preset="upstream", **TINY).layers]
    assert names[:8] == [
        "image",
        "level_0_conv_1",
        "level_0_norm_1",
        "level_0_dropout",
        "level_0_conv_2",
        "level_0_norm_2",
        "pyramid_0",
        "level_0_pool",
    ]
    assert names[-2:] == ["pyramid_2", "final_pool"]
    plain = [layer.name for layer in unet((8, 8, 1), **TINY).layers]
    assert plain == [name for name in names if not name.endswith("dropout")]


@pytest.mark.parametrize(
    ("preset", "kind", "rates"), [("plain", "group", []), ("upstream", "batch", [0.5] * 3), ("paper", "group", [])]
)
def test_what_a_preset_fixes_and_the_keys_change(preset, kind, rates):
    def found(**options):
        layers = unet((16, 16, 1), enc_filters=8, num_layers=2, unet_preset=preset, **options).layers
        norms = [layer for layer in layers if "norm" in layer.name]
        return norms, [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)]

    for normalization in (None, "group", "layer", "batch"):
        norms, dropouts = found(normalization=normalization)
        wanted = normalization or kind
        if wanted == "batch":
            momentum = {"upstream": 0.99}.get(preset, 0.9)
            assert {(type(norm), norm.momentum) for norm in norms} == {(keras.layers.BatchNormalization, momentum)}
        else:
            groups = {"group": {2, 4, 8}, "layer": {1}}[wanted]  # of 8, 16 and 32 filters
            assert {type(norm) for norm in norms} == {keras.layers.GroupNormalization}
            assert {norm.groups for norm in norms} == groups
        assert dropouts == rates
    assert found(dropout=0.25)[1] == [0.25] * 3
    assert found(dropout=0.0)[1] == []
    assert found(normalization="none")[0] == []


def test_the_paper_has_residual_blocks_of_32_to_512_filters():
    encoder = unet((32, 32, 32, 2), unet_preset="paper")
    assert [output.shape[-1] for output in pyramid_outputs(encoder)] == [32, 64, 128, 256, 512]
    assert sum(isinstance(layer, keras.layers.Add) for layer in encoder.layers) == 5
    conv = sum(
        27 * a * b + b + 27 * b * b + b + a * b + b
        for a, b in zip((2, 32, 64, 128, 256), (32, 64, 128, 256, 512), strict=True)
    )
    assert encoder.count_params() == conv + 3 * 2 * (32 + 64 + 128 + 256 + 512)  # scale and shift, also of the shortcut


def test_a_residual_block_without_change_of_channels_adds_its_input():
    encoder = unet((4, 4, 2), unet_preset="paper", enc_filters=2, num_layers=1, normalization="none", dropout=0.0)
    assert "level_0_shortcut_conv" not in [layer.name for layer in encoder.layers]
    encoder.get_layer("level_0_conv_2").set_weights([np.zeros((3, 3, 2, 2)), np.zeros(2)])
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype("float32")
    level_0 = keras.Model(encoder.input, pyramid_outputs(encoder)[0])
    np.testing.assert_allclose(level_0(x), np.maximum(x, 0), atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(16, 8, 3), (8, 16, 8, 1)])
@pytest.mark.parametrize(("pooling", "stride"), [("max", 8), ("avg", 8), ("none", 4)])
def test_any_rank(preset, shape, pooling, stride):
    encoder = unet(shape, unet_preset=preset, pooling=pooling, **TINY)
    assert encoder.name == "encoder"
    assert encoder.output_shape == (None, *(size // stride for size in shape[:-1]), 8)
    sizes = [output.shape[1] for output in pyramid_outputs(encoder)]
    assert sizes == [shape[0], shape[0] // 2, shape[0] // 4]
    assert np.isfinite(encoder(np.ones((2, *shape), "float32"), training=True)).all()


def test_dropout_changes_per_layer():
    encoder = unet((8, 8, 1), dropout=0.1, dropout_change_per_layer=0.2, **TINY)
    rates = [encoder.get_layer(f"level_{level}_dropout").rate for level in range(3)]
    assert rates == pytest.approx([0.1, 0.3, 0.5])
    without = unet((8, 8, 1), dropout=0.0, **TINY)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in without.layers)
    with pytest.raises(UserError, match="dropout_change_per_layer"):
        unet((8, 8, 1), dropout=0.5, dropout_change_per_layer=0.3, **TINY)
    with pytest.raises(UserError, match="dropout_change_per_layer"):
        unet((8, 8, 1), unet_preset="upstream", dropout_change_per_layer=0.3, **TINY)
    check_input_shape((8, 8, 1), num_layers=2, dropout_change_per_layer=0.3)  # from 0
    with pytest.raises(UserError, match="dropout_change_per_layer"):
        check_input_shape((8, 8, 1), num_layers=2, unet_preset="upstream", dropout_change_per_layer=0.3)


@pytest.mark.parametrize("preset", PRESETS)
def test_seeds_decide_the_weights(preset):
    def kernels(seed):
        encoder = unet((8, 8, 1), unet_preset=preset, seed=seed, **TINY)
        return {layer.name: layer.kernel.numpy() for layer in encoder.layers if hasattr(layer, "kernel")}

    first, again, other = kernels(0), kernels(0), kernels(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
    values = [kernel.ravel()[:4].tolist() for kernel in first.values()]
    assert len({tuple(value) for value in values}) == len(values)


def test_the_same_weights_at_another_size():
    small, large = unet((8, 8, 1), **TINY), unet((32, 16, 1), **TINY)
    for a, b in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_keras_own_random_state_is_left_alone():
    import random

    state = random.getstate()
    unet((8, 8, 1), **TINY)(np.ones((1, 8, 8, 1), "float32"), training=True)
    assert random.getstate() == state


@saves
@pytest.mark.parametrize("preset", PRESETS)
def test_a_saved_encoder_has_its_pyramid(tmp_path, preset):
    encoder = unet((8, 8, 8, 1), unet_preset=preset, **TINY)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)).astype("float32")
    before = keras.Model(encoder.input, pyramid_outputs(encoder))(x)
    after = keras.Model(loaded.input, pyramid_outputs(loaded))(x)
    assert len(after) == 3
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_pyramid_of_an_encoder_that_is_part_of_another_model():
    encoder = unet((8, 8, 1), **TINY)
    for _ in range(2):
        image = keras.Input((8, 8, 1))
        keras.Model(image, encoder(image))
    assert [output.shape[1] for output in pyramid_outputs(encoder)] == [8, 4, 2]


def test_a_model_without_pyramid_is_refused():
    image = keras.Input((8, 8, 1))
    with pytest.raises(ValueError, match="pyramid_0"):
        pyramid_outputs(keras.Model(image, keras.layers.ReLU()(image)))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((32, 32, 32, 1), {}),
        ((39, 39, 39, 1), {}),  # a jigsaw patch: floors are fine without a decoder
        ((16, 16, 1), {"pooling": "none"}),
        ((96, 64, 1), {"decoder": True}),
        ((48, 48, 48, 1), {"decoder": True, "num_layers": 3}),
        ((48, 48, 48, 1), {"decoder": True, "pooling": "none"}),
        ((None, None, 1), {"decoder": True}),
    ],
)
def test_shapes_that_work(shape, options):
    check_input_shape(shape, **options)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (48, 48, 48, 1),
            {"decoder": True},
            r"divides them by 32x32x32 \(5 poolings by 2\), which leaves a rest that a decoder cannot restore; "
            'use 32x32x32 or 64x64x64, or pooling="none", or num_layers=3',
        ),
        ((16, 64, 1), {"decoder": True}, "divides them by 32x32 .*; use 32x64, or pooling"),
        ((100, 100, 1), {"decoder": True}, "use 96x96 or 128x128, or num_layers=1$"),
        ((17, 17, 1), {"decoder": True}, "use 32x32$"),
        (
            (31, 40, 40, 1),
            {},
            r"divides them by 32x32x32 .* leaves none; use 32x40x40 \(larger data_dim or patches\), "
            "or pooling=.none., or num_layers=3",
        ),
        ((1, 1, 1), {}, "divides them by 32x32 .*; use 32x32"),
    ],
)
def test_shapes_that_do_not_work_come_with_ones_that_do(shape, options, message):
    with pytest.raises(UserError, match=message):
        check_input_shape(shape, **options)
    if "decoder" not in options:
        with pytest.raises(UserError, match=message):
            unet(shape, enc_filters=1)


def test_reading_the_signature_and_checking_shapes_load_no_keras():
    code = """
import sys
from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.scores import logged
from self_supervised_3d_tasks.models import heads
assert heads.HEADS["softmax"] is heads.softmax
assert "num_layers" in registry.options(registry.encoder("unet"))
assert "dropout" in registry.options(registry.decoder("unet"))
registry.encoder_check("unet")((32, 32, 1), decoder=True)
losses.get("dice_crossentropy", class_weights=[1, 2])
logged.find("segmentation", ["accuracy"], ["0", "1"])
assert "tensorflow" not in sys.modules and "keras.src" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
