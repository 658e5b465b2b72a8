from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.inference.pieces import cover
from self_supervised_3d_tasks.inference.scans import predict_case
from self_supervised_3d_tasks.inference.windows import (
    blending_weights,
    gaussian_weights,
    predictor,
    sliding_pieces,
    window_starts,
)

# image shape, window: both ranks, odd sizes, an axis smaller than the window, one that fits exactly
CASES = [((11,), (4,)), ((9, 13), (4, 6)), ((5, 13), (8, 6)), ((9, 8, 11), (4, 4, 4)), ((3, 8, 11), (4, 8, 5))]


def sliding_window(predict, image, window, *, num_classes, **options):
    """Return the whole of the pieces, ``(*spatial, num_classes)``."""
    whole = np.full((*image.shape[:-1], num_classes), np.nan, np.float32)
    return cover(whole, sliding_pieces(predict, image, window, num_classes=num_classes, **options))


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (11, 4, 0.5, [0, 2, 4, 6, 7]),  # the last one is moved back to the border
        (10, 4, 0.0, [0, 4, 6]),
        (8, 4, 0.0, [0, 4]),
        (4, 4, 0.5, [0]),
        (5, 4, 0.5, [0, 1]),
        (6, 4, 0.99, [0, 1, 2]),  # the stride is never below one voxel
        (13, 10, 0.9, [0, 1, 2, 3]),  # 10 * (1 - 0.9) is a little below 1 in floating point
        (3, 1, 0.5, [0, 1, 2]),
    ],
)
def test_window_starts(length, window, overlap, expected):
    assert window_starts(length, window, overlap) == expected


def test_gaussian_weights_by_hand():
    # sigma = 8 / 8 = 1 voxel; the voxel centres are 0.5, 1.5, 2.5 and 3.5 voxels from the window's centre
    half = np.exp([-(3.5**2) / 2, -(2.5**2) / 2, -(1.5**2) / 2, -(0.5**2) / 2])
    np.testing.assert_allclose(gaussian_weights(8), [*half, *half[::-1]], rtol=1e-12)
    np.testing.assert_allclose(gaussian_weights(1), [1.0])


def test_blending_weights_are_the_normalised_gaussians():
    weights = blending_weights([0, 2], 4)
    bump = gaussian_weights(4)
    np.testing.assert_allclose(weights[0], [1, 1, *(bump[2:] / (bump[2:] + bump[:2]))], rtol=1e-6)
    np.testing.assert_allclose(weights[1], [*(bump[:2] / (bump[2:] + bump[:2])), 1, 1], rtol=1e-6)


@pytest.mark.parametrize(("length", "window", "overlap"), [(10, 4, 0.5), (37, 16, 0.25), (20, 7, 0.8), (9, 9, 0.5)])
def test_blending_weights_sum_to_one(length, window, overlap):
    starts = window_starts(length, window, overlap)
    total = np.zeros(length)
    for start, weights in zip(starts, blending_weights(starts, window), strict=True):
        total[start : start + window] += weights
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


@pytest.mark.parametrize(("shape", "window"), CASES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_constant_predictor_gives_its_constant_everywhere(shape, window, batch_size):
    constant = np.array([0.125, 0.25, 0.625], np.float32)

    def predict(batch):
        return np.broadcast_to(constant, (*batch.shape[:-1], 3))

    image = np.zeros((*shape, 1), np.float32)
    result = sliding_window(predict, image, window, num_classes=3, batch_size=batch_size)
    assert result.shape == (*shape, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.broadcast_to(constant, result.shape), rtol=1e-6)


@pytest.mark.parametrize(("shape", "window"), CASES)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_an_identity_predictor_is_reproduced(shape, window, overlap):
    image = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    result = sliding_window(lambda batch: batch[..., :2], image, window, num_classes=2, overlap=overlap, batch_size=3)
    np.testing.assert_allclose(result, image[..., :2], rtol=2e-6)


def test_the_blend_equals_the_weighted_mean_over_all_windows():
    """The slow formula: sum of weight * prediction over sum of weight, with the n-dimensional Gaussian."""
    rng = np.random.default_rng(1)
    image = rng.random((7, 9, 1)).astype(np.float32)
    ramp = rng.random((4, 6)).astype(np.float32)[..., None]  # depends on the place in the window: windows disagree

    weight = np.multiply.outer(gaussian_weights(4), gaussian_weights(6))[..., None]
    total, norm = np.zeros((7, 9, 1)), np.zeros((7, 9, 1))
    for i in (0, 2, 3):
        for j in (0, 3):
            total[i : i + 4, j : j + 6] += weight * (image[i : i + 4, j : j + 6] * ramp)
            norm[i : i + 4, j : j + 6] += weight

    result = sliding_window(lambda batch: batch * ramp, image, (4, 6), num_classes=1, batch_size=4)
    np.testing.assert_allclose(result, total / norm, rtol=1e-5)


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [1] * 6), (4, [4, 4]), (6, [6]), (100, [6])])
def test_every_call_has_the_same_batch_size(batch_size, calls):
    received = []

    def predict(batch):
        received.append(len(batch))
        return batch

    sliding_window(predict, np.zeros((8, 6, 1), np.float32), (4, 4), num_classes=1, batch_size=batch_size)
    assert received == calls  # 3 x 2 windows


