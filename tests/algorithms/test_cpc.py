"""Contrastive predictive coding."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.cpc import CPC
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training.first_step import make_variables

SHAPES = [(20, 20, 1), (16, 16, 16, 1)]
SMALL = {"code_size": 16, "context_units": 8}


def tiny_encoder(shape):
    rank = len(shape) - 1
    image = keras.Input(shape)
    x = layers.convolution(rank, 4, 3, activation="relu", seed=0, name="convolution")(image)
    return keras.Model(image, layers.max_pool(rank, 2, name="pool")(x), name="encoder")


def volumes(number, shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=(number, *shape))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, *[2] * (len(shape) - 1), 0))
    return (0.1 + 0.9 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)  # no voxel is background


def coordinates(spatial):
    """An image whose channels are the indices of the voxel, counted from 1: no voxel is background."""
    return np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), axis=-1).astype(np.float32) + 1


def mirrored(part, shape):
    """A part ``(*spatial, channels)`` brought to ``shape`` by numpy: evenly, an odd voxel behind it."""
    missing = [target - size for target, size in zip(shape, part.shape, strict=True)]
    return np.pad(part, [(count // 2, count - count // 2) for count in missing], mode="symmetric")


def inner_of(algorithm, patch, kept_shape):
    """What of a patch of the encoder's size is no mirror image."""
    pairs = zip(algorithm.encoder_shape, kept_shape, strict=False)
    starts = [(size - kept) // 2 for size, kept in pairs]
    return patch[tuple(slice(start, start + kept) for start, kept in zip(starts, kept_shape, strict=True))]


def accuracy(algorithm, y_true, y_pred):
    metric = algorithm.metrics()[0]
    assert metric.name == "accuracy"
    metric.update_state(y_true, y_pred)
    return float(metric.result())


def examples(algorithm, images, seed=0):
    dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it
    return dataset.map(lambda i, image: make_example(image, tf.stack([tf.cast(i, tf.int32), seed])))


def batch(algorithm, number, seed=0):
    return next(iter(examples(algorithm, volumes(number, algorithm.input_shape), seed).batch(number)))


def scores(algorithm, number, seed=0):
    num_columns, num_rows = len(algorithm.columns), len(algorithm.target_rows)
    shape = (number, num_columns, num_rows, number, num_columns)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rank", "n", "terms", "rows", "per_scan"),
    [(2, 5, 4, 2, 10), (2, 7, 9, 3, 14), (3, 4, 10, 2, 32), (3, 5, 10, 3, 50), (3, 6, 35, 3, 72)],
)
def test_sizes_are_the_predecessors(rank, n, terms, rows, per_scan):
    algorithm = CPC((48,) * rank + (1,), patches_per_side=n)
    assert {len(algorithm.context(column)) for column in algorithm.columns} == {terms}
    assert {len(algorithm.targets(column)) for column in algorithm.columns} == {rows}
    assert algorithm.sampling.examples_per_scan == per_scan


def test_patch_sizes_are_the_predecessors():
    assert CPC((224, 224, 3), patches_per_side=5, crop_size=224, patch_overlap=37).encoder_shape == (74, 74, 3)
    assert CPC((128, 128, 128, 1)).encoder_shape == (32, 32, 32, 1)
    assert CPC((128, 128, 128, 1)).crop_shape == (121, 121, 121)


