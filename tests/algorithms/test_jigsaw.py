"""Jigsaw puzzles."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import pdist

from self_supervised_3d_tasks.algorithms.jigsaw import Jigsaw
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training.first_step import make_variables

SHAPES = [(14, 13, 2), (13, 12, 15, 3)]
GRIDS = [(rank, n) for rank in (2, 3) for n in (2, 3, 4)]
SMALL = {"patch_jitter": 1, "head_units": (32,), "dropout_rate": 0.1}
PLAIN = {"patch_gap": 0, "patch_jitter": 0}


def tiny_encoder(shape):
    rank = len(shape) - 1
    image = keras.Input(shape)
    x = layers.convolution(rank, 4, 3, activation="relu", seed=0, name="convolution")(image)
    return keras.Model(image, layers.max_pool(rank, 2, name="pool")(x), name="encoder")


def coordinates(spatial):
    """An image whose channels are the indices of the voxel, counted from 1: no voxel is background."""
    return np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), axis=-1).astype(np.float32) + 1


def volumes(number, shape, seed=0):
    """Noise above the background: every patch is filled."""
    return np.random.default_rng(seed).uniform(0.1, 1, size=(number, *shape)).astype(np.float32)


def examples(algorithm, images, seed=0):
    dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it
    return dataset.map(lambda i, image: make_example(image, tf.stack([tf.cast(i, tf.int32), seed])))


def repeated(algorithm, image, number):
    """Examples of many seeds from one image: inputs and targets as arrays."""
    return next(iter(examples(algorithm, np.stack([image] * number)).batch(number).as_numpy_iterator()))


@pytest.mark.parametrize(("rank", "n"), GRIDS)
def test_patch_i_comes_from_the_cell_that_the_permutation_names(rank, n):
    image = coordinates((4 * n + 1, 3 * n, 4 * n)[:rank])
    algorithm = Jigsaw(image.shape, patches_per_side=n, patch_jitter=1)
    assert algorithm.grid.gaps == (1,) * rank
    inputs, labels = repeated(algorithm, image, 40)
    assert inputs.shape == (40, n**rank, *algorithm.encoder_shape)
    cells = np.array(algorithm.grid.cells())
    for presented, label in zip(inputs, labels, strict=True):
        origins = presented[(slice(None), *[0] * rank)].astype(int) - 1
        order = algorithm.permutations[label]
        np.testing.assert_array_equal(origins // algorithm.grid.cell_shape, cells[order])
        restored = origins[np.argsort(order)]
        np.testing.assert_array_equal(restored // algorithm.grid.cell_shape, cells)
        for origin, patch in zip(origins, presented, strict=True):
            shape = algorithm.grid.patch_shape
            place = tuple(slice(start, start + size) for start, size in zip(origin, shape, strict=True))
            np.testing.assert_array_equal(patch, image[place])


@pytest.mark.parametrize(("rank", "n"), GRIDS)
def test_unpermuting_restores_the_image(rank, n):
    """Without gap and jitter the assembled patches are the image: shown by the preview's pictures."""
    shape = (*(2 * n, 3 * n, n)[:rank], 2)
    algorithm = Jigsaw(shape, patches_per_side=n, **PLAIN)
    image = volumes(1, shape)[0]
    inputs, label = algorithm.make_example(tf.constant(image), tf.constant([0, 1]))
    presented, restored, *tiles = algorithm.describe(inputs, label)
    np.testing.assert_array_equal(restored.image, image)
    assert presented.image.shape == shape
    assert not np.array_equal(presented.image, image)
    assert presented.title == f"class {int(label)}: presented"
    assert 2 <= len(tiles) <= 7
    corner = tuple(slice(size) for size in algorithm.grid.patch_shape)
    np.testing.assert_array_equal(presented.image[corner], inputs[0])


def test_description_tells_where_the_patches_come_from():
    algorithm = Jigsaw((9, 9, 9, 1), patch_jitter=0, num_permutations=5)
    inputs, _ = algorithm.make_example(tf.constant(volumes(1, (9, 9, 9, 1))[0]), tf.constant([0, 0]))
    tiles = algorithm.describe(inputs, np.int32(3))[2:]
    places = [1, 4, 7, 10, 13, 16, 19]  # the middle of the last axis
    origins = [int(algorithm.permutations[3][place]) for place in places]
    assert [tile.title for tile in tiles] == [f"from {(i // 9, i // 3 % 3, i % 3)}" for i in origins]
    for tile, place in zip(tiles, places, strict=True):
        np.testing.assert_array_equal(tile.image, inputs[place])
    assert algorithm.name == "jigsaw"


