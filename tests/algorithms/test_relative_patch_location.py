"""Relative patch location."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.relative_patch_location import RelativePatchLocation
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training.first_step import make_variables

SHAPES = [(14, 13, 2), (13, 12, 15, 3)]
SMALL = {"patch_jitter": 1, "head_units": (32,), "dropout_rate": 0.1}


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


def check_classes(algorithm, image, inputs, labels):
    """Every patch is cut from the image of coordinates; the classes number the offsets from the centre in order."""
    n, rank = algorithm.patches_per_side, algorithm.rank
    origins = inputs[(slice(None), slice(None), *[0] * rank)].astype(int) - 1
    for origin, patch in zip(
        origins.reshape(-1, rank)[:50], inputs.reshape(-1, *algorithm.encoder_shape), strict=False
    ):
        place = tuple(
            slice(start, start + size) for start, size in zip(origin, algorithm.grid.patch_shape, strict=True)
        )
        np.testing.assert_array_equal(patch, image[place])
    offsets = origins // algorithm.grid.cell_shape - n // 2
    assert not offsets[:, 0].any()  # the first is the centre
    found = set(zip(labels.ravel().tolist(), map(tuple, offsets[:, 1:].reshape(-1, rank).tolist()), strict=True))
    around = [offset for offset in itertools.product(range(-(n // 2), n // 2 + 1), repeat=rank) if any(offset)]
    assert found == set(enumerate(around))


@pytest.mark.parametrize(("rank", "n", "classes"), [(2, 3, 8), (3, 3, 26), (2, 5, 24)])
def test_classes_are_the_cells_around_the_centre(rank, n, classes):
    image = coordinates((3 * n + 1, 3 * n, 4 * n)[:rank])
    algorithm = RelativePatchLocation(image.shape, patches_per_side=n, patch_jitter=1)
    inputs, labels = repeated(algorithm, image, 25 * classes)
    assert labels.shape == (25 * classes, 4)
    check_classes(algorithm, image, inputs, labels)
    assert np.bincount(labels[:, 0], minlength=classes).min() > 8


def test_classes_of_five_patches_per_side_in_3d():
    image = coordinates((15, 16, 15))
    algorithm = RelativePatchLocation(image.shape, patches_per_side=5, patch_jitter=1, queries_per_image=124)
    check_classes(algorithm, image, *repeated(algorithm, image, 3))


@pytest.mark.parametrize("queries", [1, 3, 8])
def test_queries_are_distinct_and_every_set_of_them_occurs_alike(queries):
    algorithm = RelativePatchLocation((9, 9, 1), queries_per_image=queries)
    _, labels = repeated(algorithm, volumes(1, (9, 9, 1))[0], 800)
    assert labels.shape == (800, queries)
    assert labels.dtype == np.int32
    assert all(len(set(row)) == queries for row in labels.tolist())
    for column in labels.T:
        counts = np.bincount(column, minlength=8)
        assert 60 < counts.min() <= counts.max() < 140


def test_same_seed_same_example():
    algorithm = RelativePatchLocation((12, 12, 12, 1), patch_jitter=1, min_foreground=0.3, queries_per_image=2)
    images = volumes(4, (12, 12, 12, 1))
    first, second = (list(examples(algorithm, images, seed=3)) for _ in range(2))
    eager = [algorithm.make_example(tf.constant(image), tf.constant([i, 3])) for i, image in enumerate(images)]
    for one, two, three in zip(first, second, eager, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)
    assert any((a[1] != b[1]).numpy().any() for a, b in zip(first, examples(algorithm, images, seed=4), strict=True))


@pytest.mark.parametrize("corner", [(0, 0), (4, 4)])
def test_a_scan_counts_where_every_patch_is_filled_whether_it_is_asked_about_or_not(corner):
    """Also where the queries show nothing of it: which cells those are would tell of the answer too."""
    image = volumes(1, (12, 12, 2))[0]
    image[corner[0] : corner[0] + 2, corner[1] : corner[1] + 4] *= 0.05  # half of a cell, in both channels
    options = {"patch_gap": 0, "patch_jitter": 0, "queries_per_image": 2}

    def answers(min_foreground):
        inputs, labels = repeated(
            RelativePatchLocation((12, 12, 2), min_foreground=min_foreground, **options), image, 300
        )
        assert labels.dtype == np.int32
        return inputs, {tuple(sorted(row)) for row in labels.tolist()}

    shown, pairs = answers(0.0)
    assert pairs == set(itertools.combinations(range(8), 2))
    for min_foreground, expected in ((0.5, pairs), (0.51, {(-1, -1)}), (1.0, {(-1, -1)})):
        inputs, received = answers(min_foreground)
        assert received == expected
        np.testing.assert_array_equal(inputs, shown)
    assert RelativePatchLocation((12, 12, 2)).min_foreground == 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_normalization_standardizes_each_patch(shape):
    plain, normalized = (
        RelativePatchLocation(shape, patch_jitter=1, queries_per_image=4, patch_normalization=flag)
        for flag in (False, True)
    )
    image = volumes(1, shape)[0] * np.linspace(0.1, 1, shape[-1], dtype=np.float32)
    (raw, labels), (inputs, same) = (repeated(algorithm, image, 3) for algorithm in (plain, normalized))
    axes = tuple(range(2, 2 + plain.rank))
    expected = (raw - raw.mean(axes, keepdims=True)) / raw.std(axes, keepdims=True)
    np.testing.assert_allclose(inputs, expected, atol=1e-4)
    np.testing.assert_array_equal(labels, same)


@pytest.mark.parametrize("queries", [1, 4])
def test_each_patch_is_encoded_once(queries):
    batches = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            batches.append(x.shape[0])
            return x

    algorithm = RelativePatchLocation((12, 12, 1), queries_per_image=queries, **SMALL)
    image = keras.Input(algorithm.encoder_shape)
    model = algorithm.make_model(keras.Model(image, Spy()(image), name="encoder"), seed=0)
    batches.clear()
    assert model(np.zeros((5, queries + 1, *algorithm.encoder_shape), np.float32)).shape == (5, queries, 8)
    assert batches == [5 * (queries + 1)]


@pytest.mark.parametrize("normalization", [None, "layer", "none", "batch"])
def test_a_pair_is_the_centre_and_its_query(normalization):
    """With the identity for an encoder and one Dense layer the logits can be written down.

    What the patches shown have in common is taken off, unless a head that normalizes over the batch does it.
    """
    options = {"patch_gap": 0, "patch_jitter": 0, "queries_per_image": 3, "top_architecture": "softmax"}
    algorithm = RelativePatchLocation((9, 9, 1), **options, normalization=normalization)
    image = keras.Input((3, 3, 1))
    model = algorithm.make_model(keras.Model(image, keras.layers.Identity()(image), name="encoder"), seed=0)
    inputs = volumes(2, (4, 3, 3, 1))
    kernel, bias = (weight.numpy() for weight in model.get_layer("head_logits").weights)
    flat = inputs.reshape(2, 4, 9)
    if normalization != "batch":
        flat = (flat - flat.mean(axis=1, keepdims=True)) / np.sqrt(flat.var(axis=1, keepdims=True) + 1e-3)
    pairs = np.concatenate([np.repeat(flat[:, :1], 3, axis=1), flat[:, 1:]], axis=-1)
    np.testing.assert_allclose(model(inputs), pairs @ kernel + bias, atol=1e-5)


def test_loss_is_the_mean_over_queries():
    algorithm = RelativePatchLocation((9, 9, 1), patch_jitter=0, queries_per_image=3)
    logits = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    labels = np.array([[0, 3, 7], [2, 1, 5]])
    logarithms = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logarithms, labels[..., None], -1)[..., 0].mean(1)
    np.testing.assert_allclose(algorithm.loss(labels, logits), expected, rtol=1e-5)
    accuracy, complete = algorithm.metrics()
    accuracy.update_state(labels, logits)
    assert float(accuracy.result()) == pytest.approx((logits.argmax(-1) == labels).mean())
    np.testing.assert_array_equal(complete(labels, logits), 1)


def test_a_scan_that_does_not_count_costs_nothing_and_no_accuracy_sees_it():
    algorithm = RelativePatchLocation((9, 9, 1), queries_per_image=3)
    logits = np.random.default_rng(0).normal(size=(3, 3, 8)).astype(np.float32)
    labels = np.array([[0, 3, 7], [-1, -1, -1], [2, 1, 5]])
    logits[0, [0, 1], [0, 3]] += 9  # two of three right
    logits[2] = 9 * np.eye(8, dtype=np.float32)[labels[2]]  # three
    losses = algorithm.loss(labels, logits).numpy()
    kept = [0, 2]
    np.testing.assert_allclose(losses[kept], algorithm.loss(labels[kept], logits[kept]), rtol=1e-6)
    assert losses[1] == 0
    accuracy, complete = algorithm.metrics()
    accuracy.update_state(labels, logits)
    assert float(accuracy.result()) == pytest.approx(5 / 6)
    np.testing.assert_array_equal(complete(labels, logits), [1, 0, 1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("queries", "top_architecture"), [(1, "big_fully"), (4, "big_fully"), (2, "softmax")])
def test_training_starts_at_chance_and_learns(shape, queries, top_architecture):
    algorithm = RelativePatchLocation(shape, queries_per_image=queries, top_architecture=top_architecture, **SMALL)
    ramp = coordinates(shape[:-1]) / np.array(shape[:-1], np.float32)
    inputs, labels = next(iter(examples(algorithm, 0.9 * ramp + 0.1 * volumes(40, shape)).batch(40)))
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    values = algorithm.loss(labels, model(inputs, training=False))
    assert values.shape == (40,)
    assert float(tf.reduce_mean(values)) == pytest.approx(np.log({2: 8, 3: 26}[algorithm.rank]), rel=0.05)

    model.compile(keras.optimizers.Adam(2e-2), loss=algorithm.loss, metrics=algorithm.metrics())
    make_variables(model, tf.data.Dataset.from_tensors((inputs, labels)))
    steps = {"big_fully": 15, "softmax": 60}[top_architecture]  # a single layer is slow to turn slopes into cells
    history = [model.train_on_batch(inputs, labels, return_dict=True) for _ in range(steps)]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert set(history[0]) == {"loss", "accuracy", "complete"}
    assert history[0]["complete"] == 1


def test_parameter_count_is_the_predecessors():
    algorithm = RelativePatchLocation((128, 128, 128, 1), patch_gap=0, patch_jitter=3, normalization="batch")
    assert algorithm.encoder_shape == (39, 39, 39, 1)
    encoder = unet(algorithm.encoder_shape, enc_filters=16, unet_preset="upstream")
    assert algorithm.make_model(encoder, seed=0).count_params() == 6_725_162
    assert RelativePatchLocation((128, 128, 128, 1)).encoder_shape == (36, 36, 36, 1)  # by default 3 less, the gap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches_per_side": 4}, "patches_per_side: an odd number from 3 on, received 4"),
        ({"patch_jitter": 60}, "patches_per_side, patch_jitter, patch_gap, data_dim"),
        ({"queries_per_image": 27}, "queries_per_image: at most 26.*received 27"),
    ],
)
def test_impossible_tasks_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        RelativePatchLocation((128, 128, 128, 1), **options)


def test_description_names_the_cells():
    algorithm = RelativePatchLocation((9, 9, 9, 1), queries_per_image=20)
    inputs, targets = algorithm.make_example(tf.constant(volumes(1, (9, 9, 9, 1))[0]), tf.constant([0, 0]))
    panels = algorithm.describe(inputs, targets)
    assert len(panels) == 9
    assert panels[0].title == "centre (1, 1, 1)"
    label = int(targets[2])
    raster = label + (label >= 13)
    assert panels[3].title == f"query {(raster // 9, raster // 3 % 3, raster % 3)}, class {label}"
    for panel, patch in zip(panels, inputs, strict=False):
        np.testing.assert_array_equal(panel.image, patch)
    assert algorithm.name == "relative_patch_location"
    unfilled = algorithm.describe(inputs, np.full(20, -1))
    assert [panel.title for panel in unfilled[1:]] == ["query that does not count"] * 8