@pytest.mark.parametrize(
    ("side", "n", "gap", "overlap", "stride"),
    [
        (224, 5, 3, 34, 38),  # (224 - 5 * 3) // 6, (224 - 34) // 5
        (48, 5, 2, 6, 8),
        (36, 4, 2, 5, 7),
        (20, 5, 1, 2, 3),
        (16, 5, 0, 2, 2),
    ],
)
def test_in_2d_a_gap_is_left_between_the_patches_of_every_second_row(side, n, gap, overlap, stride):
    """A quarter of the cell, at most 3 voxels: the first row to predict must not go on where its context ends."""
    grid = CPC((side, side, 1), patches_per_side=n, crop_size=side).grid
    assert (grid.overlap, grid.stride) == ((overlap,) * 2, (stride,) * 2)
    bottom = grid.origin((0, 0))[0] + grid.patch_shape[0]
    assert grid.origin((2, 0))[0] - bottom == stride - overlap >= gap


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("n", [4, 5, 6, 7, 8])
def test_targets_lie_below_their_context(rank, n):
    algorithm = CPC((32,) * rank + (1,), patches_per_side=n)
    used = set()
    for column in algorithm.columns:
        context, targets = algorithm.context(column), algorithm.targets(column)
        assert context[-1] == (n // 2 - 1, *column)
        assert not set(context) & set(targets)
        assert max(cell[0] for cell in context) < min(cell[0] for cell in targets)
        assert all(cell[1:] == column for cell in targets)
        used |= {*context, *targets}
    assert used == set(algorithm.cells)
    assert len(algorithm.cells) == len(used)
    assert len(algorithm.cells) == n**rank - (n ** (rank - 1) if rank == 2 else 0)


def test_the_pyramid_is_reflected_at_the_border():
    algorithm = CPC((32, 32, 1), patches_per_side=6)
    assert [cell[1] for cell in algorithm.context((0,))] == [2, 1, 0, 1, 2, 1, 0, 1, 0]
    assert [cell[1] for cell in algorithm.context((5,))] == [3, 4, 5, 4, 3, 4, 5, 4, 5]
    assert [cell[0] for cell in algorithm.context((5,))] == [0] * 5 + [1] * 3 + [2]


@pytest.mark.parametrize("overlap_row", [True, False])
def test_predicted_patches_share_no_voxel_with_their_context(overlap_row):
    algorithm = CPC((60, 60, 1), patches_per_side=5, patch_overlap=None if overlap_row else 0)
    grid = algorithm.grid
    for column in algorithm.columns:
        lowest = max(grid.origin(cell)[0] + grid.patch_shape[0] for cell in algorithm.context(column))
        assert all(grid.origin(cell)[0] >= lowest for cell in algorithm.targets(column))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((32, 32, 3, 1), {}, "data_dim"),
        ((32, 32, 1), {"patch_overlap": 30}, "patch_overlap"),
        ((32, 32, 32, 1), {"patch_overlap": 4, "skip_row": False}, "skip_row"),
        ((32, 32, 32, 1), {"patch_overlap": 16}, "patch_overlap"),
        ((32, 32, 1), {"skip_row": False}, "skip_row"),
        ((32, 32, 16, 1), {"crop_size": 24}, "crop_size.*received 24"),
    ],
)
def test_impossible_geometries_are_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        CPC(shape, **options)


@pytest.mark.parametrize("spatial", [(16, 16), (16, 16, 16)])
def test_plain_patches_are_the_scan(spatial):
    shape = (*spatial, 2)
    algorithm = CPC(shape, patch_augment=False, patch_overlap=0, crop_size=16)
    image = volumes(1, shape)[0]
    cut, _ = algorithm.make_example(tf.constant(image), tf.constant([0, 1]))
    stitched = np.zeros(shape, np.float32)
    for patch, cell in zip(cut.numpy(), algorithm.cells, strict=True):
        start = algorithm.grid.origin(cell)
        place = tuple(slice(s, s + p) for s, p in zip(start, algorithm.grid.patch_shape, strict=True))
        stitched[place] = patch
    np.testing.assert_array_equal(stitched, image)


@pytest.mark.parametrize(
    ("spatial", "crop", "patch"),
    [((24, 20), (22, 19), (7, 7)), ((32, 24, 20), (30, 22, 19), (7, 5, 4)), ((32, 32, 32), (30, 30, 30), (7, 7, 7))],
)
def test_the_grid_lies_on_the_crop_and_what_it_takes_away_is_mirrored(spatial, crop, patch):
    image = coordinates(spatial)
    algorithm = CPC(image.shape, patch_augment=False)
    assert (algorithm.crop_shape, algorithm.grid.patch_shape) == (crop, patch)
    begins = set()
    for seed in range(20):
        cut, _ = algorithm.make_example(tf.constant(image), tf.constant([seed, 1]))
        first = inner_of(algorithm, cut[0].numpy(), patch)[(0,) * len(spatial)].astype(int) - 1
        begins.add(tuple(first.tolist()))
        for received, cell in zip(cut.numpy(), algorithm.cells, strict=True):
            place = [slice(a + b, a + b + p) for a, b, p in zip(first, algorithm.grid.origin(cell), patch, strict=True)]
            np.testing.assert_array_equal(received, mirrored(image[tuple(place)], algorithm.encoder_shape))
    assert len(begins) > 2
    assert np.max(list(begins), axis=0).tolist() == [a - b for a, b in zip(spatial, crop, strict=True)]


@pytest.mark.parametrize("spatial", [(40, 40), (32, 32, 32), (40, 32, 36)])
def test_augmented_patches_are_cropped_and_mirrored(spatial):
    """In 3D to 7/8 of their edge, in 2D to 11/12, anywhere in their cell, and in 3D perhaps flipped along axis 0."""
    rank, image = len(spatial), coordinates(spatial)
    algorithm = CPC(image.shape)
    kept = [int(size * {2: 11 / 12, 3: 7 / 8}[rank]) for size in algorithm.grid.patch_shape]
    cut, draws = algorithm.make_example(tf.constant(image), tf.constant([0, 1]))
    assert cut.shape == (len(algorithm.cells), *algorithm.encoder_shape)
    assert draws.shape == (len(algorithm.columns),)
    origins = []
    for patch, cell in zip(cut.numpy(), algorithm.cells, strict=True):
        inner = inner_of(algorithm, patch, kept)
        np.testing.assert_array_equal(patch, mirrored(inner, algorithm.encoder_shape))
        start = inner.reshape(-1, rank).min(axis=0).astype(int) - 1
        part = image[tuple(slice(a, a + size) for a, size in zip(start, kept, strict=True))]
        assert np.array_equal(inner, part) or (rank == 3 and np.array_equal(inner, part[::-1]))
        origins.append(start - algorithm.grid.origin(cell))
    # Of one crop of the scan: no cell is further from the first than a crop of its patch can be.
    spread = np.ptp(origins, axis=0)
    assert (spread <= np.array(algorithm.grid.patch_shape) - kept).all() and (spread > 0).all()


