from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks import transfer
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.transfer import encoder as encoder_transfer


def make_encoder(channels, *, size=8, rank=2, filters=4, names=("one", "two"), seed=0, padded=False):
    """Two convolutions; where filters == channels their kernels look alike."""
    convolution = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[rank]
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((size,) * rank + (channels,))
    if padded:
        x = {2: keras.layers.ZeroPadding2D, 3: keras.layers.ZeroPadding3D}[rank](1, name="padding")(x)
    x = convolution(filters, 3, name=names[0], bias_initializer="normal")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = convolution(filters, 3, name=names[1], bias_initializer="normal")(x)
    return keras.Model(inputs, x, name="encoder")


def make_pretext(encoder):
    inputs = keras.Input(encoder.input_shape[1:])
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Flatten()(encoder(inputs))))


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def snapshot(model):
    return [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]


def assert_same(before, after):
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def saved(tmp_path):
    encoder = make_encoder(2)
    # Statistics as after training: with zeros and ones nothing would show that they were loaded.
    norm = encoder.get_layer("norm")
    norm.moving_mean.assign([0.1, -0.2, 0.3, 0.4])
    norm.moving_variance.assign([0.5, 1.5, 2.0, 0.7])
    save_model(encoder, tmp_path / "run" / "encoder.keras")
    return encoder, tmp_path / "run"


def test_run_folder_file_and_pretext_model_give_the_same_encoder(saved, tmp_path):
    encoder, run = saved
    save_model(make_pretext(encoder), tmp_path / "pretext.keras")
    for source in (run, str(run / "encoder.keras"), tmp_path / "pretext.keras"):
        target = make_encoder(2, size=12, seed=1)
        report = transfer.load_encoder(target, source)
        assert_same(snapshot(encoder), snapshot(target))
        assert len(report.matched) == report.total == 8
        assert not report.adapted and not report.left and not report.unused


@pytest.mark.parametrize("head", [heads.softmax, heads.simple_multiclass])
def test_a_finetuned_classifier_gives_its_encoder(saved, tmp_path, head):
    encoder, _ = saved
    save_model(heads.classifier(encoder, head, 3, seed=0), tmp_path / "finetuned.keras")
    target = make_encoder(2, size=12, seed=1)
    report = transfer.load_encoder(target, tmp_path / "finetuned.keras")
    assert_same(snapshot(encoder), snapshot(target))
    assert len(report.matched) == report.total and not report.unused


def test_statistics_and_names_are_in_the_report(saved):
    _, run = saved
    report = transfer.load_encoder(make_encoder(2), run)
    assert {"one/kernel", "norm/moving_mean", "norm/moving_variance"} <= set(report.matched)
    assert "8 of 8 tensors matched" in str(report) and str(run) in str(report)


@pytest.mark.parametrize(("rank", "padded"), [(2, False), (2, True), (3, False), (3, True)])
def test_duplicated_channels_give_the_old_activations(tmp_path, rank, padded):
    source = make_encoder(2, rank=rank, padded=padded)
    source.get_layer("norm").moving_mean.assign([0.1, -0.2, 0.3, 0.4])
    save_model(source, tmp_path / "encoder.keras")
    target = make_encoder(4, rank=rank, padded=padded, seed=1)
    report = transfer.load_encoder(target, tmp_path / "encoder.keras")
    assert len(report.adapted) == 1 and report.adapted[0].startswith("one/kernel") and not report.left
    x = image(3, *(8,) * rank, 2)
    np.testing.assert_allclose(target.predict_on_batch(x[..., [0, 0, 1, 1]]), source.predict_on_batch(x), atol=1e-5)


def test_unscaled_copies_double_the_activations(saved):
    encoder, run = saved
    target = make_encoder(4)
    transfer.load_encoder(target, run, rescale=False)

    def first_convolution(model, x):
        return keras.ops.convert_to_numpy(keras.ops.conv(x, model.get_layer("one").kernel))

    x = image(3, 8, 8, 2)
    np.testing.assert_allclose(
        first_convolution(target, x[..., [0, 0, 1, 1]]), 2 * first_convolution(encoder, x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("old", "new", "channel_map", "used"),
    [
        (1, 3, None, [0, 0, 0]),
        (2, 3, None, [0, 0, 1]),
        (2, 5, None, [0, 0, 0, 1, 1]),
        (2, 4, [0, 1, 1, 1], [0, 1, 1, 1]),
        (4, 2, [3, 0], [3, 0]),
        (2, 2, [1, 0], [1, 0]),
    ],
)
def test_channel_map_against_a_loop(tmp_path, old, new, channel_map, used):
    source, target = make_encoder(old), make_encoder(new, seed=1)
    save_model(source, tmp_path / "encoder.keras")
    transfer.load_encoder(target, tmp_path / "encoder.keras", channel_map=channel_map)
    kernel, received = source.get_layer("one").kernel.numpy(), target.get_layer("one").kernel.numpy()
    for channel, origin in enumerate(used):
        np.testing.assert_allclose(received[:, :, channel], kernel[:, :, origin] / used.count(origin), rtol=1e-6)
    # As many filters as channels in some rows: the deeper kernel must not be permuted for that.
    assert_same([source.get_layer("two").kernel], [target.get_layer("two").kernel])


def test_the_identity_map_is_a_plain_copy(saved):
    _, run = saved
    assert not transfer.load_encoder(make_encoder(2), run, channel_map=[0, 1]).adapted


@pytest.mark.parametrize("channel_map", [[0, 1], [0, 1, 2, 1], [0, 1, -1, 0], []])
def test_a_map_that_does_not_fit_is_refused(saved, channel_map):
    _, run = saved
    with pytest.raises(UserError, match="channel_map: expected 4 numbers from 0 to 1"):
        transfer.load_encoder(make_encoder(4), run, channel_map=channel_map)


def test_fewer_channels_need_a_map(saved):
    _, run = saved
    with pytest.raises(UserError, match="channel_map: .* on 2 channels and the data have 1"):
        transfer.load_encoder(make_encoder(1), run)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"filters": 8}, r"one/kernel: shape \(3, 3, 2, 8\)"), ({"names": ("one", "three")}, "three/kernel: not in")],
)
def test_an_incomplete_match_changes_nothing_and_shows_the_report(saved, options, reason):
    _, run = saved
    target = make_encoder(2, seed=1, **options)
    before = snapshot(target)
    with pytest.raises(UserError, match=reason):
        transfer.load_encoder(target, run)
    assert_same(before, snapshot(target))


