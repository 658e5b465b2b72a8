"""VGG in any rank."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks import transfer
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.decoders.unet import unet
from self_supervised_3d_tasks.models.encoders import pyramid_outputs

vgg11, check_vgg11 = registry.encoder("vgg11"), registry.encoder_check("vgg11")
TINY = {"width_multiplier": 1 / 32}
CHANNELS = (64, 128, 256, 256, 512, 512, 512, 512)
# TensorFlow's arrays under numpy 2, whenever Keras saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def pools(encoder) -> dict[str, tuple[int, ...]]:
    """By pool, its factors."""
    return {layer.name.removesuffix("_pool"): layer.pool_size for layer in encoder.layers if "pool" in layer.name}


def sizes(encoder) -> list[tuple[int, ...]]:
    return [output.shape[1:-1] for output in pyramid_outputs(encoder)]


def test_parameters_are_those_of_the_paper():
    """torchvision's vgg11_bn has 9,225,984 before its dense layers, 2,752 of them biases that have no effect."""
    encoder = vgg11((32, 32, 3))
    assert sum(np.prod(weight.shape) for weight in encoder.trainable_weights) == 9_225_984 - 2_752
    assert encoder.output_shape == (None, 1, 1, 512)


@pytest.mark.parametrize(("shape", "multiplier"), [((8, 8, 8, 2), 1.0), ((8, 8, 2), 0.25), ((8, 8, 8, 2), 1 / 64)])
def test_parameters_follow_from_the_widths(shape, multiplier):
    channels = [shape[-1], *(int(width * multiplier) for width in CHANNELS)]
    kernels = sum(3 ** (len(shape) - 1) * before * after for before, after in zip(channels, channels[1:], strict=False))
    encoder = vgg11(shape, width_multiplier=multiplier)
    assert encoder.count_params() == kernels + 2 * sum(channels[1:])
    if multiplier < 1:
        with_statistics = vgg11(shape, width_multiplier=multiplier, normalization="batch")
        assert with_statistics.count_params() == kernels + 4 * sum(channels[1:])
        plain = vgg11(shape, width_multiplier=multiplier, normalization="none")
        assert plain.count_params() == kernels + sum(channels[1:])  # a bias each


def test_a_width_is_never_below_one():
    assert vgg11((8, 8, 1), width_multiplier=1e-6).output_shape == (None, 1, 1, 1)


def test_layer_order():
    names = [layer.name for layer in vgg11((32, 32, 1), **TINY).layers]
    block_3 = [f"block_3_{index}_{kind}" for index in (1, 2) for kind in ("conv", "norm", "relu")]
    assert names[:6] == ["image", "block_1_1_conv", "block_1_1_norm", "block_1_1_relu", "pyramid_0", "block_1_pool"]
    assert names[11:19] == [*block_3, "pyramid_2", "block_3_pool"]
    assert names[-2:] == ["pyramid_4", "final_pool"]


def test_normalizations_have_pytorchs_constants():
    def norms(**options):
        return [layer for layer in vgg11((8, 8, 1), **TINY, **options).layers if "norm" in layer.name]

    batch, groups = norms(normalization="batch"), norms()
    assert {(type(layer), layer.momentum, layer.epsilon) for layer in batch} == {
        (keras.layers.BatchNormalization, 0.9, 1e-5)
    }
    assert {(type(layer), layer.epsilon) for layer in groups} == {(keras.layers.GroupNormalization, 1e-5)}
    assert [layer.groups for layer in groups] == [1, 1, 2, 2, 4, 4, 4, 4]  # of 2, 4, 8, 8 and four times 16 channels
    assert len(batch) == len(groups) == 8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 32), {block: (2, 2) for block in ("block_1", "block_2", "block_3", "block_4", "final")}),
        ((12, 12, 12), {block: (2, 2, 2) for block in ("block_1", "block_2", "block_3")}),
        (
            (64, 64, 5),
            {
                **{block: (2, 2, 1) for block in ("block_1", "block_2", "block_3")},
                **{block: (2, 2, 2) for block in ("block_4", "final")},
            },
        ),
        # The longer axis goes on behind the others, so that these see the scale that they see in a cube.
        ((12, 12, 24), {**{block: (2, 2, 2) for block in ("block_1", "block_2", "block_3")}, "block_4": (1, 1, 2)}),
        ((9, 4, 1), {"block_1": (2, 1, 1), "block_2": (2, 2, 1), "block_3": (2, 2, 1)}),
        ((1, 1), {}),
    ],
)
def test_thin_axes_wait_and_small_images_leave_out_the_last_pools(shape, expected):
    assert pools(vgg11((*shape, 1), **TINY)) == expected