@pytest.mark.parametrize("shape", [(24, 24, 1), (40, 37, 1), (24, 24, 24, 1), (24, 32, 20, 2)])
def test_no_patch_has_a_voxel_that_is_not_the_scans(shape):
    """Planes of zeros at the border of a scan, or where a crop was taken, told in which column a patch lies."""
    noise = np.random.default_rng(0).uniform(0.1, 1, (8, *shape)).astype(np.float32)
    for cut, _ in examples(CPC(shape), noise):
        assert float(tf.reduce_min(cut)) >= 0.1


def test_each_3d_patch_is_flipped_on_its_own():
    shape = (32, 32, 32, 1)
    rows = np.broadcast_to(np.arange(1, 33, dtype=np.float32)[:, None, None, None], shape)
    cut, _ = CPC(shape, crop_size=32).make_example(tf.constant(rows), tf.constant([0, 2]))
    steps = np.sign(cut[:, 4, 4, 4, 0] - cut[:, 3, 4, 4, 0])
    assert 10 < (steps > 0).sum() < 54


@pytest.mark.parametrize("shape", SHAPES)
def test_same_seed_same_example(shape):
    algorithm = CPC(shape)
    images = volumes(3, shape)
    first, second = (list(examples(algorithm, images, seed=3)) for _ in range(2))
    eager = [algorithm.make_example(tf.constant(image), tf.constant([i, 3])) for i, image in enumerate(images)]
    for one, two, three in zip(first, second, eager, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)
    other = next(iter(examples(algorithm, images, seed=4)))
    assert not np.array_equal(other[0], first[0][0])
    assert not np.array_equal(other[1], first[0][1])


