"""Rubik's cube recovery."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import pdist

from self_supervised_3d_tasks.algorithms.rubiks_cube import RubiksCube
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.training.first_step import make_variables

# The axes that a turn reverses.
AXES = {"half_turn": (0, 1), "horizontal": (1, 2), "vertical": (0, 1)}
NAMES = {2: ["half_turn"], 3: ["horizontal", "vertical"]}
SHAPES = [(13, 16, 2), (12, 13, 18, 3)]
ROTATIONS = ["exclusive", "independent", "none"]
SMALL = {"head_units": (16,), "dropout_rate": 0.1, "code_size": 8}


def tiny_encoder(shape):
    rank = len(shape) - 1
    image = keras.Input(shape)
    x = layers.convolution(rank, 4, 3, activation="relu", seed=0, name="convolution")(image)
    return keras.Model(image, layers.max_pool(rank, 2, name="pool")(x), name="encoder")


def coordinates(spatial):
    """An image whose channels are the indices of the voxel, counted from 1: no voxel is background."""
    return np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), axis=-1).astype(np.float32) + 1


def volumes(number, shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, size=(number, *shape)).astype(np.float32)


def examples(algorithm, images, seed=0):
    dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it
    return dataset.map(lambda i, image: make_example(image, tf.stack([tf.cast(i, tf.int32), seed])))


def repeated(algorithm, image, number):
    """Examples of many seeds from one image: inputs and targets as arrays."""
    return next(iter(examples(algorithm, np.stack([image] * number)).batch(number).as_numpy_iterator()))


def split(algorithm, targets):
    """Class ``(examples,)``, turns ``(examples, turns, cubes)`` and shown ``(examples, cubes)`` of target vectors."""
    cubes, turns = algorithm.num_patches, len(algorithm.turns)
    assert targets.shape[1] == 1 + (turns + 1) * cubes
    return targets[:, 0], targets[:, 1:-cubes].reshape(len(targets), turns, cubes), targets[:, -cubes:]


def solved(algorithm, inputs, targets):
    """Cubes ``(examples, cubes, *cube, channels)`` in raster order and turned back, by numpy alone."""
    results = []
    for presented, label, turns in zip(inputs, *split(algorithm, targets)[:2], strict=True):
        cubes = [None] * algorithm.num_patches
        for slot, cube in enumerate(presented):
            for name, flags in zip(algorithm.turns, turns, strict=True):
                cube = np.flip(cube, AXES[name]) if flags[slot] else cube
            cubes[algorithm.permutations[label][slot]] = cube
        results.append(cubes)
    return np.array(results)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize(
    ("spatial", "options"),
    [
        ((18, 17), {"patch_gap": 2, "patch_jitter": 1}),
        ((15, 22), {"patches_per_side": (2, 3), "patch_gap": (3, 0), "patch_jitter": (0, 2)}),
        ((14, 13, 17), {"patch_gap": 1, "patch_jitter": 2}),
        ((22, 20, 9), {"patches_per_side": (2, 2, 1), "patch_gap": (3, 2, 4), "patch_jitter": (1, 0, 2)}),
        ((19, 12, 13), {"patches_per_side": (3, 1, 2), "patch_gap": (2, 0, 1), "patch_jitter": 1}),
    ],
)
def test_undone_cubes_are_those_of_the_scan_and_keep_their_gap(spatial, options, rotation):
    image = coordinates(spatial)
    algorithm = RubiksCube(image.shape, cube_rotation=rotation, **options)
    grid, rank = algorithm.grid, algorithm.rank
    inputs, targets = repeated(algorithm, image, 40)
    assert inputs.shape == (40, algorithm.num_patches, *algorithm.encoder_shape)
    cubes = solved(algorithm, inputs, targets)
    origins = (cubes[(slice(None), slice(None), *[0] * rank)] - 1).astype(int)
    np.testing.assert_array_equal(origins // grid.cell_shape, np.broadcast_to(grid.cells(), origins.shape))
    for origin, cube in zip(origins.reshape(-1, rank), cubes.reshape(-1, *algorithm.encoder_shape), strict=True):
        place = tuple(slice(start, start + size) for start, size in zip(origin, grid.patch_shape, strict=True))
        np.testing.assert_array_equal(cube, image[place])  # equal shapes too: it lies inside the scan
    origins = origins.reshape(40, *grid.sides, rank)
    for axis, (gap, jitter) in enumerate(zip(grid.gaps, grid.jitters, strict=True)):
        distances = np.diff(origins[..., axis], axis=1 + axis) - grid.patch_shape[axis]
        assert ((distances >= gap) & (distances <= gap + 2 * jitter)).all()


@pytest.mark.parametrize("shape", [(12, 8, 2), (8, 6, 4, 2)])
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_description_shows_the_puzzle_and_its_solution(shape, rotation):
    """Without gap and jitter the solution is the scan."""
    algorithm = RubiksCube(shape, cube_rotation=rotation, patch_gap=0, patch_jitter=0)
    image = volumes(1, shape)[0]
    inputs, targets = algorithm.make_example(tf.constant(image), tf.constant([0, 1]))
    presented, solution, *tiles = algorithm.describe(inputs, targets)
    np.testing.assert_array_equal(solution.image, image)
    assert presented.title == f"class {int(targets[0])}: presented"
    corner = tuple(slice(size) for size in algorithm.grid.patch_shape)
    np.testing.assert_array_equal(presented.image[corner], inputs[0])
    assert not np.array_equal(presented.image, image)
    assert len(tiles) == 4


def test_description_tells_where_the_cubes_come_from_and_what_was_done():
    algorithm = RubiksCube((8, 8, 8, 1), cube_rotation="independent")
    inputs, _ = algorithm.make_example(tf.constant(volumes(1, (8, 8, 8, 1))[0]), tf.constant([0, 0]))
    targets = np.ones(25, np.int32)
    targets[0] = 3
    targets[1:17] = [0, 1, 0, 0, 0, 0, 0, 1, *[0, 0, 0, 1, 0, 0, 0, 1]]
    targets[17 + 5] = 0
    titles = [panel.title for panel in algorithm.describe(inputs, targets)[2:]]
    cells = [algorithm.grid.cells()[algorithm.permutations[3][slot]] for slot in (1, 3, 5, 7)]  # of the upper layer
    words = ["horizontal", "vertical", "not turned, blank", "horizontal and vertical"]
    assert titles == [f"from {cell}, {word}" for cell, word in zip(cells, words, strict=True)]
    plain = RubiksCube((8, 8, 1), cube_rotation="none")
    panels = plain.describe(np.zeros((4, *plain.encoder_shape)), np.array([0, 1, 1, 1, 1]))
    assert panels[2].title == f"from {plain.grid.cells()[plain.permutations[0][0]]}"


@pytest.mark.parametrize("shape", [(16, 16, 3, 1), (18, 16, 5, 2)])
def test_turns_of_thin_cubes_keep_their_shape_and_undo_and_commute(shape):
    algorithm = RubiksCube(shape, patches_per_side=(2, 2, 1), patch_gap=0, patch_jitter=0)
    image = volumes(1, (4, *algorithm.encoder_shape))[0]
    flags = {name: tf.constant([[row == name] * 4 for row in NAMES[3]]) for name in NAMES[3]}
    turned = {name: algorithm._turn(tf.constant(image), flags[name]) for name in NAMES[3]}
    for name, axes in AXES.items():
        if name in turned:
            assert turned[name].shape == image.shape
            np.testing.assert_array_equal(turned[name], np.flip(image, [1 + axis for axis in axes]))
            np.testing.assert_array_equal(turned[name], np.rot90(image, 2, [1 + axis for axis in axes]))
            np.testing.assert_array_equal(algorithm._turn(turned[name], flags[name]), image)
    one_way = algorithm._turn(turned["horizontal"], flags["vertical"])
    np.testing.assert_array_equal(one_way, algorithm._turn(turned["vertical"], flags["horizontal"]))
    np.testing.assert_array_equal(one_way, np.rot90(image, 2, (1, 3)))  # half a turn about the axis between
    assert algorithm.encoder_shape[:3] == (*[size // 2 for size in shape[:2]], shape[2])


@pytest.mark.parametrize(
    ("shape", "rotation", "shares"),
    [
        ((6, 6, 1), "exclusive", {(0,): 1 / 2, (1,): 1 / 2}),
        ((6, 6, 1), "independent", {(0,): 1 / 2, (1,): 1 / 2}),
        ((4, 4, 4, 1), "exclusive", {(0, 0): 1 / 3, (1, 0): 1 / 3, (0, 1): 1 / 3}),
        ((4, 4, 4, 1), "independent", {(0, 0): 1 / 4, (1, 0): 1 / 4, (0, 1): 1 / 4, (1, 1): 1 / 4}),
    ],
)
def test_turns_and_classes_occur_as_often_as_they_should(shape, rotation, shares):
    algorithm = RubiksCube(shape, cube_rotation=rotation, num_permutations=20)
    _, targets = repeated(algorithm, volumes(1, shape)[0], 1200)
    assert targets.dtype == np.int32
    labels, turns, shown = split(algorithm, targets)
    counts = np.bincount(labels, minlength=20)
    assert len(counts) == 20
    assert 35 < counts.min() <= counts.max() < 90
    assert shown.all()
    for slot in range(algorithm.num_patches):
        found, counts = np.unique(turns[:, :, slot], axis=0, return_counts=True)
        assert {tuple(row) for row in found.tolist()} == set(shares)
        expected = [1200 * shares[tuple(row)] for row in found.tolist()]
        np.testing.assert_allclose(counts, expected, atol=85)
    flat = np.concatenate([labels[:, None], turns.reshape(1200, -1)], axis=1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    if rotation == "independent" or algorithm.rank == 2:
        assert np.abs(correlation).max() < 0.15
    answers = [max(turns[:, index].mean(), 1 - turns[:, index].mean()) for index in range(len(NAMES[algorithm.rank]))]
    chance = algorithm.chance(4)
    assert chance["order_accuracy"] == 1 / 20
    for name, answer in zip(NAMES[algorithm.rank], answers, strict=True):
        assert chance[f"{name}_accuracy"] == pytest.approx(answer, abs=0.02)


def test_chance_of_the_order_alone():
    assert RubiksCube((8, 8, 8, 1), cube_rotation="none").chance(1) == {"order_accuracy": 0.01}
    assert RubiksCube((8, 8, 8, 1)).chance(1) == {
        "order_accuracy": 0.01,
        "horizontal_accuracy": 2 / 3,
        "vertical_accuracy": 2 / 3,
    }


@pytest.mark.parametrize(("rank", "sides", "number"), [(3, 2, 100), (2, 2, 24), (2, (3, 2), 100), (3, (2, 1, 1), 2)])
def test_permutations_are_distinct_far_apart_and_kept(rank, sides, number):
    algorithm = RubiksCube((24,) * rank + (1,), patches_per_side=sides)
    assert "permutations" not in vars(algorithm)
    assert algorithm.permutations.shape == (number, algorithm.num_patches)
    assert len(np.unique(algorithm.permutations, axis=0)) == number
    if algorithm.num_patches == 8:
        assert pdist(algorithm.permutations, "hamming").min() * algorithm.num_patches >= 5
    settings = json.loads(json.dumps(algorithm.settings()))
    np.testing.assert_array_equal(settings["permutations"], algorithm.permutations)
    assert settings["turns"] == {name: list(AXES[name]) for name in NAMES[rank]}
    again = RubiksCube((30,) * rank + (1,), patches_per_side=sides)
    np.testing.assert_array_equal(again.permutations, algorithm.permutations)
    if number == 100:
        assert RubiksCube((24,) * rank + (1,), patches_per_side=sides, permutation_seed=1).settings() != settings


def test_same_seed_same_example():
    algorithm = RubiksCube((12, 12, 12, 1), patch_jitter=1, scan_normalization="mean_max")
    images = volumes(4, (12, 12, 12, 1))
    first, second = (list(examples(algorithm, images, seed=3)) for _ in range(2))
    eager = [algorithm.make_example(tf.constant(image), tf.constant([i, 3])) for i, image in enumerate(images)]
    for one, two, three in zip(first, second, eager, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(a, c, atol=1e-5)
    assert any((a[1] != b[1]).numpy().any() for a, b in zip(first, examples(algorithm, images, seed=4), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_normalization_is_of_the_scan_and_changes_nothing_else(shape):
    image = volumes(1, shape)[0] * np.linspace(0.2, 1, shape[-1], dtype=np.float32)
    image[: shape[0] // 2] /= 2
    raw, targets = repeated(RubiksCube(shape, patch_jitter=1), image, 3)
    inputs, same = repeated(RubiksCube(shape, patch_jitter=1, scan_normalization="mean_max"), image, 3)
    axes = tuple(range(len(shape) - 1))
    mean = image.mean(axes)
    np.testing.assert_allclose(inputs, (raw - mean) / np.abs(image - mean).max(axes), atol=1e-5)
    np.testing.assert_array_equal(targets, same)
    assert raw.min() >= 0
    assert np.abs(inputs).max() <= 1 + 1e-6
    constant, _ = repeated(RubiksCube(shape, scan_normalization="mean_max"), np.full(shape, 0.3, np.float32), 1)
    np.testing.assert_array_equal(constant, 0)


def blank_image(shape):
    """Cell 0 is background noise, the first half of the last cell too."""
    image = volumes(1, shape)[0]
    half = tuple(slice(size // 2) for size in shape[:-1])
    image[half] *= 0.04
    image[(slice(shape[0] // 2, 3 * shape[0] // 4), *[slice(size // 2, None) for size in shape[1:-1]])] *= 0.04
    return image


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 8, 2)])
@pytest.mark.parametrize(("min_foreground", "share"), [(0.0, 0), (0.05, 1), (0.5, 1), (0.51, 2)])
def test_blank_cubes_are_presented_but_marked(shape, min_foreground, share):
    options = {"patch_gap": 0, "patch_jitter": 0}
    algorithm = RubiksCube(shape, min_foreground=min_foreground, **options)
    image = blank_image(shape)
    inputs, targets = repeated(algorithm, image, 5)
    labels, _, shown = split(algorithm, targets)
    blank = {0: set(), 1: {0}, 2: {0, algorithm.num_patches - 1}}[share]
    for label, flags in zip(labels, shown, strict=True):
        assert {int(cell) for cell, flag in zip(algorithm.permutations[label], flags, strict=True) if not flag} == blank
    for cubes in solved(algorithm, inputs, targets):
        np.testing.assert_array_equal(algorithm.grid.assemble(cubes), image)


def random_answers(algorithm, number, seed=0):
    """Targets of which some cubes are blank, and logits."""
    rng = np.random.default_rng(seed)
    turns, cubes, classes = len(algorithm.turns), algorithm.num_patches, algorithm.num_permutations
    shown = (rng.random((number, cubes)) < 0.8).astype(np.int32)
    shown[0], shown[1] = 1, 0
    labels = rng.integers(0, classes, (number, 1))
    targets = np.concatenate([labels, rng.integers(0, 2, (number, turns * cubes)), shown], axis=1).astype(np.int32)
    return targets, rng.normal(size=(number, classes + turns * cubes)).astype(np.float32)


def slow_loss(algorithm, target, logits):
    """The loss of one scan, cube by cube."""
    (label,), (turns,), (shown,) = split(algorithm, target[None])
    order, logits = np.split(logits.astype(np.float64), [algorithm.num_permutations])
    value = np.log(np.exp(order).sum()) - order[label] if shown.all() else 0.0
    if not algorithm.turns:
        return value
    for truth, row in zip(turns, logits.reshape(turns.shape), strict=True):
        probability = 1 / (1 + np.exp(-row))
        terms = [-np.log(p if t else 1 - p) for t, p, s in zip(truth, probability, shown, strict=True) if s]
        value += np.mean(terms) if terms else 0.0
    return value / 2


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_loss_by_a_slow_formula(rank, rotation):
    algorithm = RubiksCube((8,) * rank + (1,), cube_rotation=rotation, num_permutations=12)
    targets, logits = random_answers(algorithm, 12)
    expected = [slow_loss(algorithm, target, row) for target, row in zip(targets, logits, strict=True)]
    assert expected[1] == 0  # all cubes blank
    for truth in (targets, targets.astype(np.float32)):  # Keras hands the targets over as floats
        values = algorithm.loss(tf.constant(truth), tf.constant(logits))
        assert values.dtype == tf.float32
        np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_metrics_by_hand(rank):
    algorithm = RubiksCube((8,) * rank + (1,), num_permutations=12)
    targets, logits = random_answers(algorithm, 12)
    logits[::3, :12] += 9 * np.eye(12)[targets[::3, 0]]
    labels, turns, shown = split(algorithm, targets)
    complete = shown.all(1)
    expected = {"complete": complete.mean(), "order_accuracy": (logits[:, :12].argmax(1) == labels)[complete].mean()}
    answers = logits[:, 12:].reshape(turns.shape) > 0
    for index, name in enumerate(NAMES[rank]):
        expected[f"{name}_accuracy"] = (answers[:, index] == turns[:, index])[shown > 0].mean()
    values = keras.Input(logits.shape[1:])
    model = keras.Model(values, keras.layers.Identity()(values))
    model.compile(loss=algorithm.loss, metrics=algorithm.metrics())
    received = model.evaluate(logits, targets, batch_size=5, verbose=0, return_dict=True)
    losses = [slow_loss(algorithm, target, row) for target, row in zip(targets, logits, strict=True)]
    assert received == pytest.approx({"loss": np.mean(losses), **expected}, rel=1e-5)


def test_positives_alone_would_be_minimised_by_turning_everything():
    """The paper's formula, -g log r, has no term for a cube that is not turned; the loss here has."""
    algorithm = RubiksCube((8, 8, 8, 1), num_permutations=2)
    targets, _ = random_answers(algorithm, 6)
    targets[:, -8:] = 1
    turned = targets[:, 1:-8]

    def printed(logits):
        return np.mean(turned * np.log(1 + np.exp(-logits)))

    def here(logits):
        order = np.zeros((6, 2))
        return float(np.mean(algorithm.loss(targets, np.concatenate([order, logits], axis=1).astype(np.float32))))

    right, everything = np.where(turned, 9.0, -9.0), np.full(turned.shape, 9.0)
    assert printed(everything) <= printed(right) < printed(np.zeros(turned.shape))
    assert printed(everything + 1) < printed(right)
    assert here(right) < here(0 * everything) < here(everything)


