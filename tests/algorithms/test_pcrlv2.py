"""PCRLv2."""

from __future__ import annotations

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.pcrlv2 import PCRLv2
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.ops import geometry, seeds, views

SHAPES = [(16, 16, 2), (16, 16, 16, 1)]
SMALL = {"num_local_views": 2, "dropout": 0.0}
CLEAN = {"blur_sigma": 0.0, "noise_sigma": 0.0, "gamma": 0.0, "swap_share": 0.0}
STILL = {"flip": False, "affine_scale": 0.0, "affine_degrees": 0.0}
TINY = {"enc_filters": 2, "num_layers": 2, "pooling": "none", "dropout": 0.0}


def scan(shape, seed=0):
    """Blurred noise in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise = scipy.ndimage.gaussian_filter(noise, (*[1.5] * (len(shape) - 1), 0))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def example(algorithm, image, seed=0):
    return algorithm.make_example(tf.constant(image), tf.constant([seed, 1]))[0]


def batch(algorithm, number):
    """Inputs that no scan was read for, and quantiles of a batch."""
    generator, shapes = np.random.default_rng(0), algorithm.encoder_shapes
    sizes = {"global_views": (2, *shapes[0]), "targets": (2, *shapes[0])}
    if algorithm.num_local_views:
        sizes["local_views"] = (algorithm.num_local_views, *shapes[1])
    inputs = {name: tf.constant(generator.uniform(size=(number, *size)), "float32") for name, size in sizes.items()}
    return algorithm.sampling.make_batch(
        inputs, tf.zeros((number, 2 + 2 * algorithm.num_local_views)), tf.constant([0, 7])
    )


@functools.cache
def some_batch(rank):
    return batch(PCRLv2(SHAPES[rank - 2], **SMALL), 3)


def make_model(algorithm, **options):
    encoder = unet(algorithm.encoder_shape, **TINY | options, seed=1)
    return algorithm.make_model(encoder, seed=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_by_default(shape):
    algorithm, rank = PCRLv2(shape), len(shape) - 1
    assert algorithm.global_dim == (8,) * rank
    assert algorithm.local_dim == (4,) * rank
    assert algorithm.global_boxes.sizes == tuple((side,) * rank for side in (10, 12, 14))
    assert algorithm.local_boxes.sizes == tuple((side,) * rank for side in (2, 4, 6))
    assert algorithm.local_region == {2: "image", 3: "bounding_box"}[rank]
    assert algorithm.corruption.swap_cell == (2,) * rank
    assert algorithm.encoder_shape == (*[None] * rank, shape[-1])
    assert algorithm.encoder_shapes == ((*[8] * rank, shape[-1]), (*[4] * rank, shape[-1]))
    inputs = example(algorithm, scan(shape))
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "global_views": (2, *[8] * rank, shape[-1]),
        "targets": (2, *[8] * rank, shape[-1]),
        "local_views": (6, *[4] * rank, shape[-1]),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_targets_are_the_views_bit_for_bit_and_no_corruption_alters_them(shape):
    image = scan(shape)
    plain, clean = PCRLv2(shape, **SMALL, **STILL), PCRLv2(shape, **SMALL, **STILL, **CLEAN)
    for seed in range(2):
        inputs, untouched = example(plain, image, seed), example(clean, image, seed)
        boxes = zip(*plain.global_boxes.draw(seeds.fold(tf.constant([seed, 1]), 0)), strict=True)
        expected = [geometry.resize_box(tf.constant(image), *box, plain.global_dim) for box in boxes]
        np.testing.assert_array_equal(inputs["targets"], expected)
        np.testing.assert_array_equal(untouched["targets"], expected)
        np.testing.assert_array_equal(untouched["global_views"], expected)
        for view, target in zip(inputs["global_views"].numpy(), expected, strict=True):
            assert not np.array_equal(view, target)


@pytest.mark.parametrize("normalization", ["min_max", "z_score"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_corruption_alters_the_target_of_a_deformed_view(shape, normalization):
    image, options = scan(shape), SMALL | {"scan_normalization": normalization}
    corrupted, clean = (example(PCRLv2(shape, **options, **off), image) for off in ({}, CLEAN))
    np.testing.assert_array_equal(corrupted["targets"], clean["targets"])
    for name in ("global_views", "local_views"):
        assert not np.array_equal(corrupted[name], clean[name])
    assert not np.array_equal(clean["targets"], example(PCRLv2(shape, **options, **CLEAN, **STILL), image)["targets"])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_deformation_hits_view_and_target_alike(shape):
    algorithm, still = PCRLv2(shape, **SMALL, **CLEAN), PCRLv2(shape, **SMALL, **CLEAN, **STILL)
    inputs = example(algorithm, scan(shape))
    np.testing.assert_array_equal(inputs["global_views"], inputs["targets"])
    first, second = inputs["targets"].numpy() - example(still, scan(shape))["targets"].numpy()
    assert np.abs(first).max() > 0
    assert np.abs(second).max() > 0
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_move_in_global_views_only(shape):
    algorithm = PCRLv2(shape, **SMALL, **CLEAN | {"swap_share": 0.5})
    inputs, still = example(algorithm, scan(shape)), example(PCRLv2(shape, **SMALL, **CLEAN), scan(shape))
    for view, target in zip(inputs["global_views"].numpy(), inputs["targets"].numpy(), strict=True):
        assert not np.array_equal(view, target)
        np.testing.assert_array_equal(np.sort(view, axis=None), np.sort(target, axis=None))
    np.testing.assert_array_equal(inputs["local_views"], still["local_views"])


@pytest.mark.parametrize("region", ["bounding_box", "image"])
def test_local_views_come_from_their_region(region):
    """Of an image of coordinates a view tells where it was: each voxel is the mean of the place that it covers."""
    shape = (32, 24, 2)
    coordinates = np.stack(np.meshgrid(*map(np.arange, shape[:-1]), indexing="ij"), axis=-1).astype(np.float32)
    algorithm = PCRLv2(
        shape,
        global_sizes=(12, 14),
        local_sizes=(4,),
        local_dim=4,
        local_region=region,
        num_local_views=12,
        **STILL,
        **CLEAN,
    )
    outside = 0
    for seed in range(3):
        inputs = example(algorithm, coordinates, seed)
        origins, sizes = algorithm.global_boxes.draw(seeds.fold(tf.constant([seed, 1]), 0))
        ends = np.add(origins, sizes)
        shared = np.clip(ends.min(axis=0) - np.max(origins, axis=0), 0, None).prod()
        assert shared / (np.prod(sizes, axis=1).sum() - shared) >= 0.3
        for target, origin, size in zip(inputs["targets"].numpy(), origins.numpy(), sizes.numpy(), strict=True):
            assert (target.min(axis=(0, 1)) >= origin).all()
            assert (target.max(axis=(0, 1)) <= origin + size - 1).all()
        origin, size = (x.numpy() for x in views.bounding_box(origins, sizes))
        local = inputs["local_views"].numpy()
        assert len(np.unique(local[:, 0, 0], axis=0)) > 8
        inside = (local >= origin) & (local <= origin + size - 1)
        outside += np.count_nonzero(~inside.all(axis=(1, 2, 3)))
    assert (outside > 0) == (region == "image")


def test_z_score_is_for_the_input_alone():
    inputs = example(PCRLv2((16, 16, 2), **SMALL, scan_normalization="z_score"), scan((16, 16, 2)))
    for name in ("global_views", "local_views"):
        np.testing.assert_allclose(np.mean(inputs[name], axis=(1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(np.std(inputs[name], axis=(1, 2)), 1, rtol=1e-3)
    assert np.min(inputs["targets"]) >= 0
    np.testing.assert_array_equal(
        inputs["targets"], example(PCRLv2((16, 16, 2), **SMALL), scan((16, 16, 2)))["targets"]
    )


@pytest.mark.parametrize("draw", ["pair", "step"])
def test_the_scales_of_a_step_are_drawn_once_for_the_batch(draw):
    algorithm, rows = PCRLv2((16, 16, 1), scale_draw=draw), []
    for step in range(30):
        _, quantiles = algorithm.sampling.make_batch({}, tf.zeros((3, 14)), tf.constant([step, 7]))
        row, *others = quantiles.numpy()
        assert all(np.array_equal(row, other) for other in others)
        assert len(set(row)) == (1 if draw == "step" else 14)
        rows.append(row)
    assert np.min(rows) >= 0
    assert np.max(rows) < 1
    for column in np.transpose(rows):
        assert set(np.floor(column * 3)) == {0, 1, 2}
    np.testing.assert_array_equal(
        rows[4], algorithm.sampling.make_batch({}, tf.zeros((1, 14)), tf.constant([4, 7]))[1][0]
    )


def with_beta(terms, beta):
    """The terms with β behind them, as a model gives them."""
    return tf.pad(tf.constant(terms[..., :-1]), ((0, 0), (0, 0), (0, 1)), constant_values=beta)


def slow_loss(terms, scales, beta, options):
    """Of one scan: terms (scales, 4 + 2 n), of which the last stands for β, scales (2 + 2 n,)."""
    final, drawn = terms[-1, :2], terms[scales[0], :2]
    kind = options.get("restoration", "both_views")
    restoration = {
        "both_views": final.sum() + beta * drawn.sum(),
        "paper": drawn.sum(),
        "code": final[0] + beta * drawn[0],
    }[kind]
    local = [terms[scale, 3 + k] for k, scale in enumerate(scales[2:])]
    return restoration + terms[scales[1], 2] + (np.sum if options.get("local_loss") == "sum" else np.mean)(local)


@pytest.mark.parametrize(
    "options", [{}, {"restoration": "paper"}, {"restoration": "code"}, {"local_loss": "sum"}], ids=str
)
def test_loss_by_hand(options):
    generator = np.random.default_rng(0)
    algorithm = PCRLv2((16, 16, 1), **options)
    terms, scales = generator.normal(size=(4, 3, 16)).astype("float32"), generator.integers(0, 3, (4, 14))
    for beta in (1.0, 0.5, 0.0):
        loss = algorithm.loss((scales + 0.5) / 3, with_beta(terms, beta))
        assert loss.dtype == "float32"
        expected = [slow_loss(*one, beta, options) for one in zip(terms, scales, strict=True)]
        np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    almost_one = np.full((4, 14), np.nextafter(np.float32(1), np.float32(0)))
    finest = [slow_loss(one, [2] * 14, 0.0, options) for one in terms]
    np.testing.assert_allclose(algorithm.loss(almost_one, with_beta(terms, 0.0)), finest, rtol=1e-4, atol=1e-5)


def test_a_traced_step_sees_the_schedule():
    algorithm, (inputs, quantiles) = PCRLv2(SHAPES[0], **SMALL), some_batch(2)
    model = make_model(algorithm)
    (callback,) = algorithm.callbacks(model, 240)
    step = tf.function(lambda: model(inputs, training=False))
    losses, betas = [], []
    for epoch in (None, 0, 120, 240):
        if epoch is not None:
            callback.on_epoch_begin(epoch)
        terms = step().numpy()
        betas.append(np.unique(terms[..., -1]))
        losses.append(algorithm.loss(quantiles, terms).numpy())
    np.testing.assert_allclose(np.concatenate(betas), [1, 1, 0.5, 0], atol=1e-7)
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_allclose(losses[2], (losses[0] + losses[3]) / 2, rtol=1e-5)
    assert not np.allclose(losses[0], losses[3])


def test_twice_the_same_local_views_leave_the_mean():
    inputs, _ = some_batch(2)
    inputs = dict(inputs)
    one, two = (PCRLv2(SHAPES[0], num_local_views=number, dropout=0.0) for number in (2, 4))
    double = inputs | {"local_views": tf.repeat(inputs["local_views"], 2, axis=1)}
    losses = [
        algorithm.loss(tf.zeros((3, 2 + 2 * algorithm.num_local_views)), make_model(algorithm)(given, training=True))
        for algorithm, given in ((one, inputs), (two, double))
    ]
    np.testing.assert_allclose(*losses, atol=1e-4)


def test_every_local_view_counts():
    algorithm = PCRLv2(SHAPES[0], dropout=0.0)
    inputs, quantiles = batch(algorithm, 1)
    # The same scan seven times, once as it is and once with each local view changed.
    inputs = {name: np.repeat(value, 7, axis=0) for name, value in inputs.items()}
    for number in range(6):
        inputs["local_views"][1 + number, number] **= 2
    before, *after = algorithm.loss(
        np.repeat(quantiles, 7, axis=0), make_model(algorithm, enc_filters=8)(inputs)
    ).numpy()
    assert np.abs(after - before).min() > 1e-7


def test_without_local_views():
    algorithm = PCRLv2(SHAPES[0], num_local_views=0, dropout=0.0)
    assert len(algorithm.encoder_shapes) == 1
    inputs, quantiles = batch(algorithm, 2)
    assert set(inputs) == {"global_views", "targets"}
    terms = make_model(algorithm)(inputs)
    assert terms.shape == (2, 2, 4)
    expected = [
        slow_loss(one, [0, 0, 0], 1.0, {"local_loss": "sum"})
        for one in np.pad(terms[..., :-1], ((0, 0), (0, 0), (0, 2)))
    ]
    np.testing.assert_allclose(algorithm.loss(0 * quantiles, terms), expected, rtol=1e-5)
    assert [metric.__name__ for metric in algorithm.metrics()] == ["restoration_mse", "comparison"]
    assert len(algorithm.describe(*tf.nest.map_structure(lambda x: x[0], (inputs, quantiles)))) == 4


def gradients(algorithm, model, inputs, quantiles):
    """By name of a layer, whether any of its variables gets a gradient."""
    with tf.GradientTape() as tape:
        loss = algorithm.loss(quantiles, model(inputs, training=True))
    layers = [layer for layer in model.layers if layer.trainable_variables]
    found = tape.gradient(loss, [[variable.value for variable in layer.trainable_variables] for layer in layers])
    reached = [any(x is not None and np.abs(x).max() > 1e-9 for x in variables) for variables in found]
    return dict(zip((layer.name for layer in layers), reached, strict=True))


@pytest.mark.parametrize("drawn", [0, 1])
def test_only_the_scale_that_was_drawn_learns(drawn):
    algorithm, (inputs, _) = PCRLv2(SHAPES[0], **SMALL, restoration="paper"), some_batch(2)
    model = make_model(algorithm)
    reached = gradients(algorithm, model, inputs, tf.fill((3, 6), drawn / 2))
    assert reached.pop("encoder")
    assert reached.pop("decoder")
    own = f"_{drawn + 1}"
    assert reached == {name: own in name for name in reached}
    assert {name.removesuffix("_predictor").removesuffix("_norm") for name in reached} == {
        *("restoration_1", "restoration_2", "scale_1", "scale_2")
    }


def test_a_step_changes_encoder_decoder_and_heads():
    algorithm, (inputs, quantiles) = PCRLv2(SHAPES[1], **SMALL), some_batch(3)
    model = make_model(algorithm)
    model.compile(keras.optimizers.SGD(0.1), loss=algorithm.loss, metrics=algorithm.metrics(), run_eagerly=True)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    logs = model.train_on_batch(inputs, quantiles, return_dict=True)
    assert set(logs) == {"loss", "restoration_mse", "comparison", "local_comparison"}
    drawn = int(quantiles[0, 0] * 2)
    for name in ("encoder", "decoder", "restoration_2", f"restoration_{drawn + 1}"):
        after = model.get_layer(name).get_weights()
        assert any(not np.array_equal(a, b) for a, b in zip(before[name], after, strict=True))


@pytest.mark.parametrize("rank", [2, 3])
def test_the_restorer_gives_the_finest_restoration(rank):
    algorithm, (inputs, quantiles) = PCRLv2(SHAPES[rank - 2], **SMALL), some_batch(rank)
    model = make_model(algorithm)
    restorer = algorithm.restorer(model)
    seen, wanted = algorithm.restorations(inputs, quantiles)
    errors = [np.square(restorer(seen[:, view]) - wanted[:, view]) for view in range(2)]
    expected = np.mean(errors, axis=(0, *range(2, rank + 3)))
    np.testing.assert_allclose(algorithm.restoration_mse(quantiles, model(inputs)), expected, rtol=1e-4)
    names = [layer.name for layer in restorer.layers]
    assert names[1] == "encoder"
    levels = [name for name in names if name.startswith("decoder_")]
    assert levels == [layer.name for layer in model.get_layer("decoder").layers[1:]]
    assert restorer.get_layer("decoder_level_0_up") is model.get_layer("decoder").get_layer("decoder_level_0_up")
    assert restorer(np.zeros((1, *[16] * rank, algorithm.input_shape[-1]), "float32")).shape[1] == 16


def test_description_shows_the_views():
    algorithm, (inputs, quantiles) = PCRLv2(SHAPES[1], **SMALL), some_batch(3)
    one = {name: value[0].numpy() for name, value in inputs.items()}
    panels = algorithm.describe(one, quantiles[0])
    assert [panel.title for panel in panels[3:]] == ["global view 2: corrupted", "local view 1", "local view 2"]
    np.testing.assert_array_equal(panels[2].image, one["targets"][1])
    np.testing.assert_array_equal(panels[5].image, one["local_views"][1])


KEYS = {"algorithm": "pcrlv2", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 64, "num_layers": 3}


def load(folder, **keys):
    path = folder / "experiment.json"
    path.write_text(json.dumps(KEYS | keys))
    return load_experiment("train", path)


def test_keys_reach_the_task_and_the_encoder(tmp_path):
    experiment = load(
        tmp_path,
        global_dim=[32, 32, 16],
        local_dim=16,
        global_sizes=[32, [48, 48, 32]],
        local_sizes=[8],
        blur_sigma=1.0,
        normalization="group",
    )
    task = build.make_algorithm(experiment)
    assert (task.global_dim, task.local_dim) == ((32, 32, 16), (16, 16, 16))
    assert task.global_boxes.sizes == ((32, 32, 32), (48, 48, 32))
    assert task.corruption == dataclasses.replace(
        PCRLv2((64, 64, 64, 1)).corruption, blur_sigma=1.0, swap_cell=(4, 4, 2)
    )
    assert (task.normalization, task.dropout) == ("group", None)
    assert build.options_for(experiment, registry.encoder(experiment.encoder_name))["normalization"] == "group"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"num_layers": 4},
            "receives 16x16x16 voxels and divides them by 32x32x32 .5 poolings by 2., which leaves a rest",
        ),
        ({"global_dim": [32, 32]}, "global_dim: expected one positive integer or 3 of them"),
        ({"global_sizes": [80]}, "global_sizes, data_dim: a view of .80, 80, 80. voxels"),
        ({"global_sizes": [[16, 16, 64]], "local_sizes": [24]}, "local_sizes: none of .24, 24, 24. voxels"),
        ({"swap_cell": 20}, "swap_cell, global_dim: a view of .32, 32, 32. voxels does not have two cells"),
        ({"min_iou": 0}, "min_iou: input should be greater than 0"),
        ({"local_loss": "max"}, "local_loss: input should be 'mean' or 'sum'"),
    ],
)
def test_mistakes_are_found_when_the_file_is_loaded(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **keys)


def test_an_encoder_that_pools_a_view_away_is_refused():
    algorithm = PCRLv2((64, 64, 1), local_dim=2)
    with pytest.raises(UserError, match=r"the encoder leaves nothing of a view of \[2, 2\] voxels"):
        make_model(algorithm)