def test_every_patch_is_encoded_exactly_once():
    algorithm = CPC((16, 16, 16, 1), **SMALL)
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, inputs):
            seen.append(tuple(inputs.shape))
            return inputs

    model = algorithm.make_model(Recorder(name="encoder"), seed=0)
    seen.clear()
    model(batch(algorithm, 3)[0])
    assert seen == [(3 * 64, 4, 4, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_compare_contexts_with_the_codes_below(shape):
    algorithm = CPC(shape, **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs = batch(algorithm, 2)[0].numpy()
    before = model(inputs).numpy()
    for row_index, row in enumerate(algorithm.target_rows):
        changed = inputs.copy()
        changed[1, algorithm.cells.index((row, *algorithm.columns[2]))] += 1
        touched = np.abs(model(changed).numpy() - before) > 1e-6
        assert touched[:, :, row_index, 1, 2].all()
        touched[:, :, row_index, 1, 2] = False
        assert not touched.any()
    cell = algorithm.context(algorithm.columns[0])[0]
    changed = inputs.copy()
    changed[0, algorithm.cells.index(cell)] += 1
    touched = (np.abs(model(changed).numpy() - before) > 1e-6).any(axis=(2, 3, 4))
    expected = [cell in algorithm.context(column) for column in algorithm.columns]
    np.testing.assert_array_equal(touched, [expected, [False] * len(expected)])


def test_info_nce_and_accuracy_agree_with_a_slow_loop():
    algorithm = CPC((20, 20, 1), patches_per_side=5)
    y_pred = scores(algorithm, 3)
    expected, hits = np.zeros(3), np.zeros(3)
    for b, c, r in np.ndindex(y_pred.shape[:3]):
        candidates = y_pred[b, c, r]
        expected[b] += np.log(np.exp(candidates).sum()) - candidates[b, c]
        hits[b] += candidates[b, c] == candidates.max()
    count = y_pred.shape[1] * y_pred.shape[2]
    np.testing.assert_allclose(algorithm.loss(np.zeros((3, 5), np.float32), y_pred), expected / count, rtol=1e-5)
    assert accuracy(algorithm, np.zeros((3, 5), np.float32), y_pred) == pytest.approx((hits / count).mean())


def test_binary_loss_agrees_with_a_slow_loop():
    algorithm = CPC((20, 20, 1), patches_per_side=5, cpc_mode="binary")
    y_pred = scores(algorithm, 3)
    draws = np.random.default_rng(1).uniform(size=(3, 5)).astype(np.float32)
    draws[0, :2] = 0, np.nextafter(np.float32(1), np.float32(0))
    expected = np.zeros(3)
    for b, c in np.ndindex(3, 5):
        logits = y_pred[b, c].mean(axis=0)
        others = np.delete(logits.ravel(), 5 * b + c)
        negative = others[int(draws[b, c].astype(float) * len(others))]
        expected[b] += (np.log1p(np.exp(-logits[b, c])) + np.log1p(np.exp(negative))) / 2
    np.testing.assert_allclose(algorithm.loss(draws, y_pred), expected / 5, rtol=1e-5)
    draws[1] = -1  # does not count, though its patches serve as false ones
    np.testing.assert_allclose(algorithm.loss(draws, y_pred), expected / 5 * [1, 0, 1], rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["info_nce", "binary"])
def test_training_starts_at_chance_and_learns(shape, mode):
    algorithm = CPC(shape, cpc_mode=mode, code_size=64, context_units=16)
    inputs, targets = batch(algorithm, 4)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=1)
    values = algorithm.loss(targets, model(inputs, training=False))
    chance = np.log(4 * len(algorithm.columns)) if mode == "info_nce" else np.log(2)
    assert values.shape == (4,)
    assert values.dtype == tf.float32
    assert float(tf.reduce_mean(values)) == pytest.approx(chance, rel=0.05)

    model.compile(keras.optimizers.Adam(1e-2), loss=algorithm.loss, metrics=algorithm.metrics())
    make_variables(model, tf.data.Dataset.from_tensors((inputs, targets)))
    history = [model.train_on_batch(inputs, targets, return_dict=True) for _ in range(80)]
    assert history[-1]["loss"] < 0.975 * history[0]["loss"]
    assert set(history[0]) == {"loss", "accuracy", "complete"}
    assert history[0]["complete"] == 1


def test_temperature_divides_the_scores():
    inputs = batch(CPC((16, 16, 1), **SMALL), 2)[0]
    warm, cold = (
        algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)(inputs)
        for algorithm in (CPC((16, 16, 1), **SMALL, temperature=value) for value in (1.0, 0.25))
    )
    np.testing.assert_allclose(cold, 4 * warm, rtol=1e-5)


def test_initial_weights_depend_on_the_seed_alone():
    algorithm = CPC((16, 16, 1), **SMALL)
    first, second, third = (
        algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=seed).get_weights() for seed in (0, 0, 1)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(not np.array_equal(a, b) for a, b in zip(first, third, strict=True)) >= 4


def test_parameter_count_is_the_predecessors():
    algorithm = CPC((128, 128, 128, 1))
    encoder = unet(algorithm.encoder_shape, enc_filters=16, unet_preset="upstream")
    assert algorithm.make_model(encoder, seed=0).count_params() == 5_311_504


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")  # Keras, numpy 2
def test_model_reloads_in_safe_mode(tmp_path):
    algorithm = CPC((16, 16, 16, 1), **SMALL)
    model = algorithm.make_model(tiny_encoder(algorithm.encoder_shape), seed=0)
    inputs = batch(algorithm, 2)[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert loaded.get_layer("encoder").count_params() == model.get_layer("encoder").count_params()


@pytest.mark.parametrize("shape", SHAPES)
def test_description_shows_roles(shape):
    algorithm = CPC(shape)
    inputs, targets = (value.numpy() for value in algorithm.make_example(tf.constant(volumes(1, shape)[0]), [0, 1]))
    panels = algorithm.describe(inputs, targets)
    roles = [panel.title.split()[0] for panel in panels]
    assert roles.count("anchor") == 1
    assert roles.count("predicted") == len(algorithm.target_rows)
    assert roles.count("context") >= 2
    assert all(panel.image.shape == algorithm.encoder_shape for panel in panels)
    assert algorithm.name == "cpc"


@pytest.mark.parametrize("size", [16, 20, 21, 24, 25, 28, 29, 32, 33, 58, 66, 67, 72, 96, 128])
@pytest.mark.parametrize("patches_per_side", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("rank", [2, 3])
def test_what_the_encoder_sees_holds_every_crop_of_a_patch(rank, patches_per_side, size):
    for augmented in (True, False):
        try:
            algorithm = CPC((*[size] * rank, 1), patches_per_side=patches_per_side, patch_augment=augmented)
        except UserError:
            continue
        assert all(seen >= kept for seen, kept in zip(algorithm.encoder_shape[:-1], algorithm.kept_shape, strict=True))


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 32, 32, 1)])
def test_a_crop_of_less_than_a_third_is_refused(shape):
    with pytest.raises(UserError, match="^crop_size: .*less than a third"):
        CPC(shape, crop_size=10)
