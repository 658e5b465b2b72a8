"""The encoders of keras.applications. Those that take long to build are marked slow."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks import transfer
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.encoders import keras_applications
from self_supervised_3d_tasks.models.encoders.keras_applications import (
    ARCHITECTURES,
    build,
    check_input_shape,
    smallest_edge,
)

# Without top and for three channels, as Keras's documentation and the papers' code have them.
PARAMETERS = {
    "densenet121": 7_037_504,
    "mobilenet": 3_228_864,
    "inceptionresnetv2": 54_336_736,
    "inceptionv3": 21_802_784,
    "resnet101": 42_658_176,
    "resnet101v2": 42_626_560,
    "resnet152": 58_370_944,
    "resnet50": 23_587_712,
    "resnet50v2": 23_564_800,
}
FAST = ("densenet121", "mobilenet")
every_architecture = pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PARAMETERS]
)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def densenet():
    return build("densenet121", (32, 32, 1), seed=3)


@pytest.fixture(scope="module")
def mobilenet():
    """As Keras makes it, with statistics as after training."""
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.uniform(0, 0.1, weight.shape) for weight in model.get_weights()])
    return model


@every_architecture
def test_parameters_of_every_architecture(name):
    smallest = smallest_edge(name)
    encoder = build(name, (smallest, smallest, 3), pooling="none")
    assert encoder.count_params() == PARAMETERS[name]
    assert encoder.name == "encoder"
    assert encoder.output_shape == (None, 1, 1, encoder.output_shape[-1])
    # Inception's layers are numbered by Keras over the whole process, which the names must not show.
    numbers = [int(layer.name[7:]) for layer in encoder.layers if re.fullmatch(r"conv2d_\d+", layer.name)]
    assert numbers == list(range(1, len(numbers) + 1))


@every_architecture
def test_batch_normalizations_keep_nine_tenths_of_their_running_statistics(name):
    """Keras's own networks keep 0.99; nothing else about the layers changes."""
    smallest = smallest_edge(name)
    encoder = build(name, (smallest, smallest, 3), pooling="none")
    norms = [layer for layer in encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.9}
    function = getattr(keras.applications, ARCHITECTURES[name])
    template = function(include_top=False, weights=None, input_shape=(smallest, smallest, 3))
    theirs = [layer for layer in template.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in theirs} == {0.99}
    assert [(norm.epsilon, norm.scale) for norm in norms] == [(norm.epsilon, norm.scale) for norm in theirs]


def test_every_architecture_is_tested():
    assert PARAMETERS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_smallest_image_is_keras_own(name):
    smallest = smallest_edge(name)
    function = getattr(keras.applications, ARCHITECTURES[name])
    with pytest.raises(ValueError, match=f"must be at least {smallest}x{smallest}"):
        function(include_top=False, weights=None, input_shape=(smallest, smallest - 1, 3))
    with pytest.raises(UserError, match=f"each axis must be at least {smallest}; use a larger data_dim"):
        check_input_shape(name, (smallest, smallest - 1, 3))
    check_input_shape(name, (smallest, smallest, 3))


def test_parameters_of_the_predecessors_2d_rotation():
    vector = keras.Input((1024,))
    head = keras.Model(vector, heads.big_fully(vector, 4, normalization="batch", seed=0))
    assert PARAMETERS["densenet121"] + head.count_params() == 11_251_268


@pytest.mark.parametrize(("pooling", "reduce"), [("max", np.max), ("avg", np.mean)])
def test_pooling_is_global(pooling, reduce):
    x = images(2, 64, 32, 2)
    maps = build("mobilenet", (64, 32, 2), pooling="none")(x).numpy()
    assert maps.shape == (2, 2, 1, 1024)
    vectors = build("mobilenet", (64, 32, 2), pooling=pooling)(x)
    np.testing.assert_allclose(vectors, reduce(maps, axis=(1, 2)), atol=1e-6)


def test_seeds_decide_the_weights_at_any_size():
    def kernels(*shape, seed):
        weights = build("mobilenet", shape, seed=seed).weights
        return {weight.path: weight.numpy() for weight in weights if "kernel" in weight.path}

    first, again = kernels(32, 32, 1, seed=3), kernels(64, 96, 1, seed=3)
    other = kernels(32, 32, 1, seed=4)
    assert len(first) == 27  # thirteen depthwise, thirteen pointwise, and the first
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
    # Kernels of one shape, drawn from one seed, would be equal too.
    assert len({tuple(kernel.ravel()[:4]) for kernel in first.values()}) == len(first)


def test_no_random_state_is_moved():
    keras_applications._template.cache_clear()
    states = random.getstate(), np.random.get_state()[1].tolist()
    build("mobilenet", (32, 32, 1))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_seeds_reach_dropout_and_each_initializer():
    dropout = keras_applications._seeded_copy(keras.layers.Dropout(0.5, name="one"), name="two", seed=0)
    assert dropout.name == "two" and dropout.seed is not None
    layer = keras.layers.SeparableConv2D(4, 3, name="conv")
    copies = [keras_applications._seeded_copy(layer, name="conv", seed=seed) for seed in (0, 0, 1)]
    seeds = [(copy.depthwise_initializer.seed, copy.pointwise_initializer.seed) for copy in copies]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 4


