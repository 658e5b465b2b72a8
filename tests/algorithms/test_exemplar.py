"""Exemplar networks."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.exemplar import Exemplar
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.ops import augment, seeds
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.training.first_step import make_variables

SHAPES = [(16, 12, 2), (12, 10, 8, 1)]
EVERYTHING = ("flip", "translation", "brightness", "contrast", "rotation", "zoom")
LAST = np.nextafter(np.float32(1), np.float32(0))


def tiny_encoder(shape):
    rank = len(shape) - 1
    image = keras.Input(shape)
    x = layers.convolution(rank, 4, 3, activation="relu", seed=0, name="convolution")(image)
    return keras.Model(image, layers.max_pool(rank, 2, name="pool")(x), name="encoder")


def volumes(number, shape, seed=0):
    """Blurred noise in [0, 1]."""
    sigma = (0, *[1.5] * (len(shape) - 1), 0)
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(number, *shape)), sigma)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def examples(algorithm, images, seed=0):
    """Each image with, where the task wants one, the next image as its companion."""
    make_example = tf.function(algorithm.make_example, autograph=False)  # as the stream traces it
    companions = np.roll(images, -1, axis=0)

    def example(i, image, companion):
        others = [companion] * algorithm.sampling.companions
        return make_example(image, tf.stack([tf.cast(i, tf.int32), seed]), *others)

    return tf.data.Dataset.from_tensor_slices((images, companions)).enumerate().map(lambda i, pair: example(i, *pair))


def batch(algorithm, number, seed=0):
    return next(iter(examples(algorithm, volumes(number, algorithm.input_shape), seed).batch(number)))


def draws(distance="l2", count=20):
    """Codes ``(batch, 2, code)`` and quantiles, their edges included."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(2, 7))
        codes = rng.normal(size=(number, 2, 5))
        codes = codes / np.linalg.norm(codes, axis=-1, keepdims=True) if distance == "l2" else 1 / (1 + np.exp(-codes))
        quantiles = rng.uniform(size=number).astype(np.float32)
        quantiles[:2] = (0, LAST)
        yield quantiles, codes.astype(np.float32)


def slow_distances(codes, distance):
    """Return D(anchor i, original j)."""
    reduce = np.sum if distance == "l2" else np.mean
    return np.array([[reduce((a - p) ** 2) for p in codes[:, 1].astype(float)] for a in codes[:, 0].astype(float)])


def slow_negative(row, i, quantile, mining):
    others = np.delete(row, i)
    if mining == "random":
        return others[int(float(quantile) * len(others))]
    if mining == "hard":
        return others.min()
    beyond = others[others > row[i]]
    return beyond.min() if len(beyond) else others.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_example_is_a_changed_copy_and_the_scan(shape):
    algorithm = Exemplar(shape, exemplar_augment=EVERYTHING)
    images = volumes(4, shape)
    quantiles = []
    for i, (views, quantile) in enumerate(examples(algorithm, images, seed=3)):
        assert views.shape == (2, *shape)
        np.testing.assert_array_equal(views[1], images[i])
        change = augment.draw_view(
            seeds.fold(tf.constant([i, 3]), 0), shape[:-1], EVERYTHING, max_translation=algorithm.max_translation
        )
        np.testing.assert_allclose(views[0], augment.apply(tf.constant(images[i]), change), atol=1e-5)
        assert not np.allclose(views[0], views[1], atol=1e-3)
        quantiles.append(float(quantile))
    assert len(set(quantiles)) == 4
    assert all(0 <= quantile < 1 for quantile in quantiles)