@pytest.mark.parametrize(
    ("rank", "n", "number", "distance"),
    [(2, 2, 24, 2), (2, 3, 100, 6), (2, 4, 100, 12), (3, 2, 1000, 4), (3, 3, 1000, 23)],
)
def test_number_of_permutations_by_default(rank, n, number, distance):
    algorithm = Jigsaw((16,) * rank + (1,), patches_per_side=n)
    assert algorithm.num_permutations == number
    assert algorithm.permutations.shape == (number, n**rank)
    assert pdist(algorithm.permutations, "hamming").min() * algorithm.num_patches >= distance


def test_permutations_are_chosen_when_needed_by_their_own_seed_and_kept():
    algorithm = Jigsaw((12, 12, 1), num_permutations=7, permutation_seed=2)
    assert "permutations" not in vars(algorithm)
    settings = json.loads(json.dumps(algorithm.settings()))
    np.testing.assert_array_equal(settings["permutations"], algorithm.permutations)
    np.testing.assert_array_equal(
        Jigsaw((15, 15, 1), num_permutations=7, permutation_seed=2).permutations, settings["permutations"]
    )
    assert Jigsaw((12, 12, 1), num_permutations=7).settings() != settings


def test_every_class_is_drawn_alike():
    algorithm = Jigsaw((8, 8, 1), patches_per_side=2, patch_jitter=0)
    assert algorithm.encoder_shape == (3, 3, 1)  # the gap is 1
    _, labels = repeated(algorithm, volumes(1, (8, 8, 1))[0], 2400)
    assert labels.dtype == np.int32
    counts = np.bincount(labels, minlength=24)
    assert len(counts) == 24
    assert 60 < counts.min() <= counts.max() < 140


