"""ResNet in any rank, strided and dilated."""

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

resnet18, check_resnet18 = registry.encoder("resnet18"), registry.encoder_check("resnet18")
TINY = {"width_multiplier": 1 / 32}
# TensorFlow's arrays under numpy 2, whenever Keras saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
both_strides = pytest.mark.parametrize("output_stride", [32, 8])


def sizes(encoder) -> list[tuple[int, ...]]:
    return [output.shape[1:-1] for output in pyramid_outputs(encoder)]


def convolutions(encoder) -> dict[str, keras.layers.Layer]:
    return {layer.name.removesuffix("_conv"): layer for layer in encoder.layers if layer.name.endswith("_conv")}


def kernel_weights(rank: int, channels: int, widths: tuple[int, ...]) -> int:
    """Count the weights of the convolutions: stem, shortcuts, and four of kernel 3 in each stage."""
    count = 7**rank * channels * widths[0]
    for before, width in zip((widths[0], *widths), widths, strict=False):
        count += 3**rank * (before + 3 * width) * width
    return count + sum(before * width for before, width in zip(widths, widths[1:], strict=False))


def test_parameters_are_those_of_the_paper():
    """torchvision's resnet18 has 11,689,512, of which 513,000 are its dense layer's."""
    encoder = resnet18((32, 32, 3))
    assert sum(np.prod(weight.shape) for weight in encoder.trainable_weights) == 11_689_512 - 513_000
    assert encoder.output_shape == (None, 1, 1, 512)


@pytest.mark.parametrize(
    ("shape", "multiplier", "output_stride"),
    [((8, 8, 8, 2), 1.0, 32), ((8, 8, 2), 0.25, 32), ((8, 8, 2), 0.25, 8), ((8, 8, 8, 1), 1 / 64, 8)],
)
def test_parameters_follow_from_the_widths(shape, multiplier, output_stride):
    widths = tuple(int(width * multiplier) for width in (64, 128, 256, 512))
    kernels = kernel_weights(len(shape) - 1, shape[-1], widths)
    normalized = 5 * widths[0] + 5 * sum(widths[1:])  # stem and four, or four and a shortcut
    options = {"width_multiplier": multiplier, "output_stride": output_stride}
    encoder = resnet18(shape, **options)
    assert encoder.count_params() == kernels + 2 * normalized
    if multiplier < 1:
        with_statistics = resnet18(shape, **options, normalization="batch")
        assert with_statistics.count_params() == kernels + 4 * normalized
        plain = resnet18(shape, **options, normalization="none")
        assert plain.count_params() == kernels + normalized  # a bias each


def test_the_formula_is_the_papers():
    assert kernel_weights(2, 3, (64, 128, 256, 512)) == 11_176_512 - 2 * 4800


