"""Names, and the keys behind them."""

from __future__ import annotations

import inspect

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.encoders import unet


def test_a_family_stands_for_its_names():
    names = registry.known("encoder")
    assert names == sorted(names)
    assert {"unet", "densenet121", "resnet50v2"} <= set(names)
    assert "keras_applications" not in names


def test_the_other_kinds():
    assert {"cpc", "rotation"} <= set(registry.known("algorithm")) and "base" not in registry.known("algorithm")
    assert "unet" in registry.known("decoder")
    assert registry.known("head") == ["big_fully", "simple_multiclass", "softmax"]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("algorithm", "RPL", "relative_patch_location"),
        ("algorithm", "Rotation", "rotation"),
        ("encoder", "DenseNet121", "densenet121"),
        ("encoder", "InceptionResNetV2", "inceptionresnetv2"),
        ("encoder", "UNet", "unet"),
        ("decoder", "unet_3D_upconv", "unet"),
        ("head", "Simple_Multiclass", "simple_multiclass"),
    ],
)
def test_capitals_and_the_predecessors_spellings(kind, name, expected):
    assert registry.canonical(kind, name, "key") == expected


@pytest.mark.parametrize(
    "encoder",
    [
        *("DenseNet121", "InceptionV3", "InceptionResNetV2"),
        *("ResNet50", "ResNet50V2", "ResNet101", "ResNet101V2", "ResNet152"),
    ],
)
def test_the_predecessors_encoders(encoder):
    name = registry.canonical("encoder", encoder, "encoder_architecture")
    assert list(registry.options(registry.encoder(name))) == ["pooling", "encoder_weights"]
    registry.encoder_check(name)((96, 96, 1), decoder=False)


def test_an_encoder_that_is_a_module():
    assert registry.encoder("unet") is unet.unet
    assert registry.encoder_check("unet") is unet.check_input_shape


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unet", ("decoder", "unet")),
        ("unet_2d_upconv", ("decoder", "unet")),
        ("softmax", ("head", "softmax")),
        ("Big_Fully", ("head", "big_fully")),
    ],
)
def test_a_prediction_network_is_a_decoder_or_a_head(name, expected):
    assert registry.prediction(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("big_full", "unet for masks; big_fully, .*softmax for classes of whole scans. Did you mean 'big_fully'"),
        ("unet_3d_upcon", "Did you mean 'unet_3d_upconv'"),
        ("None", "a downstream task needs a prediction network"),
        ("unet_3d_upconv_patches", "could not be built in the predecessor either"),
    ],
)
def test_a_prediction_network_that_is_not_known(name, message):
    with pytest.raises(UserError, match=f"^prediction_architecture: no decoder or head is called '{name}'.*{message}"):
        registry.prediction(name)


def test_a_name_that_is_not_known_comes_with_those_that_are():
    with pytest.raises(UserError, match="encoder_architecture: .*'DenseNet12'; .*unet.*Did you mean 'densenet121'"):
        registry.canonical("encoder", "DenseNet12", "encoder_architecture")
    with pytest.raises(UserError, match="^key: no algorithm is called 'cp'; known names: cpc, .*Did you mean 'cpc'"):
        registry.canonical("algorithm", "cp", "key")


def test_options_are_the_keys_of_a_file():
    def consumer(x, *, width: int, seed: int, num_classes: int, name: str, rate: float = 0.5):
        """Take what a network takes."""

    assert list(registry.options(consumer)) == ["width", "rate"]
    # As if annotations were not strings: this is what pydantic gets.
    assert registry.options(consumer)["width"].annotation is int
    assert registry.options(consumer)["rate"].default == 0.5


def test_heads_and_their_options():
    assert registry.head("big_fully") is heads.big_fully
    assert registry.prediction_network("Big_Fully") is heads.big_fully
    assert list(registry.options(heads.big_fully)) == ["head_units", "normalization", "dropout_rate"]
    assert list(registry.options(heads.simple_multiclass)) == ["normalization", "dropout_rate"]
    assert list(registry.options(heads.softmax)) == []
    with pytest.raises(UserError, match="^prediction_architecture: no head"):
        registry.head("unet")


@pytest.mark.parametrize("kind", ["algorithm", "encoder", "decoder"])
def test_every_option_has_an_annotation(kind):
    """Without one, a key would take any value."""
    for name in registry.known(kind):
        for option in registry.options(getattr(registry, kind)(name)).values():
            assert option.annotation is not inspect.Parameter.empty, f"{name}: {option.name}"