def test_a_window_of_the_images_shape_runs_once_without_blending():
    image = np.random.default_rng(2).random((5, 6, 2)).astype(np.float32)
    received = []

    def predict(batch):
        received.append(batch)
        return batch

    result = sliding_window(predict, image, (5, 6), num_classes=2, batch_size=8)
    np.testing.assert_array_equal(result, image)
    assert [batch.shape for batch in received] == [(1, 5, 6, 2)]


def test_a_small_image_is_padded_with_zeros_on_both_sides():
    received = []

    def predict(batch):
        received.append(batch[0, :, 0])
        return batch

    result = sliding_window(predict, np.array([[1.0], [2.0]], np.float32), (5,), num_classes=1)
    np.testing.assert_array_equal(received, [[0, 1, 2, 0, 0]])
    np.testing.assert_array_equal(result, [[1], [2]])


@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        ((4,), {}, "expected 2 numbers of at least 1 as the window"),
        ((4, 0), {}, "at least 1"),
        ((4, 4), {"batch_size": 0}, "at least 1"),
        ((4, 4), {"overlap": 1.0}, "overlap"),
        ((4, 4), {"overlap": -0.1}, "overlap"),
    ],
)
def test_impossible_settings_are_named(window, options, message):
    with pytest.raises(UserError, match=message):
        sliding_window(lambda batch: batch, np.zeros((8, 8, 1), np.float32), window, num_classes=1, **options)


def test_a_prediction_of_the_wrong_shape_is_not_broadcast():
    with pytest.raises(ValueError, match=r"expected \(1, 4, 4, 3\)"):
        sliding_window(lambda batch: batch, np.zeros((8, 8, 1), np.float32), (4, 4), num_classes=3)


def scan(array):
    """A volume with 1 mm voxels that was never on the disk."""
    rank = array.ndim - 1
    return Volume(array=array.astype(np.float32), affine=None, spacing=(1.0,) * rank, path=Path("scan.npy"))


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5)])
@pytest.mark.parametrize("fitting", ["crop", "resize", "exact"])
def test_predict_case_gives_labels_on_the_scans_own_grid(shape, fitting):
    half = np.zeros(shape, int)
    half[3:] = 1
    volume = scan(half[..., None] * 200 - 100)
    data_dim = {"crop": (7, *(4,) * (len(shape) - 1)), "resize": tuple(2 * n for n in shape), "exact": shape}
    preprocessing = Preprocessing(data_dim[fitting], 1, volume_fitting=fitting)
    calls = []

    def predict(batch):  # the normalised image is the probability of class 1
        calls.append(batch.shape[:-1])
        return np.concatenate([1 - batch, batch], axis=-1)

    mask = predict_case(predict, volume, preprocessing, num_classes=2, batch_size=2)
    np.testing.assert_array_equal(mask, half)
    assert mask.dtype == np.uint8
    assert set(calls) == {((2 if fitting == "crop" else 1), *data_dim[fitting])}
    assert (len(calls) > 1) == (fitting == "crop")


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 8)])
def test_predictor_is_the_softmax_of_the_models_logits(shape):
    import keras

    inputs = keras.Input((*(None for _ in shape), 2))
    model = keras.Model(
        inputs, keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=1))(inputs)
    )
    kernel, bias = (variable.numpy() for variable in model.layers[-1].weights)
    batch = np.random.default_rng(4).random((2, *shape, 2)).astype(np.float32)

    logits = batch.astype(np.float64) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    result = predictor(model)(batch)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert result.dtype == np.float32

    preprocessing = Preprocessing((4,) * len(shape), 2, intensity_window=(0, 1), volume_fitting="crop")
    mask = predict_case(model, scan(batch[0]), preprocessing, num_classes=3)
    np.testing.assert_array_equal(mask, expected[0].argmax(-1))


def test_predictor_follows_the_model_and_does_not_trace_again():
    import keras

    traces = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    inputs = keras.Input((None, 1))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")(Counting()(inputs)))
    image = np.ones((11, 1), np.float32)

    first = sliding_window(predictor(model), image, (4,), num_classes=2, batch_size=2)
    np.testing.assert_allclose(first, 0.5)
    traced = len(traces)
    model.set_weights([np.array([[0.0, np.log(3.0)]], np.float32)])
    second = sliding_window(predictor(model), image, (4,), num_classes=2, batch_size=2)
    np.testing.assert_allclose(second, [[0.25, 0.75]] * 11, rtol=1e-6)
    assert len(traces) == traced