def test_an_encoder_with_fewer_layers_is_another_architecture(saved):
    """Every tensor finds its value, yet the network computes something else than the pretrained one."""
    whole = make_encoder(2, seed=9)
    encoder = keras.Model(whole.input, whole.get_layer("relu").output, name="encoder")
    before = snapshot(encoder)
    with pytest.raises(UserError, match=r"2 unused(.|\n)*was not loaded completely"):
        transfer.load_encoder(encoder, saved[1])
    assert_same(before, snapshot(encoder))


def test_a_partial_match_when_allowed(saved):
    encoder, run = saved
    target = make_encoder(2, names=("one", "three"), seed=1)
    fresh = target.get_layer("three").kernel.numpy()
    report = transfer.load_encoder(target, run, allow_partial=True)
    assert [line.split(":")[0] for line in report.left] == ["three/kernel", "three/bias"]
    assert set(report.unused) == {"two/kernel", "two/bias"}
    assert "6 of 8 tensors matched, 0 adapted, 2 left, 2 unused" in str(report)
    assert_same(
        [encoder.get_layer("one").kernel, fresh], [target.get_layer("one").kernel, target.get_layer("three").kernel]
    )


def test_nothing_in_common_is_an_error_even_when_partial_is_allowed(tmp_path):
    inputs = keras.Input((4,))
    save_model(keras.Model(inputs, keras.layers.Dense(2, name="other")(inputs)), tmp_path / "foreign.keras")
    with pytest.raises(UserError, match="0 of 8 tensors matched"):
        transfer.load_encoder(make_encoder(4), tmp_path / "foreign.keras", allow_partial=True)


def test_depthwise_kernels_are_not_duplicated(tmp_path):
    def make(channels):
        inputs = keras.Input((8, 8, channels))
        x = keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs)
        return keras.Model(inputs, keras.layers.Conv2D(4, 1, name="point")(x), name="encoder")

    save_model(make(2), tmp_path / "encoder.keras")
    with pytest.raises(UserError, match="left +depthwise/kernel: shape"):
        transfer.load_encoder(make(4), tmp_path / "encoder.keras")


def test_a_map_without_effect_is_an_error(tmp_path):
    inputs = keras.Input((8, 8, 2))
    encoder = keras.Model(inputs, keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs), name="encoder")
    save_model(encoder, tmp_path / "encoder.keras")
    with pytest.raises(UserError, match="has no effect"):
        transfer.load_encoder(encoder, tmp_path / "encoder.keras", channel_map=[1, 0])


def test_sources_that_are_no_encoder_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no encoder.keras"):
        transfer.find_encoder(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file"):
        transfer.find_encoder(tmp_path / "missing.keras")
    with pytest.raises(UserError, match="runs/cpc: no such run folder; run the pretraining first"):
        transfer.find_encoder("runs/cpc")
    (tmp_path / "weights-improvement-100.hdf5").write_bytes(b"\x89HDF")
    with pytest.raises(UserError, match="Keras 2 weight files of the predecessor cannot be read"):
        transfer.find_encoder(tmp_path / "weights-improvement-100.hdf5")
    with pytest.raises(UserError, match="expected a .keras file"):
        transfer.find_encoder(tmp_path / "weights.ckpt")


def test_a_kernel_that_sees_another_scale_is_warned_of(tmp_path, caplog):
    vgg11 = functools.partial(registry.encoder("vgg11"), width_multiplier=1 / 16)
    save_model(vgg11((16, 16, 4, 1)), tmp_path / "encoder.keras")
    transfer.load_encoder(vgg11((32, 32, 4, 1), seed=1), tmp_path / "encoder.keras")
    # 4 slices are halved from the third pool of a plane of 16 on, but from the fourth of a plane of 32.
    assert "4 kernels fit, but see another scale than in pretraining" in caplog.text
    assert "block_4_1_conv ((8, 8, 2) there, (8, 8, 1) here)" in caplog.text
    caplog.clear()
    transfer.load_encoder(vgg11((16, 16, 4, 1), pooling="none", seed=1), tmp_path / "encoder.keras")
    schedule = [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [1, 1, 1]]
    transfer.load_encoder(vgg11((32, 32, 4, 1), pool_schedule=schedule, seed=1), tmp_path / "encoder.keras")
    assert caplog.text == ""


def test_dilation_keeps_the_scale_of_a_stride():
    resnet18 = functools.partial(registry.encoder("resnet18"), width_multiplier=1 / 16)
    assert encoder_transfer.scale_differences(resnet18((64, 64, 1)), resnet18((64, 64, 1), output_stride=8)) == []
    # In 3D the stem of output stride 8 also halves the slices, so that all behind it sees them at twice the scale.
    differences = encoder_transfer.scale_differences(
        resnet18((64, 64, 32, 1)), resnet18((64, 64, 32, 1), output_stride=8)
    )
    assert differences[0] == "stage_1_block_1_first_conv ((4, 4, 2) there, (4, 4, 4) here)"
    assert len(differences) == 16  # all of kernel 3
