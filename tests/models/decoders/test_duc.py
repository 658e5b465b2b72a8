"""The decoder of dense upsampling convolution."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.inference.pieces import cover
from self_supervised_3d_tasks.inference.windows import predictor, sliding_pieces
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.decoders.duc import duc
from self_supervised_3d_tasks.models.decoders.unet import unet
from self_supervised_3d_tasks.models.encoders import pyramid_outputs
from self_supervised_3d_tasks.models.encoders import unet as encoders
from self_supervised_3d_tasks.transfer.encoder import load_encoder

TINY = {"enc_filters": 2, "num_layers": 2}
# TensorFlow's arrays under numpy 2, whenever Keras saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def anisotropic_encoder(shape: tuple[int, ...]) -> keras.Model:
    """A map at a stride of (4, 4, 2), then a final pooling."""
    x = image = keras.Input(shape, name="image")
    x = layers.convolution(3, 6, 3, strides=(4, 4, 2), seed=0, name="deep")(x)
    x = keras.layers.Identity(name="pyramid_0")(x)
    x = layers.max_pool(3, 2, name="final_pool")(x)
    return keras.Model(image, x, name="encoder")


def images(shape: tuple[int, ...], count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def own_weights(decoder, encoder: keras.Model, num_classes: int = 3) -> int:
    return decoder(encoder, num_classes=num_classes).count_params() - encoder.count_params()


@pytest.mark.parametrize("preset", encoders.PRESETS)
@pytest.mark.parametrize("shape", [(16, 8, 3), (8, 16, 8, 1)])
@pytest.mark.parametrize("pooling", ["max", "none"])
def test_any_rank(preset, shape, pooling):
    model = duc(encoders.unet(shape, unet_preset=preset, pooling=pooling, **TINY), num_classes=4)
    assert model.output_shape == (None, *shape[:-1], 4)
    assert "final_pool" not in [layer.name for layer in model.layers]
    assert np.isfinite(model(images(shape), training=True)).all()


def test_each_axis_has_its_own_ratio():
    encoder = anisotropic_encoder((16, 8, 4, 1))
    model = duc(encoder, num_classes=3)
    assert model.output_shape == (None, 16, 8, 4, 3)
    assert model.get_layer("decoder_logits").filters == 4 * 4 * 2 * 3


def test_a_position_of_the_map_gives_the_logits_of_its_own_block():
    encoder = anisotropic_encoder((8, 8, 4, 1))
    model = duc(encoder, num_classes=2, normalization="none")
    kernel, bias = model.get_layer("decoder_logits").get_weights()
    model.get_layer("decoder_logits").set_weights([np.zeros_like(kernel), np.arange(len(bias))])
    block = np.arange(4 * 4 * 2 * 2).reshape(4, 4, 2, 2)
    np.testing.assert_array_equal(model(images((8, 8, 4, 1), 1))[0], np.tile(block, (2, 2, 2, 1)))


def test_width_of_the_head():
    def width(encoder, num_classes, **options):
        return duc(encoder, num_classes=num_classes, **options).get_layer("decoder_conv").filters

    encoder = encoders.unet((4, 4, 1), enc_filters=32, num_layers=2, pooling="none")
    assert width(encoder, 3) == 64
    assert width(encoder, 3, duc_filters=5) == 5
    assert width(anisotropic_encoder((8, 8, 4, 1)), 3) == 64  # with no skips there is no U-Net to compare with


def test_the_default_width_is_what_the_decoder_of_a_unet_would_afford():
    """By hand: blocks of 27 (2 + 1) (16² + 16²) weights; 27 · 128 + 512 · 4 for each filter, 512 · 4 biases."""
    encoder = registry.encoder("resnet18")((16, 16, 16, 1), width_multiplier=1 / 4, output_stride=8)
    filters = duc(encoder, num_classes=4).get_layer("decoder_conv").filters
    assert filters == (27 * 3 * 2 * 16**2 - 512 * 4) // (27 * 128 + 512 * 4) == 7


def test_one_filter_is_left_where_the_map_is_too_coarse_with_a_warning(caplog):
    encoder = registry.encoder("resnet18")((32, 32, 32, 1), width_multiplier=1 / 64)
    assert duc(encoder, num_classes=4).get_layer("decoder_conv").filters == 1
    assert "duc_filters: 1 filters cannot tell 4 classes apart" in caplog.text
    caplog.clear()
    assert duc(encoder, num_classes=4, duc_filters=4).get_layer("decoder_conv").filters == 4
    assert caplog.text == ""


@pytest.mark.parametrize("num_layers", [2, 3, 4])
@pytest.mark.parametrize("enc_filters", [4, 16, 32])
def test_thinner_than_the_decoder_of_a_unet(enc_filters, num_layers):
    encoder = encoders.unet((32, 32, 32, 1), enc_filters=enc_filters, num_layers=num_layers)
    assert own_weights(duc, encoder) < own_weights(unet, encoder)


@pytest.mark.parametrize("width_multiplier", [1 / 8, 1 / 2])
@pytest.mark.parametrize(
    ("name", "options"), [("vgg11", {}), ("resnet18", {"output_stride": 8}), ("resnet18", {"output_stride": 32})]
)
def test_thinner_with_other_encoders_too(name, options, width_multiplier):
    encoder = registry.encoder(name)((32, 32, 32, 1), width_multiplier=width_multiplier, **options)
    for num_classes in (2, 4):
        assert own_weights(duc, encoder, num_classes) < own_weights(unet, encoder, num_classes)


def test_a_frozen_encoder_keeps_every_weight_while_the_decoder_learns():
    encoder = encoders.unet((8, 8, 1), **TINY)
    model = duc(encoder, num_classes=2)
    encoder.trainable = False
    frozen, trained = [[weight.numpy() for weight in part.weights] for part in (encoder, model)]
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images((8, 8, 1)), np.ones((2, 8, 8), "int32"))
    assert all(np.array_equal(before, after) for before, after in zip(frozen, encoder.weights, strict=True))
    assert not all(np.array_equal(before, after) for before, after in zip(trained, model.weights, strict=True))


@saves
def test_pretrained_weights_reach_the_model_and_come_back_from_it(tmp_path):
    pretrained = encoders.unet((8, 8, 8, 1), seed=1, **TINY)
    pretrained.save(tmp_path / "encoder.keras")
    encoder = encoders.unet((16, 8, 8, 2), seed=2, **TINY)
    model = duc(encoder, num_classes=2)
    report = load_encoder(encoder, tmp_path / "encoder.keras")
    assert not report.left
    assert not report.unused
    for name in ("level_0_conv_2", "level_2_conv_2"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, pretrained.get_layer(name).kernel)
    model.save(tmp_path / "model.keras")
    again = encoders.unet((16, 8, 8, 2), seed=3, **TINY)
    assert not load_encoder(again, tmp_path / "model.keras").left
    np.testing.assert_array_equal(again.get_layer("level_0_conv_1").kernel, model.get_layer("level_0_conv_1").kernel)


@saves
def test_a_saved_model_loads_in_safe_mode(tmp_path):
    model = duc(encoders.unet((8, 16, 8, 1), **TINY), num_classes=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = images((8, 16, 8, 1))
    np.testing.assert_array_equal(model(x), loaded(x))


def test_an_experiment_chooses_it_and_windows_cover_a_larger_scan(tmp_path):
    keys = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir_train": str(tmp_path), "data_dim": [8, 8, 4]}
    keys |= {"prediction_architecture": "DUC", "duc_filters": 3, "epochs_initialized": 0, "epochs_frozen": 0}
    (tmp_path / "finetune.json").write_text(json.dumps(keys | {"enc_filters": 2, "num_layers": 1}))
    experiment = load_experiment("finetune", tmp_path / "finetune.json")
    encoder, model = build.make_model(experiment, seed=0)
    assert experiment.task == "segmentation"
    assert model.get_layer("decoder_conv").filters == 3
    assert all(layer in model.layers for layer in encoder.layers if layer.weights)
    pieces = sliding_pieces(predictor(model), images((11, 8, 5, 1), 1)[0], (8, 8, 4), num_classes=3)
    probabilities = cover(np.zeros((11, 8, 5, 3)), pieces)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    x = images((8, 8, 4, 1), 1)
    ((_, one_window),) = sliding_pieces(predictor(model), x[0], (8, 8, 4), num_classes=3)
    np.testing.assert_allclose(one_window, keras.ops.softmax(model(x))[0], atol=1e-5)


def test_seeds_decide_the_weights():
    def weights(seed):
        model = duc(encoders.unet((8, 8, 1), **TINY), num_classes=2, seed=seed)
        return [model.get_layer(name).kernel.numpy() for name in ("decoder_conv", "decoder_logits")]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_at_first_all_voxels_of_a_block_have_the_same_logits():
    encoder = anisotropic_encoder((8, 8, 4, 1))
    logits = duc(encoder, num_classes=3)(images((8, 8, 4, 1))).numpy()
    blocks = logits.reshape(2, 2, 4, 2, 4, 2, 2, 3).transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(2, 2, 2, 2, 4 * 4 * 2, 3)
    np.testing.assert_allclose(blocks, np.broadcast_to(blocks[..., :1, :], blocks.shape), atol=1e-6)
    assert blocks[..., 0, :].std(axis=-1).min() > 0  # the classes and the positions of the map differ
    assert blocks[..., 0, :].std(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_logits_are_float32_under_mixed_precision(normalization):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = encoders.unet((8, 8, 1), normalization=normalization, **TINY)
        model = duc(encoder, num_classes=2, normalization=normalization)
        assert pyramid_outputs(encoder)[-1].dtype == "bfloat16"
        logits = model(images((8, 8, 1)), training=True)
    finally:
        keras.config.set_dtype_policy(policy)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()


def test_maps_that_do_not_divide_the_image_are_refused():
    with pytest.raises(UserError, match=r"cannot enlarge a map of size \(5, 6\) to \(22, 24\)"):
        duc(encoders.unet((22, 24, 1), **TINY), num_classes=2)


def test_images_of_unknown_size_are_refused():
    with pytest.raises(ValueError, match="images of known size"):
        duc(encoders.unet((None, None, 1), **TINY), num_classes=2)


def test_the_registry_knows_it():
    assert registry.decoder("duc") is duc
    assert set(registry.options(duc)) == {"duc_filters", "normalization"}