@pytest.mark.parametrize("rank", [2, 3])
def test_swapping_two_cubes_swaps_their_features(rank):
    algorithm = RubiksCube((12,) * rank + (1,), **SMALL)
    batches = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            batches.append(x.shape[0])
            return x

    image = keras.Input(algorithm.encoder_shape)
    encoder = keras.Model(image, tiny_encoder(algorithm.encoder_shape)(Spy()(image)), name="encoder")
    model = algorithm.make_model(encoder, seed=0)
    branches = keras.Model(model.input, model.get_layer("code").output)
    inputs = volumes(3, model.input_shape[1:])
    swapped = inputs.copy()
    swapped[:, [0, 3]] = swapped[:, [3, 0]]
    batches.clear()
    features, others = (branches(x).numpy().reshape(3, algorithm.num_patches, 8) for x in (inputs, swapped))
    assert batches == [3 * algorithm.num_patches] * 2  # each time all cubes at once
    assert not np.allclose(features[:, 0], features[:, 3], atol=1e-3)
    np.testing.assert_allclose(others[:, [3, 0]], features[:, [0, 3]], atol=1e-6)
    np.testing.assert_allclose(np.delete(others, [0, 3], 1), np.delete(features, [0, 3], 1), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_training_starts_at_chance(shape, rotation):
    algorithm = RubiksCube(shape, cube_rotation=rotation, **SMALL | {"head_units": (64,)})
    inputs, targets = next(iter(examples(algorithm, volumes(24, shape)).batch(24)))
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    logits = model(inputs, training=False)
    classes, turns = algorithm.num_permutations, len(algorithm.turns)
    assert classes == {2: 24, 3: 100}[algorithm.rank]
    assert logits.shape == (24, classes + turns * algorithm.num_patches)
    order = keras.losses.sparse_categorical_crossentropy(targets[:, 0], logits[:, :classes], from_logits=True)
    assert float(tf.reduce_mean(order)) == pytest.approx(np.log(classes), rel=0.05)
    if turns:
        values = keras.ops.binary_crossentropy(*algorithm._answers(targets, logits), from_logits=True)
        np.testing.assert_allclose(tf.reduce_mean(values, axis=(0, 2)), np.log(2), rtol=0.05)
    expected = (np.log(classes) + turns * np.log(2)) / (2 if turns else 1)
    assert float(tf.reduce_mean(algorithm.loss(targets, logits))) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_learns(shape):
    algorithm = RubiksCube(shape, **SMALL | {"head_units": (64,)})
    ramp = coordinates(shape[:-1]) / np.array(shape[:-1], np.float32)
    inputs, targets = next(iter(examples(algorithm, 0.9 * ramp + 0.1 * volumes(8, shape)).batch(8)))
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    model.compile(keras.optimizers.Adam(1e-2), loss=algorithm.loss, metrics=algorithm.metrics())
    make_variables(model, tf.data.Dataset.from_tensors((inputs, targets)))
    history = [model.train_on_batch(inputs, targets, return_dict=True) for _ in range(15)]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    turns = [f"{name}_accuracy" for name in NAMES[algorithm.rank]]
    assert set(history[0]) == {"loss", "order_accuracy", "complete", *turns}


def test_an_encoder_that_gives_vectors_is_not_pooled():
    algorithm = RubiksCube((8, 8, 1), **SMALL)
    image = keras.Input(algorithm.encoder_shape)
    encoder = keras.Model(image, keras.layers.Flatten()(image), name="encoder")
    model = algorithm.make_model(encoder, seed=0)
    assert model.get_layer("code").kernel.shape == (np.prod(algorithm.encoder_shape), 8)


def test_the_papers_sizes():
    """Cubes of 64 x 64 x 12 in 270 x 230 x 30 voxels would leave a wide gap; the default leaves a narrow one."""
    algorithm = RubiksCube((276, 276, 74, 1), patch_gap=0, patch_jitter=(10, 10, 5))
    assert algorithm.encoder_shape == (128, 128, 32, 1)
    thin = RubiksCube((270, 230, 30, 1))
    assert thin.grid.gaps == (10, 10, 1)
    assert thin.grid.jitters == (4, 4, 1)
    assert thin.encoder_shape == (121, 101, 13, 1)


@pytest.mark.parametrize(
    ("cell", "gap", "jitter"), [(4, 1, 0), (7, 1, 0), (8, 1, 1), (16, 2, 2), (42, 5, 4), (64, 8, 4), (100, 10, 4)]
)
def test_gap_and_jitter_follow_from_the_cell(cell, gap, jitter):
    """An eighth of it; the gap at least 1, since edges that touch tell the order, and at most 10, the jitter 4."""
    for rank in (2, 3):
        grid = RubiksCube((*[2 * cell] * rank, 1)).grid
        assert (grid.gaps, grid.jitters) == ((gap,) * rank, (jitter,) * rank)


@pytest.mark.parametrize(("normalization", "smallest"), [(None, 1), ("layer", 1), ("batch", 3)])
def test_all_heads_have_the_normalization_of_the_keys(normalization, smallest):
    algorithm = RubiksCube((12, 12, 12, 1), **SMALL, normalization=normalization)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    norms = [layer for layer in model.layers if "norm" in layer.name]
    assert [layer.name for layer in norms] == ["order_norm_1", "horizontal_norm_1", "vertical_norm_1"]
    expected = keras.layers.BatchNormalization if normalization == "batch" else keras.layers.GroupNormalization
    assert {type(layer) for layer in norms} == {expected}
    assert algorithm.sampling.min_batch == smallest
    assert not algorithm.sampling.flips_keep_labels


def test_keys_of_an_experiment_file(tmp_path):
    values = {"algorithm": "rubiks_cube", "dataset_name": "nifti", "data_dir": "scans", "data_dim": [32, 32, 16]}
    values |= {"patches_per_side": [2, 2, 1], "patch_gap": [4, 4, 0], "patch_jitter": 1, "head_units": [32, 16]}
    values |= {"num_permutations": 20, "num_layers": 2, "cube_rotation": "independent"}
    (tmp_path / "experiment.json").write_text(json.dumps(values))
    algorithm = build.make_algorithm(load_experiment("train", tmp_path / "experiment.json"))
    assert algorithm.name == "rubiks_cube"
    assert algorithm.encoder_shape == (11, 11, 15, 1)
    assert algorithm.head_units == (32, 16)
    assert list(algorithm.turns) == NAMES[3]
    assert not algorithm.sampling.flips_keep_labels


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((32, 32, 32, 1), {"patch_jitter": 16}, "patches_per_side, patch_jitter, patch_gap, data_dim: 2 patches"),
        ((32, 32, 6, 1), {"patch_gap": (2, 2, 2), "patch_jitter": 1}, "patches_per_side, patch_jitter, patch_gap"),
        ((32, 32, 1, 1), {}, "patches_per_side, patch_jitter, patch_gap, data_dim"),
        ((32, 32, 1), {"patch_gap": (1, 1, 1)}, "patch_gap: expected one number or one for each of 2 axes"),
        ((32, 32, 1), {"patches_per_side": 1}, "patches_per_side: a single cube has no order"),
        ((32, 32, 1), {"num_permutations": 25}, "num_permutations: at most 24 orders of 4 cubes.*received 25"),
        ((32, 32, 32, 1), {"num_permutations": 20_001}, "num_permutations: at most 20000"),
    ],
)
def test_impossible_tasks_are_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        RubiksCube(shape, **options)