@pytest.mark.parametrize(
    ("shape", "output_stride", "expected"),
    [
        ((64, 32), 32, [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]),
        ((64, 64, 32), 32, [(32, 32, 32), (16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]),
        ((32, 32, 4), 32, [(16, 16, 4), (8, 8, 2), (4, 4, 1), (2, 2, 1), (1, 1, 1)]),
        ((9, 12), 32, [(5, 6), (3, 3), (2, 2), (1, 1), (1, 1)]),
        ((64, 32), 8, [(32, 16), (16, 8), (8, 4)]),
        ((32, 32, 16), 8, [(16, 16, 8), (8, 8, 4), (4, 4, 2)]),
    ],
)
def test_the_pyramid(shape, output_stride, expected):
    encoder = resnet18((*shape, 1), output_stride=output_stride, **TINY)
    assert sizes(encoder) == expected
    assert pyramid_outputs(encoder)[-1] is encoder.output
    channels = [output.shape[-1] for output in pyramid_outputs(encoder)]
    assert channels == ([2, 2, 4, 8, 16] if output_stride == 32 else [2, 2, 16])


@both_strides
@pytest.mark.parametrize("rank", [2, 3])
def test_strides_and_dilations(rank, output_stride):
    layers = convolutions(resnet18((*[32] * rank, 1), output_stride=output_stride, **TINY))
    assert len(layers) == 20
    assert layers["stem"].strides == ((2, 2, 1) if (rank, output_stride) == (3, 32) else (2,) * rank)
    assert layers["stem"].kernel_size == (7,) * rank
    for name, layer in layers.items():
        if name == "stem":
            continue
        stage, starts = int(name[6]), name[14:] in ("1_first", "1_shortcut")
        halves = starts and (stage == 2 or (stage > 2 and output_stride == 32))
        dilated = output_stride == 8 and "shortcut" not in name
        # The first kernel of a stage has the dilation of the stage before.
        dilation = {3: 2, 4: 4}.get(stage, 1) // (2 if starts and stage > 2 else 1) if dilated else 1
        assert (name, layer.strides) == (name, (1 + halves,) * rank)
        assert (name, layer.dilation_rate) == (name, (dilation,) * rank)
    shortcuts = [name for name in layers if "shortcut" in name]
    assert shortcuts == [f"stage_{stage}_block_1_shortcut" for stage in (2, 3, 4)]


def test_normalizations_have_pytorchs_constants():
    def norms(**options):
        return [layer for layer in resnet18((8, 8, 1), **TINY, **options).layers if layer.name.endswith("_norm")]

    batch = norms(normalization="batch")
    assert len(batch) == 20
    assert {(type(layer), layer.momentum, layer.epsilon) for layer in batch} == {
        (keras.layers.BatchNormalization, 0.9, 1e-5)
    }
    groups = {(type(layer), layer.groups, layer.epsilon) for layer in norms()}
    assert groups == {(keras.layers.GroupNormalization, number, 1e-5) for number in (1, 2, 4)}  # of 2, 4, 8 and 16
    assert {layer.groups for layer in norms(normalization="layer")} == {1}


def test_blocks_whose_last_convolution_is_silent_hand_on_their_input():
    """Of stage 1 only the stem's pool is left: windows of 3 that begin at every other voxel."""
    encoder = resnet18((16, 16, 1), normalization="none", **TINY)
    for index in (1, 2):
        layer = encoder.get_layer(f"stage_1_block_{index}_second_conv")
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype("float32")
    stem, stage_1 = (output.numpy()[0] for output in keras.Model(encoder.input, pyramid_outputs(encoder)[:2])(x))
    expected = [[stem[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(0, 1)) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(stage_1, expected, atol=1e-6)
    assert (stem > 0).any()


@both_strides
@pytest.mark.parametrize("shape", [(32, 32, 2), (32, 32, 16, 1), (8, 8, 4, 1)])
def test_under_the_decoder_and_a_head(shape, output_stride):
    check_resnet18(shape, output_stride=output_stride, decoder=True)
    encoder = resnet18(shape, output_stride=output_stride, **TINY)
    x = np.ones((1, *shape), "float32")
    logits = unet(encoder, num_classes=3)(x)
    assert logits.shape == (1, *shape[:-1], 3)
    classes = heads.classifier(encoder, heads.softmax, 5)(x)
    assert classes.shape == (1, 5)
    assert np.isfinite(logits).all() and np.isfinite(classes).all()


@both_strides
def test_a_single_voxel_is_enough_for_the_encoder(output_stride):
    for rank in (2, 3):
        shape = (*[1] * rank, 1)
        check_resnet18(shape, output_stride=output_stride)
        encoder = resnet18(shape, output_stride=output_stride, **TINY)
        assert np.isfinite(encoder(np.ones((2, *shape), "float32"), training=True)).all()


def test_seeds_and_names_decide_the_weights_at_any_size():
    def weights(*shape, seed, output_stride=32):
        encoder = resnet18(shape, seed=seed, output_stride=output_stride, **TINY)
        return {weight.path: weight.numpy() for weight in encoder.weights}

    first, other = weights(16, 16, 16, 1, seed=3), weights(16, 16, 16, 1, seed=4)
    for again in (weights(5, 32, 1, 1, seed=3), weights(8, 8, 8, 1, seed=3, output_stride=8)):
        assert list(again) == list(first)
        assert all(np.array_equal(first[name], again[name]) for name in first)
    kernels = [name for name in first if "kernel" in name]
    assert len(kernels) == 20
    assert not any(np.array_equal(first[name], other[name]) for name in kernels)


@saves
def test_pretrained_with_strides_for_the_dilated_variant(tmp_path):
    """With one channel everywhere, where shapes alone would ask for other shortcuts."""
    multiplier = 1e-3
    pretrained = resnet18((16, 16, 16, 1), width_multiplier=multiplier, seed=1)
    save_model(pretrained, tmp_path / "encoder.keras")
    target = resnet18((32, 32, 16, 1), width_multiplier=multiplier, output_stride=8, seed=2)
    report = transfer.load_encoder(target, tmp_path / "encoder.keras")
    assert len(report.matched) == report.total == 20 * 3  # kernel, scale and shift
    for one, other in zip(pretrained.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@saves
def test_a_saved_dilated_encoder_gives_the_same_maps(tmp_path):
    encoder = resnet18((16, 16, 16, 1), output_stride=8, **TINY)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 16, 1)).astype("float32")
    before = keras.Model(encoder.input, pyramid_outputs(encoder))(x)
    after = keras.Model(loaded.input, pyramid_outputs(loaded))(x)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@both_strides
def test_a_check_that_passes_is_a_network_whose_maps_divide(output_stride):
    """Against the sizes themselves, rounded up at each halving; and what is suggested works."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        shape = tuple(int(size) for size in rng.integers(1, 100, size=rng.integers(2, 4)))
        halvings = [5 if output_stride == 32 else 3] * len(shape)
        if len(shape) == 3 and output_stride == 32:
            halvings[2] = 4
        even = True
        for size, count in zip(shape, halvings, strict=True):
            for _ in range(count):
                even = even and (size == 1 or size % 2 == 0)
                size = -(-size // 2)
        try:
            check_resnet18((*shape, 1), output_stride=output_stride, decoder=True)
            assert even
        except UserError as error:
            assert not even
            refused += 1
            for size in str(error).split("; use ")[1].split(",")[0].split(" or "):
                check_resnet18((*map(int, size.split("x")), 1), output_stride=output_stride, decoder=True)
    assert refused > 100


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (40, 40, 40, 1),
            {},
            r"receives 40x40x40 voxels and divides them by 32x32x16 \(output_stride=32\), which leaves a rest that a "
            "decoder cannot restore; use 32x32x32 or 64x64x48, or output_stride=8$",
        ),
        ((20, 24, 1), {"output_stride": 8}, "divides them by 8x8 .*; use 16x24 or 24x24$"),
        ((5, 64, 1), {}, "use 4x64 or 8x64$"),
        ((None, 64, 1), {}, "needs sizes that are known under a decoder"),
    ],
)
def test_sizes_that_do_not_work_under_a_decoder_come_with_ones_that_do(shape, options, message):
    with pytest.raises(UserError, match=message):
        check_resnet18(shape, **options, decoder=True)
    check_resnet18(shape, **options)


def test_checking_loads_no_keras():
    code = """
import sys
from self_supervised_3d_tasks.experiment import registry
keys = ["width_multiplier", "output_stride", "normalization"]
assert list(registry.options(registry.encoder("resnet18"))) == keys
registry.encoder_check("resnet18")((32, 32, 16, 1), decoder=True)
assert "tensorflow" not in sys.modules and "keras.src" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