def test_same_seed_same_example():
    algorithm = Jigsaw((12, 12, 12, 1), patch_jitter=1, min_foreground=0.3, patch_normalization=True)
    images = volumes(4, (12, 12, 12, 1))
    first, second = (list(examples(algorithm, images, seed=3)) for _ in range(2))
    eager = [algorithm.make_example(tf.constant(image), tf.constant([i, 3])) for i, image in enumerate(images)]
    for one, two, three in zip(first, second, eager, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(a, c, atol=1e-5)
    assert any(int(a[1]) != int(b[1]) for a, b in zip(first, examples(algorithm, images, seed=4), strict=True))


@pytest.mark.parametrize("normalization", [False, True])
def test_a_scan_with_an_unfilled_patch_is_shown_as_it_is_and_does_not_count(normalization):
    image = volumes(1, (12, 12, 2))[0]
    image[8:10, 8:] *= 0.05  # half of the last patch is noise of the background, in both channels
    image[:4, :4, 1] = 0  # the other channel fills the first
    options = PLAIN | {"patch_normalization": normalization, "num_permutations": 20}

    def example(min_foreground, **changes):
        algorithm = Jigsaw((12, 12, 2), **options | changes, min_foreground=min_foreground)
        inputs, label = algorithm.make_example(tf.constant(image), tf.constant([0, 0]))
        assert label.dtype == tf.int32
        return inputs.numpy(), int(label)

    shown, label = example(0.0)
    assert 0 <= label < 20
    for min_foreground, expected in ((0.5, label), (0.51, -1), (1.0, -1)):
        inputs, received = example(min_foreground)
        assert received == expected
        np.testing.assert_array_equal(inputs, shown)
    assert Jigsaw((12, 12, 2)).min_foreground == 0.95


def test_description_of_a_scan_that_does_not_count_shows_no_solution():
    algorithm = Jigsaw((12, 12, 1), num_permutations=5)
    inputs, label = algorithm.make_example(tf.zeros((12, 12, 1)), tf.constant([0, 0]))
    (panel,) = algorithm.describe(inputs.numpy(), label.numpy())
    assert panel.title == "does not count: presented"
    assert panel.image.shape == (9, 9, 1)  # of nine patches of 3 x 3


def test_normalization_standardizes_each_patch():
    shape = SHAPES[1]
    image = volumes(1, shape)[0] * np.linspace(0.1, 1, 3, dtype=np.float32)
    options = {"patch_jitter": 1, "num_permutations": 10}
    raw, _ = repeated(Jigsaw(shape, **options), image, 3)
    inputs, _ = repeated(Jigsaw(shape, **options, patch_normalization=True), image, 3)
    expected = (raw - raw.mean((2, 3, 4), keepdims=True)) / raw.std((2, 3, 4), keepdims=True)
    np.testing.assert_allclose(inputs, expected, atol=1e-4)


@pytest.mark.parametrize("normalization", [None, "layer", "none", "batch"])
def test_all_patches_are_encoded_in_one_call_and_joined_in_the_order_presented(normalization):
    """With the identity for an encoder and one Dense layer the logits can be written down.

    What the patches have in common is taken off, unless a head that normalizes over the batch does it.
    """
    batches = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            batches.append(x.shape[0])
            return x

    algorithm = Jigsaw((9, 9, 1), **PLAIN, num_permutations=6, top_architecture="softmax", normalization=normalization)
    image = keras.Input((3, 3, 1))
    model = algorithm.make_model(keras.Model(image, Spy()(image), name="encoder"), seed=0)
    batches.clear()
    inputs = volumes(5, (9, 3, 3, 1))
    logits = model(inputs)
    assert batches == [45]
    kernel, bias = (weight.numpy() for weight in model.get_layer("head_logits").weights)
    codes = inputs.reshape(5, 9, 9)
    if normalization != "batch":
        codes = (codes - codes.mean(axis=1, keepdims=True)) / np.sqrt(codes.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(logits, codes.reshape(5, 81) @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("top_architecture", ["big_fully", "softmax"])
def test_training_starts_at_chance_and_learns(shape, top_architecture):
    algorithm = Jigsaw(shape, top_architecture=top_architecture, **SMALL)
    ramp = coordinates(shape[:-1]) / np.array(shape[:-1], np.float32)  # above 0.05 everywhere
    inputs, labels = next(iter(examples(algorithm, 0.9 * ramp + 0.1 * volumes(40, shape)).batch(40)))
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    values = algorithm.loss(labels, model(inputs, training=False))
    assert values.shape == (40,)
    assert float(tf.reduce_mean(values)) == pytest.approx(np.log({2: 100, 3: 1000}[algorithm.rank]), rel=0.05)

    model.compile(keras.optimizers.Adam(1e-2), loss=algorithm.loss, metrics=algorithm.metrics())
    make_variables(model, tf.data.Dataset.from_tensors((inputs, labels)))
    history = [model.train_on_batch(inputs, labels, return_dict=True) for _ in range(15)]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert set(history[0]) == {"loss", "accuracy", "complete"}
    assert history[0]["complete"] == 1


def test_parameter_count_is_the_predecessors():
    options = {"num_permutations": 100, "patch_gap": 0, "patch_jitter": 3, "normalization": "batch"}
    algorithm = Jigsaw((128, 128, 128, 1), **options)
    assert algorithm.encoder_shape == (39, 39, 39, 1)
    encoder = unet(algorithm.encoder_shape, enc_filters=16, unet_preset="upstream")
    assert algorithm.make_model(encoder, seed=0).count_params() == 19_908_212
    assert Jigsaw((128, 128, 128, 1)).encoder_shape == (36, 36, 36, 1)  # by default 3 voxels less, the gap


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((128, 128, 128, 1), {"patch_jitter": 60}, "patches_per_side, patch_jitter, patch_gap, data_dim"),
        ((128, 128, 128, 1), {"patch_gap": 42, "patch_jitter": 0}, "patches_per_side, patch_jitter, patch_gap"),
        ((32, 32, 1), {"patches_per_side": 2, "num_permutations": 25}, "num_permutations: at most 24.*received 25"),
        ((32, 32, 1), {"num_permutations": 20_001}, "num_permutations: at most 20000"),
    ],
)
def test_impossible_tasks_are_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        Jigsaw(shape, **options)
