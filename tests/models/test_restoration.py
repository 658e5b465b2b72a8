"""Restoration heads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import skimage.transform

from self_supervised_3d_tasks.models import restoration

KINDS = ("paper", "code")


@pytest.mark.parametrize(
    ("shape", "factor"), [((3, 4, 2), (2, 4)), ((2, 3, 4, 2), (4, 1, 2)), ((2, 3, 1, 1), (1, 1, 8))]
)
def test_enlarge_interpolates_linearly(shape, factor):
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    image = keras.Input(shape)
    model = keras.Model(image, restoration.enlarge(image, factor, name="up"))
    large = [size * ratio for size, ratio in zip(shape, factor, strict=False)]
    expected = [skimage.transform.resize(one, large, order=1, mode="edge", anti_aliasing=False) for one in x]
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("small", "large"), [((2, 3, 5), (8, 6, 2)), ((2, 3, 2, 1), (8, 6, 2, 1))])
def test_heads_give_an_image_of_the_size(kind, small, large):
    head = restoration.restoration_head(small, large, kind=kind, normalization="batch", seed=0, name="head")
    image = head(50 * np.random.default_rng(0).normal(size=(2, *small)), training=True).numpy()
    assert image.shape == (2, *large)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert all(layer.name.startswith("head_") for layer in head.layers)


def test_hidden_filters_are_half_of_the_maps_or_one():
    for channels, hidden in ((1, 1), (6, 3)):
        head = restoration.restoration_head(
            (4, 4, channels), (4, 4, 1), kind="paper", normalization="none", seed=0, name="head"
        )
        assert head.get_layer("head_conv_1").filters == hidden
        assert head.count_params() == (9 * channels + 1) * hidden + 9 * hidden + 1


def test_the_order_of_sigmoid_and_enlargement():
    """The paper's interpolates logits, the code's the image: they differ where the image saturates."""
    for kind, order in (("paper", ["head_enlarge", "head_image"]), ("code", ["head_image", "head_enlarge"])):
        head = restoration.restoration_head((2, 2, 4), (4, 4, 1), kind=kind, normalization="batch", seed=0, name="head")
        assert [layer.name for layer in head.layers][-2:] == order


def test_the_image_is_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for kind in KINDS:
            head = restoration.restoration_head(
                (4, 4, 4, 4), (8, 8, 8, 1), kind=kind, normalization="batch", seed=0, name="head"
            )
            assert head(np.ones((1, 4, 4, 4, 4))).dtype == "float32"
            assert head.get_layer("head_conv_1").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(policy)
