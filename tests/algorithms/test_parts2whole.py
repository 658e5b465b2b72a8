"""Parts2Whole."""

import json

import keras
import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import tensorflow as tf

from self_supervised_3d_tasks import transfer
from self_supervised_3d_tasks.algorithms.parts2whole import Parts2Whole
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import models
from self_supervised_3d_tasks.models.decoders.unet import unet as unet_decoder
from self_supervised_3d_tasks.models.encoders.unet import unet

SHAPES = [(32, 24, 2), (16, 16, 8, 1)]
TINY = {"enc_filters": 2, "num_layers": 2, "pooling": "none", "dropout": 0.0}


def wholes(number, shape, seed=0):
    """Blurred noise in [0, 1]."""
    sigma = (0, *[1.5] * (len(shape) - 1), 0)
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(number, *shape)), sigma)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def examples(algorithm, images, number):
    """Parts and targets of ``number`` examples, the images in turn, made in a graph."""
    images = tf.constant(images)

    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it

    def example(i):
        return make_example(images[i % len(images)], tf.stack([tf.cast(i, tf.int32), 3]))

    dataset = tf.data.Dataset.range(number).map(example)
    parts, targets = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(parts), np.stack(targets)


def box_of(place):
    """Return the slices of the box that is 1 in an image (*spatial) of zeros, after checking that it is one."""
    corners = [(index.min(), index.max() + 1) for index in np.nonzero(place)]
    box = tuple(slice(*corner) for corner in corners)
    assert set(np.unique(place)) == {0, 1}
    assert place[box].all()
    assert place.sum() == place[box].size
    return box