def test_names_are_numbered_within_the_model():
    def names():
        image = x = keras.Input((8, 8, 1), name="image")
        for name in (None, "conv2d_7b", None, "named_1"):
            x = keras.layers.Conv2D(1, 1, name=name)(x)
        x = keras.layers.BatchNormalization()(x)
        return list(keras_applications._stable_names(keras.Model(image, x)).values())

    expected = ["image", "conv2d_1", "conv2d_7b", "conv2d_2", "named_1", "batch_normalization_1"]
    assert names() == names() == expected


def test_the_precision_is_that_of_the_moment():
    build("mobilenet", (32, 32, 1))  # what is kept of it was made in float32
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = build("mobilenet", (32, 32, 1))
    finally:
        keras.config.set_dtype_policy(policy)
    assert {layer.compute_dtype for layer in encoder.layers if layer.weights} == {"bfloat16"}


@pytest.mark.slow
def test_a_pretrained_densenet_at_another_size_and_with_more_channels(densenet, tmp_path):
    densenet.get_layer("bn").moving_mean.assign(images(1024))
    save_model(densenet, tmp_path / "encoder.keras")
    target = build("densenet121", (96, 32, 3), pooling="avg", seed=5)
    report = transfer.load_encoder(target, tmp_path / "encoder.keras")
    assert report.adapted == ["conv1_conv/kernel: input channels [0, 0, 0] rescaled"]
    assert len(report.matched) == 603 and not report.left and not report.unused
    (kernel, *rest), (received, *others) = densenet.get_weights(), target.get_weights()
    np.testing.assert_allclose(received, np.repeat(kernel, 3, axis=2) / 3, rtol=1e-6)
    assert_same(rest, others)


@pytest.mark.parametrize("file", ["weights.keras", "mobilenet.weights.h5", "mobilenet_notop.h5"])
def test_initial_weights_from_a_local_file(mobilenet, tmp_path, file):
    path = tmp_path / file
    mobilenet.save_weights(path) if file.endswith(".weights.h5") else mobilenet.save(path)
    encoder = build("mobilenet", (64, 32, 3), encoder_weights=str(path), seed=1)
    assert_same(mobilenet.get_weights(), encoder.get_weights())


@pytest.mark.parametrize("file", ["foreign.keras", "foreign.weights.h5", "foreign_notop.h5"])
def test_weights_of_another_architecture_do_not_fit(tmp_path, file):
    image = keras.Input((32, 32, 1))
    foreign = keras.Model(image, keras.layers.Conv2D(32, 3, use_bias=False, name="conv1")(image))
    path = tmp_path / file
    foreign.save_weights(path) if file.endswith(".weights.h5") else foreign.save(path)
    with pytest.raises(UserError, match=rf"encoder_weights: {path} does not fit: .* same encoder_architecture"):
        build("mobilenet", (32, 32, 1), encoder_weights=str(path))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_for_other_channels_do_not_fit(mobilenet, tmp_path, suffix):
    path = tmp_path / f"mobilenet{suffix}"
    mobilenet.save_weights(path) if suffix == ".weights.h5" else mobilenet.save(path)
    with pytest.raises(UserError, match=r"for 1 channels \(number_channels\)"):
        build("mobilenet", (32, 32, 1), encoder_weights=str(path))


def test_a_damaged_weight_file_is_named(tmp_path):
    for name in ("bad.keras", "bad.weights.h5", "bad_notop.h5"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(UserError, match=f"encoder_weights: .*{name} does not fit"):
            build("mobilenet", (32, 32, 1), encoder_weights=str(tmp_path / name))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64, 64, 64, 1), {}, "'densenet121' is for 2D images, but the data are 3D; use \"unet\""),
        (
            (64, 64, 1),
            {"decoder": True},
            'no maps that a decoder.*could enlarge to the image; use "unet", "resnet18" or "vgg11"',
        ),
        ((31, 64, 1), {}, "receives 31x64 pixels, but each axis must be at least 32; use a larger data_dim"),
    ],
)
def test_what_cannot_work_comes_with_what_does(shape, options, message):
    with pytest.raises(UserError, match=message):
        check_input_shape("densenet121", shape, **options)
    if "decoder" not in options:
        with pytest.raises(UserError, match=message):
            build("densenet121", shape, **options)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("imagenet", "ends in .keras, .weights.h5 or _notop.h5.*nothing is download"),
        ("missing.weights.h5", "missing.weights.h5: no such file"),
    ],
)
def test_a_weight_file_that_is_not_there(file, message):
    with pytest.raises(UserError, match=message):
        keras_applications.check_weight_file(file)
    with pytest.raises(UserError, match=message):
        build("mobilenet", (32, 32, 1), encoder_weights=file)


def test_sizes_that_are_not_known_pass():
    check_input_shape("inceptionv3", (None, 75, 7))


def test_checking_loads_no_keras():
    code = """
import sys
from self_supervised_3d_tasks.experiment import registry
assert list(registry.options(registry.encoder("densenet121"))) == ["pooling", "encoder_weights"]
registry.encoder_check("densenet121")((32, 32, 1), decoder=False)
assert "tensorflow" not in sys.modules and "keras.src" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
