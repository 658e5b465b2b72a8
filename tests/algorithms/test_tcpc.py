"""Task-related contrastive predictive coding."""

import itertools

import keras
import numpy as np
import pydantic
import pytest
import scipy.ndimage
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.tcpc import TCPC
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops.supervoxels import PRESETS
from self_supervised_3d_tasks.training.first_step import make_variables

SHAPES = [(24, 20, 1), (16, 16, 6, 2)]
SMALL = {"code_size": 16, "context_units": 8}
PLAIN = {"cube_jitter": 0, "intensity_jitter": 0.0}
CELLS = list(itertools.product(range(3), repeat=2))


def tiny_encoder(shape):
    rank = len(shape) - 1
    image = keras.Input(shape)
    x = layers.convolution(rank, 6, 3, activation="relu", seed=0, name="convolution")(image)
    return keras.Model(image, layers.max_pool(rank, 2, name="pool")(x), name="encoder")


def volumes(number, shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=(number, *shape))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, *[2] * (len(shape) - 1), 0))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def coordinates(spatial):
    """An image whose channels are the indices of the voxel."""
    return np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), axis=-1).astype(np.float32)


def batch(algorithm, number, seed=0):
    images = tf.data.Dataset.from_tensor_slices(volumes(number, algorithm.input_shape)).enumerate()
    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it
    examples = images.map(lambda i, image: make_example(image, tf.stack([tf.cast(i, tf.int32), seed])))
    return next(iter(examples.batch(number)))


def scores(algorithm, number, seed=0):
    shape = (number, number, len(algorithm.cells))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def targets(algorithm, number):
    return np.full(number, len(algorithm.path), np.int32)


def accuracy(algorithm, y_true, y_pred):
    metric = algorithm.metrics()[0]
    assert metric.name == "accuracy"
    metric.update_state(y_true, y_pred)
    return float(metric.result())


def box(algorithm, cell):
    pairs = zip(algorithm.origin(cell), algorithm.cube_shape, strict=True)
    return tuple(slice(start, start + edge) for start, edge in pairs)


# Geometry


@pytest.mark.parametrize(
    ("size", "overlap", "edge", "starts"),
    [
        (48, 0.5, 24, (0, 12, 24)),
        (150, 0.5, 75, (0, 38, 75)),
        (36, 0.0, 12, (0, 12, 24)),
        (37, 0.0, 13, (0, 12, 24)),
        (28, 0.1, 10, (0, 9, 18)),
    ],
)
def test_cubes_are_where_the_paper_has_them(size, overlap, edge, starts):
    algorithm = TCPC((size, 2 * size, 30, 1), cube_overlap=overlap)
    assert algorithm.starts[0] == starts
    assert algorithm.cube_shape == (edge, algorithm.cube_shape[1], 30)
    assert algorithm.encoder_shape == (*algorithm.cube_shape, 1)


@pytest.mark.parametrize("spatial", [(12, 9), (12, 9, 5)])
def test_without_overlap_the_cubes_stitch_back_to_the_sub_volume(spatial):
    image, stitched = volumes(1, (*spatial, 2))[0], np.full((*spatial, 2), np.nan, np.float32)
    for target in [(1, 1), (0, 1)]:  # with the other seven: every cell
        algorithm = TCPC(image.shape, cube_overlap=0.0, target_cube=target, **PLAIN)
        cubes, _ = algorithm.make_example(tf.constant(image), tf.constant([0, 1]))
        for cell, cube in zip(algorithm.cells, cubes, strict=True):
            stitched[box(algorithm, cell)] = cube
    np.testing.assert_array_equal(stitched, image)


def test_starts_cover_every_voxel():
    for size, overlap in itertools.product(range(6, 90), (0.0, 0.1, 0.25, 0.5, 0.6)):
        algorithm = TCPC((size, size, 1), cube_overlap=overlap)
        covered = np.zeros((size, size), bool)
        for cell in CELLS:
            covered[box(algorithm, cell)] = True
            assert algorithm.origin(cell)[0] + algorithm.cube_shape[0] <= size
        assert covered.all()
        assert abs(np.diff(algorithm.starts[0], n=2)).max() <= 1