def test_the_pyramid_has_one_level_for_each_size():
    assert sizes(vgg11((32, 64, 1), **TINY)) == [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]
    small = vgg11((12, 12, 12, 1), **TINY)
    assert sizes(small) == [(12, 12, 12), (6, 6, 6), (3, 3, 3), (1, 1, 1)]
    assert pyramid_outputs(small)[-1] is small.output  # the last block's, for block 4 has the same size
    assert [output.shape[-1] for output in pyramid_outputs(small)] == [2, 4, 8, 16]


@pytest.mark.parametrize(("pooling", "reduce"), [("max", np.max), ("avg", np.mean), ("none", None)])
def test_the_fifth_pool(pooling, reduce):
    x = np.random.default_rng(0).normal(size=(2, 64, 32, 1)).astype("float32")
    encoder = vgg11((64, 32, 1), pooling=pooling, **TINY)
    bottom = keras.Model(encoder.input, pyramid_outputs(encoder)[-1])(x).numpy()
    expected = bottom if reduce is None else reduce(bottom.reshape(2, 2, 2, 1, 2, 16), axis=(2, 4))
    np.testing.assert_allclose(encoder(x), expected, atol=1e-6)


def test_convolutions_that_copy_leave_the_maximum_of_each_window():
    encoder = vgg11((32, 64, 1), normalization="none", width_multiplier=1 / 64)
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            kernel[:], bias[:] = 0, 0
            kernel[1, 1, 0, 0] = 1
            layer.set_weights([kernel, bias])
    x = np.random.default_rng(0).uniform(-1, 1, size=(1, 32, 64, 1)).astype("float32")
    expected = [x[0, :, :32].max(), x[0, :, 32:].max()]
    np.testing.assert_allclose(encoder(x).numpy()[0, 0, :, 0], expected, rtol=1e-6)


def test_a_schedule_of_ones_own():
    schedule = [[2, 2, 1], [1, 1, 1], [2, 2, 2], [1, 1, 1], [2, 1, 1]]
    encoder = vgg11((16, 8, 4, 1), pool_schedule=schedule, **TINY)
    assert pools(encoder) == {"block_1": (2, 2, 1), "block_3": (2, 2, 2), "final": (2, 1, 1)}
    assert sizes(encoder) == [(16, 8, 4), (8, 4, 4), (4, 2, 2)]
    assert encoder.output_shape == (None, 2, 2, 2, 16)
    assert unet(encoder, num_classes=2).output_shape == (None, 16, 8, 4, 2)
    without = vgg11((16, 8, 4, 1), pool_schedule=schedule, pooling="none", **TINY)
    assert without.output_shape == (None, 4, 2, 2, 16)


@pytest.mark.parametrize("shape", [(32, 32, 2), (32, 32, 32, 1), (32, 32, 4, 1), (8, 8, 8, 1), (16, 4, 2, 1)])
@pytest.mark.parametrize("pooling", ["max", "none"])
def test_under_the_decoder_and_a_head(shape, pooling):
    check_vgg11(shape, pooling=pooling, decoder=True)
    encoder = vgg11(shape, pooling=pooling, **TINY)
    x = np.ones((1, *shape), "float32")
    logits = unet(encoder, num_classes=3)(x)
    assert logits.shape == (1, *shape[:-1], 3)
    classes = heads.classifier(encoder, heads.softmax, 5)(x)
    assert classes.shape == (1, 5)
    assert np.isfinite(logits).all() and np.isfinite(classes).all()