def make_model(algorithm, **options):
    encoder = unet(algorithm.encoder_shape, **TINY | options, seed=1)
    return algorithm.make_model(encoder, seed=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_is_a_box_of_the_whole_enlarged_to_its_size(shape):
    algorithm, images = Parts2Whole(shape), wholes(3, shape)
    parts, targets = examples(algorithm, images, 30)
    assert parts.shape == (30, *shape)
    assert targets.shape == (30, *shape[:-1], shape[-1] + 1)
    for i, (part, target) in enumerate(zip(parts, targets, strict=True)):
        np.testing.assert_array_equal(target[..., :-1], images[i % 3])
        box = box_of(target[..., -1])
        assert 1 / 16 <= target[..., -1].mean() <= 1 / 4
        expected = skimage.transform.resize(images[i % 3][box], shape, order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(part, expected, atol=1e-5)
    assert len({target[..., -1].tobytes() for target in targets}) > 20


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_whole_has_constant_parts(shape):
    parts, _ = examples(Parts2Whole(shape), np.full((1, *shape), 0.4, np.float32), 5)
    np.testing.assert_array_equal(parts, np.full_like(parts, 0.4))


@pytest.mark.parametrize("shape", SHAPES)
def test_jitter_changes_the_part_by_one_line_and_leaves_the_target(shape):
    images = wholes(1, shape)
    parts, targets = examples(Parts2Whole(shape), images, 40)
    changed, same = examples(Parts2Whole(shape, intensity_jitter=0.2), images, 40)
    np.testing.assert_array_equal(targets, same)
    shifts, slopes = [], []
    for part, other in zip(parts[..., 0], changed[..., 0], strict=True):
        slope, offset = np.polyfit(part.ravel(), other.ravel(), 1)
        np.testing.assert_allclose(other, slope * part + offset, atol=1e-4)
        slopes.append(slope)
        shifts.append(other.mean() - part.mean())
    for values, centre in ((shifts, 0), (slopes, 1)):
        assert np.abs(np.subtract(values, centre)).max() <= 0.2 + 1e-4
        assert np.ptp(values) > 0.2


@pytest.mark.parametrize("shape", SHAPES)
def test_the_reconstruction_is_an_image_of_the_wholes_size(shape):
    algorithm = Parts2Whole(shape)
    parts, _ = examples(algorithm, wholes(2, shape), 2)
    output = make_model(algorithm)(100 * parts).numpy()
    assert output.shape == (2, *shape)
    assert output.dtype == np.float32
    assert output.min() >= 0
    assert output.max() <= 1


def test_all_that_leaves_the_encoder_is_its_last_map():
    """With that map fixed, the part makes no difference."""
    algorithm = Parts2Whole((16, 16, 8, 1), normalization="none")
    model = make_model(algorithm, normalization="none")
    parts = wholes(2, (16, 16, 8, 1))
    assert not np.array_equal(*model(parts).numpy())
    bottom = model.get_layer("encoder").get_layer("level_2_conv_2")
    bottom.set_weights([np.zeros_like(bottom.kernel), np.ones_like(bottom.bias)])
    np.testing.assert_array_equal(*model(parts).numpy())
    consumers = [layer for layer in model.layers if layer.name not in ("part", "encoder")]
    assert all(layer.name.startswith("decoder_") for layer in consumers)
    assert not any("concat" in layer.name for layer in consumers)
    (only_input,) = model.inputs
    assert [node.operation.name for node in only_input._keras_history.operation._outbound_nodes] == ["encoder"]


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_other_encoders_lead_back_to_the_image(name):
    algorithm = Parts2Whole((32, 32, 16, 1), normalization="group", dropout=0.0)
    encoder = registry.encoder(name)(algorithm.encoder_shape, width_multiplier=1 / 32, normalization="group")
    assert algorithm.make_model(encoder, seed=0).output_shape == (None, 32, 32, 16, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_by_hand(shape):
    algorithm = Parts2Whole(shape)
    _, targets = examples(algorithm, wholes(3, shape), 3)
    guess = np.random.default_rng(0).uniform(size=(3, *shape)).astype(np.float32)
    loss = algorithm.loss(targets, guess).numpy()
    expected = [np.mean((target[..., :-1] - image) ** 2) for target, image in zip(targets, guess, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert loss.shape == (3,)
    assert loss.dtype == np.float32
    np.testing.assert_array_equal(algorithm.loss(targets, targets[..., :-1]), np.zeros(3))
    assert algorithm.loss(targets, tf.cast(guess, "bfloat16")).dtype == "float32"


def test_the_mean_images_error_is_the_variance_of_the_wholes():
    algorithm = Parts2Whole((32, 24, 2))
    _, targets = examples(algorithm, wholes(5, (32, 24, 2)), 5)
    (metric,) = algorithm.metrics()
    metric.update_state(targets, None)
    expected = targets[..., :-1].var(axis=0, ddof=1).mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.update_state(targets[:1], None)  # tells nothing
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_the_mean_images_error_does_not_depend_on_the_batch():
    """It estimates the error of the mean of all scans: on average the same from small batches."""
    algorithm, images = Parts2Whole((8, 8, 1)), np.random.default_rng(0).uniform(size=(120, 8, 8, 2))
    means = []
    for batch in (2, 3, 30):
        (metric,) = algorithm.metrics()
        for start in range(0, 120, batch):
            metric.update_state(images[start : start + batch].astype(np.float32), None)
        means.append(float(metric.result()))
    np.testing.assert_allclose(means, 1 / 12, rtol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_description_shows_the_whole_the_place_and_the_part(shape):
    algorithm = Parts2Whole(shape)
    parts, targets = examples(algorithm, wholes(1, shape), 1)
    whole, place, part = algorithm.describe(parts[0], targets[0])
    np.testing.assert_array_equal(whole.image, targets[0, ..., :-1])
    np.testing.assert_array_equal(part.image, parts[0])
    inside = targets[0, ..., -1] == 1
    np.testing.assert_array_equal(place.image[inside], whole.image[inside])
    np.testing.assert_allclose(place.image[~inside], whole.image[~inside] / 3, rtol=1e-6)
    assert f"{inside.mean():.0%}" in place.title


def test_the_encoder_moves_into_a_unet_with_skips(tmp_path):
    shape = (16, 16, 8, 1)
    algorithm = Parts2Whole(shape)
    model = make_model(algorithm)
    model(wholes(4, shape), training=True)  # moves the statistics of its normalizations
    models.save_model(model.get_layer("encoder"), tmp_path / "encoder.keras")

    encoder = unet((32, 32, 16, 1), **TINY, seed=7)
    finetuned = unet_decoder(encoder, num_classes=3, seed=8)
    initial = {layer.name: layer.get_weights() for layer in finetuned.layers if layer.name.startswith("decoder_")}
    report = transfer.load_encoder(encoder, tmp_path / "encoder.keras")
    assert not (report.left or report.unused or report.adapted)
    for layer in model.get_layer("encoder").layers:
        for a, b in zip(layer.get_weights(), finetuned.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert "decoder_level_0_concat" in initial
    pretrained = {layer.name: layer.get_weights() for layer in model.layers}
    for name, weights in initial.items():
        for before, now in zip(weights, finetuned.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(before, now)
    kernels = ("decoder_level_0_up", "decoder_level_1_up")
    assert not any(np.array_equal(pretrained[name][0], initial[name][0]) for name in kernels)


@pytest.mark.slow
def test_a_few_hundred_steps_beat_the_mean_image():
    shape = (16, 16, 8, 1)
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, *shape)), (0, 2, 2, 2, 0))
    noise -= noise.min(axis=(1, 2, 3, 4), keepdims=True)
    images = (noise / noise.max(axis=(1, 2, 3, 4), keepdims=True)).astype(np.float32)
    algorithm = Parts2Whole(shape)
    model = make_model(algorithm, enc_filters=8)
    parts, targets = examples(algorithm, images, 1240)  # the last 40 are other parts
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=algorithm.loss)
    model.fit(parts[:1200], targets[:1200], batch_size=4, epochs=1, shuffle=False, verbose=0)
    errors = algorithm.loss(targets[1200:], model(parts[1200:], training=False))
    assert np.mean(errors) < 0.8 * np.mean((images - images.mean(axis=0)) ** 2)


KEYS = {"algorithm": "parts2whole", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32}


def load(folder, **keys):
    path = folder / "experiment.json"
    path.write_text(json.dumps(KEYS | keys))
    return load_experiment("train", path)


def test_keys_reach_the_task_and_the_encoder(tmp_path):
    experiment = load(tmp_path, part_volume=[0.1, 0.2], max_aspect=1.0, normalization="group", dropout=0.1)
    task, encoder = (
        build.make_algorithm(experiment),
        build.options_for(experiment, registry.encoder(experiment.encoder_name)),
    )
    assert (task.parts.volume, task.parts.max_aspect) == ((0.1, 0.2), 1.0)
    assert (task.normalization, task.dropout) == (encoder["normalization"], encoder["dropout"]) == ("group", 0.1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data_dim": 36}, "leaves a rest that a decoder cannot restore; use 32x32x32 or 64x64x64"),
        ({"data_dim": 40, "encoder_architecture": "vgg11"}, "leaves a rest that a decoder cannot restore"),
        ({"dataset_name": "images", "encoder_architecture": "densenet121"}, "has no maps that a decoder"),
        ({"part_volume": [0.3, 0.2]}, "part_volume: expected .least, largest., received .0.3, 0.2."),
        ({"part_volume": [0.0, 0.2]}, "part_volume.0: input should be greater than 0"),
        ({"max_aspect": 0.5}, "max_aspect: input should be greater than or equal to 1"),
    ],
)
def test_mistakes_are_found_when_the_file_is_loaded(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **keys)