@pytest.mark.parametrize(("overlap", "leak"), [(0.5, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("target", [(1, 1), (0, 1)])
def test_half_an_overlap_shows_all_of_the_target(overlap, leak, target):
    algorithm = TCPC((48, 48, 6, 1), cube_overlap=overlap, target_cube=target)
    seen = np.zeros((48, 48, 6), bool)
    for cell in algorithm.path:
        seen[box(algorithm, cell)] = True
    assert seen[box(algorithm, target)].mean() == leak


@pytest.mark.parametrize("spatial", [(48, 30), (24, 16, 5)])
def test_cubes_are_shifted_each_on_its_own_and_stay_inside(spatial):
    image = coordinates(spatial)
    algorithm = TCPC(image.shape, intensity_jitter=0.0)
    assert algorithm.jitter == {2: (2, 1), 3: (1, 1)}[len(spatial)]
    shifts = []
    for seed in range(60):
        cubes, _ = algorithm.make_example(tf.constant(image), tf.constant([seed, 1]))
        origins = cubes.numpy()[(slice(None), *[0] * len(spatial))].astype(int)
        for origin, cube in zip(origins, cubes.numpy(), strict=True):
            part = tuple(slice(start, start + edge) for start, edge in zip(origin, algorithm.cube_shape, strict=True))
            np.testing.assert_array_equal(cube, image[part])  # of the asked shape: no padding, no wrap
        shifts.append(origins - [algorithm.origin(cell) for cell in algorithm.cells])
    shifts = np.array(shifts)
    limits = np.array([*algorithm.jitter, *[0] * (len(spatial) - 2)])
    np.testing.assert_array_equal(shifts[:, -1].max(axis=0), limits)  # of the cube in the middle
    np.testing.assert_array_equal(shifts[:, -1].min(axis=0), -limits)
    assert (np.abs(shifts) <= limits).all()
    assert abs(np.corrcoef(shifts[:, 0, 0], shifts[:, -1, 0])[0, 1]) < 0.3


def test_each_cube_has_its_own_brightness_and_contrast():
    shape, a = (24, 24, 1), 0.2
    image = volumes(1, shape)[0]
    plain = TCPC(shape, **PLAIN).make_example(tf.constant(image), tf.constant([0, 1]))[0].numpy()
    changed = TCPC(shape, cube_jitter=0, intensity_jitter=a)
    brightness, contrast = [], []
    for seed in range(50):
        cubes = changed.make_example(tf.constant(image), tf.constant([seed, 1]))[0].numpy()
        contrast.append(cubes.std(axis=(1, 2, 3)) / plain.std(axis=(1, 2, 3)))
        brightness.append(cubes.mean(axis=(1, 2, 3)) - plain.mean(axis=(1, 2, 3)))
    for values, middle in ((np.array(brightness), 0), (np.array(contrast), 1)):
        assert 0.9 * a < np.abs(values - middle).max() <= a + 1e-4
        assert values.mean() == pytest.approx(middle, abs=0.03)
        assert (values.std(axis=1) > 0.3 * a / np.sqrt(3)).all()  # never one for all cubes


@pytest.mark.parametrize("shape", SHAPES)
def test_same_seed_same_example(shape):
    algorithm = TCPC(shape)
    first, second, third = batch(algorithm, 3, seed=3), batch(algorithm, 3, seed=3), batch(algorithm, 3, seed=4)
    assert first[0].shape == (3, 8, *algorithm.encoder_shape)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], [7, 7, 7])
    assert not np.array_equal(first[0], third[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cube_path": "spiral", "target_cube": (0, 1)}, "target_cube.*part of the support"),
        ({"cube_overlap": 0.97}, "data_dim, cube_overlap"),
        ({"cube_jitter": 3}, "cube_jitter: at most 2 where cubes begin every 6 voxels, received 3"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TCPC((24, 24, 8, 1), **options)


def test_a_sub_volume_that_is_too_small_is_refused():
    with pytest.raises(UserError, match="data_dim.*24, 2"):
        TCPC((24, 2, 8, 1))


def test_keys_are_read_as_experiment_files_have_them():
    annotation = registry.options(TCPC)["cube_path"].annotation
    path = pydantic.TypeAdapter(annotation).validate_json("[[0, 0], [0, 1], [1, 1]]", strict=True)
    algorithm = TCPC((24, 24, 1), cube_path=path, target_cube=(1, 0))
    assert algorithm.cells == ((0, 0), (0, 1), (1, 1), (1, 0))
    assert TCPC((24, 24, 1), cube_path=[[0, 0], [0, 1]]).path == ((0, 0), (0, 1))


def test_crops_are_centred_on_supervoxels():
    assert TCPC((24, 24, 1)).sampling.crop_centres == PRESETS["ours"]
    paper = TCPC((24, 24, 1), slic_preset="paper", num_segments=20, supervoxel_foreground=0.3).sampling.crop_centres
    assert (paper.num_segments, paper.min_foreground, paper.sigma) == (20, 0.3, PRESETS["paper"].sigma)
    own = TCPC((24, 24, 1), slic_preset="paper", slic_sigma=0.0, slic_compactness=1.0).sampling.crop_centres
    assert (own.sigma, own.compactness) == (0.0, 1.0)
    assert repr(own) != repr(paper)


# Model


def test_every_cube_is_encoded_once_in_one_call():
    algorithm = TCPC((16, 16, 6, 1), **SMALL)
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, inputs):
            seen.append(tuple(inputs.shape))
            return inputs

    model = algorithm.make_model(Recorder(name="encoder"), seed=0)
    seen.clear()
    model(batch(algorithm, 3)[0])
    assert seen == [(3 * 8, 8, 8, 6, 1)]


@pytest.mark.parametrize("mode", ["info_nce", "binary"])
def test_scores_compare_each_prediction_with_every_cube(mode):
    algorithm = TCPC((16, 16, 6, 1), tcpc_mode=mode, **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs = batch(algorithm, 3)[0].numpy()
    before = model(inputs).numpy()
    assert before.shape == (3, 3, 8)
    for cube in (0, 3, 7):
        changed = inputs.copy()
        changed[1, cube] = changed[1, cube] ** 2
        touched = np.abs(model(changed).numpy() - before) > 1e-7
        expected = np.zeros_like(touched)
        expected[:, 1, cube] = True  # its code, seen by every prediction
        expected[1] |= cube != 7  # and the prediction that reads it
        np.testing.assert_array_equal(touched, expected)
    if mode == "info_nce":
        assert np.abs(before).max() <= 1 / algorithm.temperature + 1e-4


def test_the_support_is_read_in_order():
    algorithm = TCPC((16, 16, 6, 1), **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs = batch(algorithm, 2)[0].numpy()
    swapped = inputs[:, [1, 0, *range(2, 8)]]
    assert np.abs(model(swapped).numpy() - model(inputs).numpy())[:, :, 2:].max() > 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_the_encoder_through_support_and_through_target(shape):
    algorithm = TCPC(shape, **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs, y_true = batch(algorithm, 2)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        similarity = algorithm.similarity(y_true, model(inputs))[0]  # of prediction and target: no negatives
    reached = np.abs(tape.gradient(similarity, inputs)).max(axis=tuple(range(2, inputs.shape.rank))) > 0
    np.testing.assert_array_equal(reached, [[True] * 8, [False] * 8])


def test_codes_are_made_of_pooled_maps_or_of_vectors():
    def code_inputs(algorithm, encoder):
        return algorithm.make_model(encoder, seed=0).get_layer("code").kernel.shape[0]

    shape = TCPC((16, 16, 4, 1)).encoder_shape
    assert code_inputs(TCPC((16, 16, 4, 1)), tiny_encoder(shape)) == 6
    assert code_inputs(TCPC((16, 16, 4, 1), pool_bins=2), tiny_encoder(shape)) == 6 * 8
    image = keras.Input(shape)
    vector = keras.Model(image, layers.global_pool(3, "avg", name="pool")(image), name="encoder")
    assert code_inputs(TCPC((16, 16, 4, 1)), vector) == 1


def test_initial_weights_depend_on_the_seed_alone():
    algorithm = TCPC((16, 16, 1), **SMALL)
    first, second, third = (
        algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=seed).get_weights() for seed in (0, 0, 1)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(not np.array_equal(a, b) for a, b in zip(first, third, strict=True)) >= 4


# Loss and metrics


def test_equal_codes_give_the_logarithm_of_the_number_of_candidates():
    algorithm = TCPC((16, 16, 1), **SMALL)
    image = keras.Input(algorithm.encoder_shape)
    blind = keras.Model(image, keras.ops.ones_like(layers.global_pool(2, "avg", name="pool")(image)), name="encoder")
    inputs, y_true = batch(algorithm, 2)
    y_pred = algorithm.make_model(blind, seed=0)(inputs)
    np.testing.assert_allclose(algorithm.loss(y_true, y_pred), np.log(16), atol=1e-5)
    np.testing.assert_allclose(algorithm.spread(y_true, y_pred), 0, atol=1e-5)
    assert accuracy(algorithm, y_true, np.zeros((2, 2, 8), np.float32)) == 0


def test_a_perfect_prediction_costs_nothing():
    algorithm = TCPC((16, 16, 1))
    y_pred = np.zeros((2, 2, 8), np.float32)
    y_pred[[0, 1], [0, 1], 7] = 1 / algorithm.temperature  # a cosine of 1; the rest is orthogonal
    y_true = targets(algorithm, 2)
    assert np.max(algorithm.loss(y_true, y_pred)) < 1e-3
    assert accuracy(algorithm, y_true, y_pred) == 1
    np.testing.assert_allclose(algorithm.similarity(y_true, y_pred), 1, rtol=1e-6)
    np.testing.assert_allclose(algorithm.spread(y_true, y_pred), np.std([1, *[0] * 15]), rtol=1e-5)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("mode", ["info_nce", "binary"])
@pytest.mark.parametrize(("target", "overlapping"), [((1, 1), range(7)), ((0, 1), (0, 1, 5, 6))])
def test_loss_and_accuracy_agree_with_a_slow_loop(mode, exclude, target, overlapping):
    algorithm = TCPC((24, 24, 1), tcpc_mode=mode, target_cube=target, exclude_adjacent_negatives=exclude)
    y_pred, y_true = 3 * scores(algorithm, 3), targets(algorithm, 3)
    expected, hits, similarity = np.zeros(3), np.zeros(3), np.zeros(3)
    for b in range(3):
        left_out = [(b, cube) for cube in overlapping] if exclude else []
        negatives = [y_pred[b, k, n] for k, n in np.ndindex(3, 8) if (k, n) not in [(b, 7), *left_out]]
        positive = y_pred[b, b, 7]
        if mode == "info_nce":
            expected[b] = np.log(np.exp([positive, *negatives]).sum()) - positive
        else:
            expected[b] = np.log1p(np.exp(-positive)) + np.mean(np.log1p(np.exp(negatives)))
        hits[b] = positive > max(negatives)
        similarity[b] = positive * (0.1 if mode == "info_nce" else np.sqrt(128))
    values = algorithm.loss(y_true, y_pred)
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert accuracy(algorithm, y_true[:, None], y_pred) == pytest.approx(hits.mean())
    np.testing.assert_allclose(algorithm.similarity(y_true, y_pred), similarity, rtol=1e-6)
    number = 1 + len(negatives)
    assert algorithm.chance(3) == {"accuracy": pytest.approx(1 / number)}
    if mode == "info_nce":
        np.testing.assert_allclose(algorithm.loss(y_true, 0 * y_pred), np.log(number), rtol=1e-6)
    else:
        np.testing.assert_allclose(algorithm.loss(y_true, 0 * y_pred), 2 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("mode", ["info_nce", "binary"])
def test_a_sub_volume_that_does_not_count_costs_nothing_and_serves_the_others_as_before(mode):
    algorithm = TCPC((24, 24, 1), tcpc_mode=mode)
    y_pred, y_true = 3 * scores(algorithm, 4), targets(algorithm, 4)
    y_pred[[0, 1, 2], [0, 1, 2], 7] = [20, -20, 20]  # right, wrong, and right, of the first three
    before = algorithm.loss(y_true, y_pred).numpy()
    y_true[[2, 3]] = -1
    after = algorithm.loss(y_true, y_pred).numpy()
    np.testing.assert_array_equal(after[:2], before[:2])
    np.testing.assert_array_equal(after[2:], 0)
    assert accuracy(algorithm, y_true, y_pred) == 0.5
    np.testing.assert_array_equal(algorithm.complete(y_true, y_pred), [1, 1, 0, 0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sub_volume_counts_where_every_cube_is_filled(shape):
    image = np.full(shape, 0.5, np.float32)
    algorithm = TCPC(shape, cube_overlap=0.0, **PLAIN)
    rows = algorithm.cube_shape[0]
    empty = -(-3 * rows // 10)  # rows of the fourth cube without tissue, about a third
    image[box(algorithm, algorithm.cells[3])][:empty] = 0.04

    def target(min_foreground):
        task = TCPC(shape, cube_overlap=0.0, **PLAIN, min_foreground=min_foreground)
        label = task.make_example(tf.constant(image), tf.constant([0, 1]))[1]
        assert label.dtype == tf.int32
        return int(label)

    share = 1 - empty / rows
    assert target(0.0) == target(share - 0.01) == 7
    assert target(share + 0.01) == target(0.95) == -1
    assert algorithm.min_foreground == 0.95


def test_without_overlap_no_negative_is_left_out():
    algorithm = TCPC((24, 24, 1), cube_overlap=0.0, exclude_adjacent_negatives=True)
    assert not any(algorithm.left_out)
    assert algorithm.chance(2) == {"accuracy": 1 / 16}


@pytest.mark.parametrize("exclude", [False, True])
def test_the_order_of_the_batch_does_not_matter(exclude):
    algorithm = TCPC((16, 16, 6, 1), exclude_adjacent_negatives=exclude, **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs, y_true = batch(algorithm, 4)
    order = [2, 0, 3, 1]
    values = algorithm.loss(y_true, model(inputs)).numpy()
    permuted = algorithm.loss(y_true, model(inputs.numpy()[order])).numpy()
    np.testing.assert_allclose(permuted, values[order], rtol=1e-4)
    assert permuted.mean() == pytest.approx(values.mean(), rel=1e-5)


@pytest.mark.parametrize(("mode", "shape"), [("binary", SHAPES[0]), ("info_nce", SHAPES[1])])
def test_fifty_steps_on_four_volumes_go_below_chance(mode, shape):
    def standardized(seed):
        inputs, y_true = batch(algorithm, 4, seed)
        return (inputs - 0.5) / 0.15, y_true

    algorithm = TCPC(shape, tcpc_mode=mode, code_size=16, context_units=16)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    optimizer = keras.optimizers.Adam(1e-2)
    model.compile(optimizer, loss=algorithm.loss, metrics=algorithm.metrics())
    draws = [standardized(seed) for seed in range(5)]
    make_variables(model, tf.data.Dataset.from_tensors(draws[0]))
    history = [model.train_on_batch(*draws[step % 5], return_dict=True) for step in range(50)]
    assert set(history[0]) == {"loss", "accuracy", "similarity", "spread", "complete"}
    assert history[0]["complete"] == 1
    chance = {"info_nce": np.log(32), "binary": 2 * np.log(2)}[mode]
    inputs, y_true = standardized(9)  # shifts and intensities that it was not trained on
    y_pred = model(inputs, training=False)
    assert np.mean(algorithm.loss(y_true, y_pred)) < 0.9 * chance
    assert np.mean(algorithm.spread(y_true, y_pred)) > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_description_shows_the_path_and_the_target(shape):
    algorithm = TCPC(shape)
    inputs, label = algorithm.make_example(tf.constant(volumes(1, shape)[0]), tf.constant([0, 1]))
    panels = algorithm.describe(inputs.numpy(), label.numpy())
    assert panels[0].title == "support 1 (0, 0)"
    assert panels[7].title == "target (1, 1)"
    for panel, cube in zip(panels, inputs, strict=True):
        np.testing.assert_array_equal(panel.image, cube)
    assert algorithm.name == "tcpc"
