"""No pretext task can be solved on noise: under its default keys nothing but anatomy tells the answer.

Every volume is fresh, so that nothing can be learned by heart. What a task lets through by its patches' edges, by what
it pads in, or by the outline of a body shows as an accuracy above chance within these few steps. The networks have few
filters, a small head and no dropout: they find in seconds what a large one finds in hours.
"""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.models.encoders.unet import unet

SHAPES = {2: (48, 48, 1), 3: (24, 24, 24, 1)}
BATCH, STEPS, BATCHES = 8, 150, 48
SMALL = {"code_size": 32, "context_units": 32, "head_units": (64,), "dropout_rate": 0.0}


def small_task(name, rank):
    task = registry.algorithm(name)
    return task(SHAPES[rank], **{key: value for key, value in SMALL.items() if key in registry.options(task)})


GUESSING = [name for name in registry.known("algorithm") if small_task(name, 3).chance(BATCH)]


def test_which_tasks_are_asked():
    """All that have an accuracy with a chance level; the others restore images or compare whole scans."""
    assert GUESSING == ["cpc", "jigsaw", "relative_patch_location", "rotation", "rubiks_cube", "tcpc"]


@functools.cache
def volumes(kind, rank, number, seed):
    noise = np.random.default_rng(seed).random((number, *SHAPES[rank]), dtype="float32")
    if kind == "smooth":
        noise = gaussian_filter(noise, (0, *[2] * rank, 0))
        axes = tuple(range(1, rank + 2))
        low, high = noise.min(axes, keepdims=True), noise.max(axes, keepdims=True)
        noise = (noise - low) / (high - low)
    if kind == "ball":
        side = SHAPES[rank][0]
        offsets = np.indices(SHAPES[rank][:-1]) - (side - 1) / 2
        noise *= (np.square(offsets).sum(axis=0) <= (side / 2) ** 2)[..., None]
    return noise


def examples(task, kind, number, seed):
    images = volumes(kind, task.rank, number, seed)
    seeds = np.random.default_rng([seed, 1]).integers(0, 2**31, (number, 2), dtype=np.int32)
    return tf.data.Dataset.from_tensor_slices((images, seeds)).map(task.make_example)


@pytest.mark.parametrize("kind", ["iid", "smooth", "ball"])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", GUESSING)
def test_noise_leaves_a_task_at_chance(name, rank, kind):
    task = small_task(name, rank)
    if kind == "ball" and hasattr(task, "warnings"):
        seen = [target for _, target in examples(task, kind, 16, 0).as_numpy_iterator()]
        if not any(map(task.counts, seen)):
            try:
                assert task.warnings(seen), "a scan that does not count is told"
            except UserError as error:
                assert "min_foreground" in str(error)  # the training is refused: nothing can be learned
                return
    encoder = unet(task.encoder_shape, enc_filters=8, num_layers=2, pooling="none")
    model = task.make_model(encoder, seed=0)
    model.compile(keras.optimizers.Adam(2e-3), task.loss)
    train = examples(task, kind, BATCH * STEPS, 1).batch(BATCH, drop_remainder=True)
    model.fit(train, shuffle=False, verbose=0)
    found = {metric: [] for metric in task.chance(BATCH)}
    for inputs, targets in examples(task, kind, BATCH * BATCHES, 2).batch(BATCH, drop_remainder=True):
        outputs = model(inputs, training=False)
        for metric in task.metrics():
            if getattr(metric, "name", "") in found:
                metric.update_state(targets, outputs)
                if float(metric.count) > 0:
                    found[metric.name].append(float(metric.result()))
    for metric, chance in task.chance(BATCH).items():
        values = found[metric]
        if values:  # no scan counts towards the order of a puzzle in a ball
            error = max(np.std(values, ddof=1), 1 / (BATCH * 4)) / np.sqrt(len(values))
            assert abs(np.mean(values) - chance) <= 3 * error, f"{metric}: {np.mean(values):.3f} at chance {chance:.3f}"