def test_a_translation_that_moves_nothing_is_refused():
    for share in (0, 0.1):
        with pytest.raises(UserError, match="exemplar_augment, max_translation: .* raise max_translation"):
            Exemplar((8, 8, 1), exemplar_augment=("translation",), max_translation=share)
    Exemplar((8, 12, 1), exemplar_augment=("translation",), max_translation=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_translation_alone_moves_the_anchor(shape):
    algorithm = Exemplar(shape, exemplar_augment=("translation",), max_translation=0.25)
    images, offsets = 1 + volumes(12, shape), set()
    for i, (views, _) in enumerate(examples(algorithm, images)):
        anchor, inside = views[0].numpy(), views[0].numpy()[..., 0] > 0
        offset, source, target = [], [], []
        for axis, size in enumerate(shape[:-1]):
            rows = np.flatnonzero(inside.any(axis=tuple(a for a in range(inside.ndim) if a != axis)))
            step = rows[0] if rows[0] else rows[-1] + 1 - size
            assert abs(step) <= size // 4
            offset.append(step)
            target.append(slice(max(step, 0), size + min(step, 0)))
            source.append(slice(max(-step, 0), size + min(-step, 0)))
        np.testing.assert_allclose(anchor[tuple(target)], images[i][tuple(source)], atol=1e-5)
        assert inside.sum() == np.prod([s.stop - s.start for s in target])
        offsets.add(tuple(offset))
    assert len(offsets) > 6


@pytest.mark.parametrize("shape", SHAPES)
def test_flip_alone_reverses_the_anchor(shape):
    images, seen = volumes(40, shape), set()
    rank = len(shape) - 1
    for views, _ in examples(Exemplar(shape, exemplar_augment=("flip",)), images):
        anchor, original = views.numpy()
        flips = [
            f for f in np.ndindex((2,) * rank) if np.allclose(anchor, np.flip(original, np.flatnonzero(f)), atol=1e-5)
        ]
        assert len(flips) == 1
        seen.add(flips[0])
    assert len(seen) == 2**rank


@pytest.mark.parametrize("shape", SHAPES)
def test_the_companion_is_the_negative(shape):
    algorithm = Exemplar(shape, sample_neg_examples_from="dataset", code_size=4)
    images = volumes(3, shape)
    for i, (views, _) in enumerate(examples(algorithm, images)):
        assert views.shape == (3, *shape)
        np.testing.assert_array_equal(views[1:], [images[i], images[(i + 1) % 3]])
    model = algorithm.make_model(tiny_encoder(shape), seed=0)
    inputs, targets = batch(algorithm, 3)
    codes = model(inputs).numpy().astype(float)
    expected = ((codes[:, 0] - codes[:, 1]) ** 2).sum(-1) - ((codes[:, 0] - codes[:, 2]) ** 2).sum(-1) + 1
    np.testing.assert_allclose(algorithm.loss(targets, codes), np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
    # Each scan has its own negative: one scan alone is a batch.
    np.testing.assert_allclose(
        algorithm.loss(targets[:1], codes[:1]), algorithm.loss(targets, codes)[:1], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("source", ["batch", "dataset"])
def test_same_seed_same_example(source):
    shape = SHAPES[1]
    algorithm = Exemplar(shape, sample_neg_examples_from=source, exemplar_augment=EVERYTHING)
    images = volumes(4, shape)
    first, second = (list(examples(algorithm, images, seed=3)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    other = next(iter(examples(algorithm, images, seed=4)))
    assert not np.array_equal(other[0], first[0][0])
    assert not np.array_equal(other[1], first[0][1])


@pytest.mark.parametrize(("source", "views"), [("batch", 2), ("dataset", 3)])
def test_every_view_is_encoded_exactly_once(source, views):
    shape = SHAPES[1]
    algorithm = Exemplar(shape, sample_neg_examples_from=source, code_size=8)
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, inputs):
            seen.append(tuple(inputs.shape))
            return inputs

    model = algorithm.make_model(Recorder(name="encoder"), seed=0)
    seen.clear()
    codes = model(batch(algorithm, 4)[0])
    assert seen == [(4 * views, *shape)]
    assert codes.shape == (4, views, 8)


@pytest.mark.parametrize("shape", SHAPES)
def test_views_share_one_head(shape):
    """Equal views have equal codes, wherever they stand in the batch."""
    algorithm = Exemplar(shape, code_size=8)
    model = algorithm.make_model(tiny_encoder(shape), seed=0)
    one, other = volumes(2, shape)
    codes = model(np.stack([[one, other], [other, one]])).numpy()
    np.testing.assert_allclose(codes[0], codes[1, ::-1], atol=1e-6)
    assert not np.allclose(codes[0, 0], codes[0, 1], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("distance", ["l2", "sigmoid_mse"])
@pytest.mark.parametrize("mining", ["random", "hard", "semihard"])
def test_loss_agrees_with_a_slow_loop(distance, mining):
    algorithm = Exemplar((8, 8, 1), code_size=5, alpha=0.5, triplet_mining=mining, exemplar_distance=distance)
    closed = 0
    in_graph = tf.function(algorithm.loss, input_signature=[tf.TensorSpec((None,)), tf.TensorSpec((None, 2, 5))])
    for quantiles, codes in draws(distance):
        rows = slow_distances(codes, distance)
        negatives = [slow_negative(row, i, quantiles[i], mining) for i, row in enumerate(rows)]
        expected = np.maximum(np.diag(rows) - negatives + 0.5, 0)
        values = algorithm.loss(quantiles, codes)
        assert values.dtype == tf.float32
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(in_graph(quantiles, codes), expected, rtol=1e-4, atol=1e-5)
        closed += (expected == 0).sum()
    assert closed > 0 or distance == "sigmoid_mse"


@pytest.mark.parametrize("mining", ["random", "hard", "semihard"])
def test_accuracy_is_about_a_random_negative_with_every_mining(mining):
    algorithm = Exemplar((8, 8, 1), code_size=5, triplet_mining=mining)
    for quantiles, codes in draws():
        rows = slow_distances(codes, "l2")
        expected = [row[i] < slow_negative(row, i, quantiles[i], "random") for i, row in enumerate(rows)]
        np.testing.assert_array_equal(algorithm.accuracy(quantiles, codes), expected)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_no_scan_is_its_own_negative(number):
    """Every original lies on its anchor and away from the other anchors, so that only the own one costs alpha."""
    algorithm = Exemplar((8, 8, 1), code_size=number, alpha=1.0)
    codes = np.repeat(np.eye(number, dtype=np.float32)[:, None], 2, axis=1)
    for quantile in (0, 1e-8, 0.25, 0.5, 0.75, 1 - 1e-7, LAST):
        np.testing.assert_array_equal(algorithm.loss(np.full(number, quantile, np.float32), codes), 0)
    for mining in ("hard", "semihard"):
        mined = Exemplar((8, 8, 1), code_size=number, triplet_mining=mining)
        np.testing.assert_array_equal(mined.loss(np.zeros(number, np.float32), codes), 0)


@pytest.mark.parametrize("options", [{}, {"triplet_mining": "hard"}, {"triplet_mining": "semihard"}])
@pytest.mark.parametrize("distance", ["l2", "sigmoid_mse"])
def test_equal_codes_cost_exactly_alpha(options, distance):
    algorithm = Exemplar((8, 8, 1), code_size=7, alpha=0.3, exemplar_distance=distance, **options)
    codes = np.full((4, 2, 7), 0.123, np.float32)
    np.testing.assert_array_equal(algorithm.loss(np.float32([0, 0.3, 0.6, 0.9]), codes), np.float32(0.3))


@pytest.mark.parametrize("source", ["batch", "dataset"])
@pytest.mark.parametrize("distance", ["l2", "sigmoid_mse"])
def test_every_branch_gets_a_gradient(source, distance):
    algorithm = Exemplar((8, 8, 1), code_size=5, sample_neg_examples_from=source, exemplar_distance=distance)
    codes = tf.random.stateless_uniform((3, algorithm.num_views, 5), [0, 1])
    quantiles = tf.constant([0.0, 0.4, 0.9])
    with tf.GradientTape() as tape:
        tape.watch(codes)
        total = tf.reduce_sum(algorithm.loss(quantiles, codes))
    gradient = tape.gradient(total, codes).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max(axis=-1).min() > 0


def test_sigmoid_codes_keep_the_distance_in_0_1():
    algorithm = Exemplar((8, 8, 1), code_size=6, exemplar_distance="sigmoid_mse")
    model = algorithm.make_model(tiny_encoder((8, 8, 1)), seed=0)
    codes = model(100 * np.random.default_rng(0).normal(size=(6, 2, 8, 8, 1))).numpy()
    assert codes.min() >= 0
    assert codes.max() <= 1
    extremes = np.zeros((2, 2, 6), np.float32)
    extremes[0, 0] = extremes[1, 1] = 1
    np.testing.assert_array_equal(algorithm.loss(np.zeros(2, np.float32), extremes), [2, 2])  # D of 1 and 0
    for quantiles, drawn in draws("sigmoid_mse"):
        values = Exemplar((8, 8, 1), code_size=5, exemplar_distance="sigmoid_mse").loss(quantiles, drawn).numpy()
        assert 0 <= values.min()
        assert values.max() <= 2


def test_l2_distances_reach_the_margin():
    """Codes of unit length are up to 4 apart: the hinge can close, which mean squared sigmoids cannot."""
    algorithm = Exemplar((8, 8, 1), code_size=2, alpha=3.9)
    codes = np.float32([[[1, 0], [1, 0]], [[-1, 0], [-1, 0]]])
    np.testing.assert_array_equal(algorithm.loss(np.zeros(2, np.float32), codes), 0)


OPTIONS = [{}, {"sample_neg_examples_from": "dataset"}, {"exemplar_distance": "sigmoid_mse"}]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_first_loss_is_about_alpha(rank, options):
    shape = (*[16] * rank, 1)
    algorithm = Exemplar(shape, code_size=32, **options)
    inputs, targets = batch(algorithm, 8)
    values = {}
    for normalization in ("none", "group"):
        encoder = unet(shape, enc_filters=4, num_layers=2, normalization=normalization)
        losses = algorithm.loss(targets, algorithm.make_model(encoder, seed=1)(inputs, training=False))
        assert losses.shape == (8,)
        values[normalization] = float(tf.reduce_mean(losses))
    assert values["none"] == pytest.approx(1, rel=0.1)
    assert 0.7 < values["group"] < 1.1  # maps without their brightness tell scans apart before training


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (SHAPES[0], {}),
        (SHAPES[1], {}),
        (SHAPES[1], {"sample_neg_examples_from": "dataset"}),
        (SHAPES[0], {"exemplar_distance": "sigmoid_mse"}),
        (SHAPES[0], {"triplet_mining": "hard"}),
        (SHAPES[0], {"triplet_mining": "semihard"}),
    ],
)
def test_training_learns(shape, options):
    algorithm = Exemplar(shape, code_size=32, **options)
    inputs, targets = batch(algorithm, 8)
    model = algorithm.make_model(tiny_encoder(shape), seed=1)
    model.compile(keras.optimizers.Adam(1e-2), loss=algorithm.loss, metrics=algorithm.metrics())
    make_variables(model, tf.data.Dataset.from_tensors((inputs, targets)))
    history = [model.train_on_batch(inputs, targets, return_dict=True) for _ in range(20)]
    assert set(history[0]) == {"loss", "accuracy"}
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]
    model.reset_metrics()
    assert model.test_on_batch(inputs, targets, return_dict=True)["accuracy"] > 0.7


@pytest.mark.parametrize("distance", ["l2", "sigmoid_mse"])
def test_blank_scans_have_finite_gradients(distance):
    shape = (8, 8, 1)
    algorithm = Exemplar(shape, code_size=4, exemplar_distance=distance)
    model = algorithm.make_model(tiny_encoder(shape), seed=0)
    images = volumes(3, shape)
    images[1] = 0
    inputs, targets = next(iter(examples(algorithm, images).batch(3)))
    with tf.GradientTape() as tape:
        values = algorithm.loss(targets, model(inputs))
    assert np.isfinite(values).all()
    for gradient in tape.gradient(values, [variable.value for variable in model.trainable_variables]):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mining", ["random", "hard", "semihard"])
def test_a_batch_of_one_scan_has_no_negative(mining):
    algorithm = Exemplar((8, 8, 1), code_size=4, triplet_mining=mining)
    codes = tf.ones((1, 2, 4))
    with pytest.raises(ValueError, match="a batch of one scan holds no negative"):
        algorithm.loss(tf.zeros((1,)), codes)
    with pytest.raises(ValueError, match="at least 2"):
        algorithm.accuracy(tf.zeros((1,)), codes)
    signature = [tf.TensorSpec((None,)), tf.TensorSpec((None, 2, 4))]
    loss = tf.function(algorithm.loss, input_signature=signature)
    assert np.isnan(loss(tf.zeros((1,)), codes)).all()
    np.testing.assert_array_equal(loss(tf.zeros((2,)), tf.ones((2, 2, 4))), [1, 1])


def test_what_the_pipeline_has_to_provide():
    batch_negatives, dataset_negatives = (
        Exemplar((8, 8, 1), sample_neg_examples_from=source) for source in ("batch", "dataset")
    )
    assert batch_negatives.sampling == Sampling(min_batch=2, distinct_scans=True)
    assert dataset_negatives.sampling == Sampling(companions=1)
    assert batch_negatives.encoder_shape == (8, 8, 1)
    assert batch_negatives.name == "exemplar"


@pytest.mark.parametrize("mining", ["hard", "semihard"])
def test_mining_needs_negatives_to_choose_from(mining):
    with pytest.raises(UserError, match=f'triplet_mining, sample_neg_examples_from: "{mining}"'):
        Exemplar((8, 8, 1), sample_neg_examples_from="dataset", triplet_mining=mining)


def test_something_has_to_change_the_anchor():
    with pytest.raises(UserError, match="exemplar_augment: expected at least one transformation"):
        Exemplar((8, 8, 1), exemplar_augment=())


def test_codes_are_float32_under_mixed_precision():
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = Exemplar((8, 8, 1), code_size=4).make_model(tiny_encoder((8, 8, 1)), seed=0)
        codes = model(tf.ones((2, 2, 8, 8, 1)))
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert codes.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, rtol=1e-5)


def test_parameter_count_is_the_predecessors_with_one_head():
    algorithm = Exemplar((128, 128, 128, 1))
    encoder = unet((128, 128, 128, 1), enc_filters=16, unet_preset="upstream")
    model = algorithm.make_model(encoder, seed=0)
    one_head = 4**3 * 256 * 1024 + 1024
    assert model.count_params() == 53_872_144 - 2 * one_head


@pytest.mark.parametrize("source", ["batch", "dataset"])
def test_model_reloads_in_safe_mode(source, tmp_path):
    algorithm = Exemplar((8, 8, 1), sample_neg_examples_from=source, code_size=8)
    model = algorithm.make_model(tiny_encoder((8, 8, 1)), seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    inputs = batch(algorithm, 2)[0]
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert loaded.get_layer("encoder").count_params() == model.get_layer("encoder").count_params()


@pytest.mark.parametrize(
    ("source", "roles"), [("batch", ["anchor", "positive"]), ("dataset", ["anchor", "positive", "negative"])]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_description_shows_the_views(source, roles, shape):
    algorithm = Exemplar(shape, sample_neg_examples_from=source)
    inputs, targets = (value.numpy() for value in next(iter(examples(algorithm, volumes(2, shape)))))
    panels = algorithm.describe(inputs, targets)
    assert [panel.title.partition(":")[0] for panel in panels] == roles
    for panel, view in zip(panels, inputs, strict=True):
        np.testing.assert_array_equal(panel.image, view)