def test_seeds_and_names_decide_the_weights_at_any_size():
    def weights(*shape, seed, **options):
        return {weight.path: weight.numpy() for weight in vgg11(shape, seed=seed, **TINY, **options).weights}

    first, other = weights(32, 32, 32, 1, seed=3), weights(32, 32, 32, 1, seed=4)
    for again in (weights(9, 64, 4, 1, seed=3), weights(8, 8, 8, 1, seed=3, pooling="none")):
        assert list(again) == list(first)
        assert all(np.array_equal(first[name], again[name]) for name in first)
    kernels = [name for name in first if "kernel" in name]
    assert len(kernels) == 8
    assert not any(np.array_equal(first[name], other[name]) for name in kernels)


@saves
def test_pretrained_on_cubes_for_a_thin_volume(tmp_path):
    pretrained = vgg11((12, 12, 12, 1), seed=1, **TINY)
    save_model(pretrained, tmp_path / "encoder.keras")
    target = vgg11((64, 64, 4, 1), seed=2, **TINY)
    report = transfer.load_encoder(target, tmp_path / "encoder.keras")
    assert len(report.matched) == report.total == 8 * 3  # kernel, scale and shift
    for one, other in zip(pretrained.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def suggestions(message: str) -> list[tuple[int, ...]]:
    """The sizes after "use", up to the settings."""
    offered = message.split("; use ")[1].split(",")[0].split(" (")[0]
    return [tuple(map(int, size.split("x"))) for size in offered.split(" or ")]


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_every_size_that_is_refused_comes_with_sizes_that_work(pooling):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        shape = tuple(int(size) for size in rng.integers(1, 100, size=rng.integers(2, 4)))
        check_vgg11((*shape, 1), pooling=pooling)  # alone, every size works
        try:
            check_vgg11((*shape, 1), pooling=pooling, decoder=True)
        except UserError as error:
            refused += 1
            for size in suggestions(str(error)):
                check_vgg11((*size, 1), pooling=pooling, decoder=True)
    assert refused > 100


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (48, 48, 48, 1),
            {"decoder": True},
            "receives 48x48x48 voxels and divides them by 32x32x32 .pools., which leaves a rest .*; use 32x32x32 or "
            '64x64x64, or pooling="none", or a pool_schedule that halves the axes at most 4x4x4 times$',
        ),
        ((33, 35, 1), {"decoder": True}, "use 32x32 or 64x64$"),
        (
            (64, 64, 12, 1),
            {"decoder": True, "pool_schedule": [[2, 2, 2]] * 5},
            "divides them by 32x32x32 .*; use 64x64x32$",
        ),
        (
            (64, 64, 16, 1),
            {"pool_schedule": [[2, 2, 2]] * 5},
            r"leaves none; use 64x64x32 \(larger data_dim or patches\), or pooling=.none., or no pool_schedule$",
        ),
        ((8, 8, 8, 1), {"pool_schedule": [[2, 2, 2]] * 3}, "^pool_schedule: expected 5 lists of 3 factors, each 1 or"),
        ((8, 8, 8, 1), {"pool_schedule": [[2, 2]] * 5}, "^pool_schedule: expected 5 lists of 3 factors, each 1 or 2"),
        ((8, 8, 1), {"pool_schedule": [[3, 2]] * 5}, "^pool_schedule: expected 5 lists of 2 factors, each 1 or 2"),
    ],
)
def test_what_cannot_work_comes_with_what_does(shape, options, message):
    with pytest.raises(UserError, match=message):
        check_vgg11(shape, **options)
    if "decoder" not in options:
        with pytest.raises(UserError, match=message):
            vgg11(shape, **options, **TINY)


def test_sizes_that_are_not_known_are_pooled_five_times():
    check_vgg11((None, 32, 1), decoder=True)
    with pytest.raises(UserError, match="receives 33 voxels"):
        check_vgg11((None, 33, 1), decoder=True)
    assert len(pools(vgg11((None, None, 1), **TINY))) == 5


def test_checking_loads_no_keras():
    code = """
import sys
from self_supervised_3d_tasks.experiment import registry
keys = ["width_multiplier", "pool_schedule", "pooling", "normalization"]
assert list(registry.options(registry.encoder("vgg11"))) == keys
registry.encoder_check("vgg11")((32, 32, 4, 1), decoder=True)
assert "tensorflow" not in sys.modules and "keras.src" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
