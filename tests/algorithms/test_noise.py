"""No pretext task can be solved on noise: under its default keys nothing but anatomy tells the answer.

Every volume is fresh, so that nothing can be learned by heart. What a task lets through by its patches' edges, by what
it pads in, or by the outline of a body shows as an accuracy above chance within these few steps. The networks have few
filters, a small head and no dropout: they find in seconds what a large one finds in hours.
"""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from self_supervised_3d_tasks.algorithms.kinds import SelectiveAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training import optimizers
from tests.test_conformance import traced

SHAPES = {2: (48, 48, 1), 3: (24, 24, 24, 1)}
BATCH, STEPS, BATCHES = 8, 60, 32
# Nothing here makes a task easier but the number of answers: a leak of a bit or two then shows at once.
SMALL = {"code_size": 32, "context_units": 32, "head_units": (64,), "dropout_rate": 0.0}
SMALL |= {"num_permutations": 10, "queries_per_image": 8}


def small_task(name, rank, **options):
    task = registry.algorithm(name)
    return task(SHAPES[rank], **{key: SMALL[key] for key in SMALL.keys() & registry.options(task)}, **options)


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
    return tf.data.Dataset.from_tensor_slices((images, seeds)).map(traced(task))


class Learner:
    """A small network of a task, which can begin anew on each kind of noise: building and tracing it takes longest."""

    def __init__(self, task):
        filters = {2: 8, 3: 4}[task.rank]
        encoder = unet(task.encoder_shape, enc_filters=filters, num_layers=2, pooling="none")
        self.task, self.model = task, task.make_model(encoder, seed=0)
        self.model.compile(optimizers.make_optimizer(3e-3), task.loss)
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.weights, *self.model.optimizer.variables]
        self.first = [keras.ops.copy(variable.value) for variable in self.variables]
        self.metrics = {name: metric for metric in task.metrics() if (name := getattr(metric, "name", ""))}

    def learned(self, kind, steps=STEPS):
        """Train on fresh volumes; return by metric its mean over fresh batches and the standard error."""
        task, model = self.task, self.model
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)
        train = examples(task, kind, BATCH * steps, 1).batch(BATCH, drop_remainder=True)
        model.fit(train, shuffle=False, verbose=0)
        found = {name: [] for name in task.chance(BATCH)}
        for inputs, targets in examples(task, kind, BATCH * BATCHES, 2).batch(BATCH, drop_remainder=True):
            outputs = model.predict_on_batch(inputs)
            for name in found:
                metric = self.metrics[name]
                metric.reset_state()
                metric.update_state(targets, outputs)
                if float(metric.count) > 0:  # no scan counts towards the order of a puzzle in a ball
                    found[name].append(float(metric.result()))
        values = {name: np.array(values) for name, values in found.items() if values}
        floor = 1 / (4 * BATCH)  # of the deviation between batches
        return {name: (v.mean(), max(v.std(ddof=1), floor) / np.sqrt(len(v))) for name, v in values.items()}


@functools.cache
def learner(name, rank):
    return Learner(small_task(name, rank))


@pytest.mark.parametrize("kind", ["iid", "smooth", "ball"])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", GUESSING)
def test_noise_leaves_a_task_at_chance(name, rank, kind):
    task = learner(name, rank).task
    if kind == "ball" and isinstance(task, SelectiveAlgorithm):
        seen = [target for _, target in examples(task, kind, 16, 0).as_numpy_iterator()]
        if not any(map(task.counts, seen)) and task.all_is_lost:
            with pytest.raises(UserError, match="min_foreground: 0 of the first 16 training scans"):
                task.warnings(seen)
            return
    for metric, (value, error) in learner(name, rank).learned(kind).items():
        chance = task.chance(BATCH)[metric]
        assert abs(value - chance) <= 3 * error, f"{metric}: {value:.3f} ± {error:.3f} at chance {chance:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rank", "kind", "options", "steps"),
    [
        ("relative_patch_location", 2, "smooth", {"patch_gap": 0, "patch_jitter": 0}, STEPS),
        ("relative_patch_location", 3, "ball", {"min_foreground": 0}, STEPS),
        ("jigsaw", 2, "ball", {"min_foreground": 0}, STEPS),
        ("rubiks_cube", 2, "ball", {"min_foreground": 0, "cube_rotation": "none"}, 300),
        ("cpc", 2, "ball", {"min_foreground": 0}, STEPS),
        ("tcpc", 2, "ball", {"min_foreground": 0}, STEPS),
    ],
)
def test_these_steps_find_what_the_defaults_keep_out(name, rank, kind, options, steps):
    """Touching patches, and patches that show the outline of a ball, are found by the same networks."""
    task = small_task(name, rank, **options)
    ((metric, (value, error)),) = Learner(task).learned(kind, steps).items()
    assert value - task.chance(BATCH)[metric] > 4 * error, f"{value:.3f} ± {error:.3f}"
