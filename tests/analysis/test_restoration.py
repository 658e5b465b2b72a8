"""Errors of restorations and of the mean image, and the analyses of a decoder after every epoch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from self_supervised_3d_tasks.algorithms.parts2whole import Parts2Whole
from self_supervised_3d_tasks.analysis.codes import contrastive_probe, similarities
from self_supervised_3d_tasks.analysis.restoration import (
    RestorationMonitor,
    mean_image,
    per_scan,
    sample_size,
    squared_errors,
)
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.ops import seeds

IMAGES = np.random.default_rng(0).random((10, 4, 3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1,) * 10])
def test_the_mean_image_of_a_stream(sizes):
    batches = iter(np.split(IMAGES, np.cumsum(sizes)[:-1]))
    image, count = mean_image(batches)
    assert count == 10
    np.testing.assert_allclose(image, IMAGES.astype(float).mean(axis=0), rtol=1e-12)


def test_the_mean_image_errs_by_the_variance():
    image, _ = mean_image([IMAGES])
    assert squared_errors(image, IMAGES).mean() == pytest.approx(IMAGES.astype(float).var(axis=0).mean(), rel=1e-9)


def test_other_images_add_the_distance_of_the_means():
    train, validation = IMAGES[:6], IMAGES[6:]
    image, _ = mean_image([train])
    variance = validation.astype(float).var(axis=0).mean()
    distance = ((validation.astype(float).mean(axis=0) - train.astype(float).mean(axis=0)) ** 2).mean()
    assert squared_errors(image, validation).mean() == pytest.approx(variance + distance, rel=1e-9)


def test_squared_errors_by_hand():
    wanted = np.zeros((2, 2, 2, 1), np.float32)
    predicted = wanted.copy()
    predicted[1, 0, 0, 0] = 0.5
    np.testing.assert_array_equal(squared_errors(predicted, wanted), [0, 0.25 / 4])
    np.testing.assert_array_equal(squared_errors(wanted, wanted), [0, 0])


def test_errors_are_averaged_over_all_parts_of_a_scan():
    errors = np.array([[1.0, 2.0], [5.0, 5.0], [2.0, 1.0]])
    assert per_scan(["b", "a", "b"], errors, errors + 2) == [("b", 1.5, 3.5, 4), ("a", 5.0, 7.0, 2)]


SHAPE = (16, 16, 1)
SCANS = np.random.default_rng(0).random((3, 1, *SHAPE)).astype(np.float32)
SEEDS = np.arange(6, dtype=np.int32).reshape(3, 1, 2)


@pytest.fixture(scope="module")
def model():
    algorithm = Parts2Whole(SHAPE, dropout=0.0)
    encoder = unet(SHAPE, enc_filters=2, num_layers=2, pooling="none", dropout=0.0, seed=1)
    return algorithm, algorithm.make_model(encoder, seed=2)


def make_monitor(model, folder, count=3, **options):
    algorithm, network = model
    images = tf.data.Dataset.from_tensor_slices((SCANS[:count], SEEDS[:count]))
    defaults = {"scans_per_epoch": 18, "batch_size": 4, "picture_every": 2}
    names = ["a", "b", "c"][:count]
    restorer = algorithm.restorer(network)
    return RestorationMonitor(algorithm, restorer, images=images, scans=names, folder=folder, **defaults | options)


@pytest.fixture(scope="module")
def monitored(model, tmp_path_factory):
    """The monitor of a model, and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("run") / "plots"
    return make_monitor(model, folder), folder


@pytest.mark.parametrize(
    ("scans_per_epoch", "size"),
    [(1, (2, 2)), (12, (2, 2)), (18, (3, 2)), (47, (7, 2)), (48, (4, 4)), (96, (8, 4)), (10**6, (8, 4))],
)
def test_the_sample_costs_a_small_share_of_an_epoch(scans_per_epoch, size):
    assert sample_size(scans_per_epoch) == size


def test_the_columns_are_those_of_the_same_parts_coded_by_hand(model, monitored):
    (algorithm, network), (monitor, folder) = model, monitored
    columns = monitor(1)
    parts = [
        algorithm.make_example(tf.constant(image), seeds.fold(tf.constant(seed), copy))[0]
        for (image,), (seed,) in zip(SCANS, SEEDS, strict=True)
        for copy in range(2)
    ]
    maps = keras.ops.convert_to_numpy(network.get_layer("encoder")(np.stack(parts), training=False))
    codes = maps.mean(axis=(1, 2)).reshape(3, 2, -1)
    same, different = similarities(codes)
    expected = {
        "val_similarity_same": same.mean(),
        "val_similarity_different": different.mean(),
        "val_probe": contrastive_probe(codes).value,
    }
    assert columns == pytest.approx(expected, abs=1e-5)
    assert monitor(3) == columns  # the same scans and parts in every epoch
    assert not folder.exists()


def test_it_follows_the_weights_and_draws_every_n_epochs(model, monitored):
    monitor, folder = monitored
    before = monitor(1)
    kernel = model[1].get_layer("encoder").trainable_variables[0]
    values = kernel.numpy()
    kernel.assign(-values)
    after = [monitor(epoch) for epoch in (2, 3, 4)]
    kernel.assign(values)
    assert after[0] != before
    assert monitor(5) == before
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["restoration_epoch_0002.png", "restoration_epoch_0004.png"]
    with Image.open(folder / names[0]) as picture:
        assert picture.height > picture.width  # three rows of three pictures, with titles


def test_one_whole_has_no_other_one_to_be_compared_with(model, tmp_path):
    assert list(make_monitor(model, tmp_path, count=1)(1)) == ["val_similarity_same"]
