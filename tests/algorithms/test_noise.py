"""No pretext task can be solved on noise: under its default keys nothing but anatomy tells the answer.

Every volume is fresh, so that nothing can be learned by heart. What a task lets through by its patches' edges, by what
it pads in, or by the outline of a body shows as an accuracy above chance within these few steps.
"""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from self_supervised_3d_tasks.algorithms.kinds import SelectiveAlgorithm
from self_supervised_3d_tasks.data.preparing.resampling import resize
from self_supervised_3d_tasks.errors import UserError
from tests.algorithms import learners
from tests.algorithms.learners import GUESSING, SHAPES, Learner

BATCH, STEPS = 8, 60
# Nothing here makes a task easier but the number of answers: a leak of a bit or two then shows at once.
FEW_ANSWERS = {"num_permutations": 10, "queries_per_image": 8}


def test_which_tasks_are_asked():
    """All that have an accuracy with a chance level; the others restore images or compare whole scans."""
    assert GUESSING == ["cpc", "jigsaw", "relative_patch_location", "rotation", "rubiks_cube", "tcpc"]


def small_task(name, rank, **options):
    return learners.small_task(name, rank, **FEW_ANSWERS | options)


@functools.cache
def volumes(kind, rank, number, seed):
    noise = np.random.default_rng(seed).random((number, *SHAPES[rank]), dtype="float32")
    if kind == "smooth":
        noise = gaussian_filter(noise, (0, *[2] * rank, 0))
        axes = tuple(range(1, rank + 2))
        low, high = noise.min(axes, keepdims=True), noise.max(axes, keepdims=True)
        noise = (noise - low) / (high - low)
    if kind == "enlarged":  # along the last axis, of which every other plane was there
        noise = np.stack([resize(scan[..., ::2, :], SHAPES[rank][:-1]) for scan in noise])
    noise = 0.06 + 0.94 * noise  # all of it is tissue
    if kind == "ball":
        side = SHAPES[rank][0]
        offsets = np.indices(SHAPES[rank][:-1]) - (side - 1) / 2
        noise *= (np.square(offsets).sum(axis=0) <= (side / 2) ** 2)[..., None]
    return noise


def learned(learner, kind, steps=STEPS):
    return learner.learned(functools.partial(volumes, kind, learner.task.rank), batch=BATCH, steps=steps)


@functools.cache
def learner(name, rank):
    return Learner(small_task(name, rank))


@pytest.mark.parametrize("kind", ["iid", "smooth", "ball"])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", GUESSING)
def test_noise_leaves_a_task_at_chance(name, rank, kind):
    task = learner(name, rank).task
    if kind == "ball" and isinstance(task, SelectiveAlgorithm):
        images = volumes(kind, rank, 16, 0)
        seen = [target for _, target in learners.examples(task, images, 0).as_numpy_iterator()]
        if not any(map(task.counts, seen)) and task.all_is_lost:
            with pytest.raises(UserError, match="min_foreground: 0 of the first 16 training scans"):
                task.warnings(seen)
            return
    for metric, (value, error) in learned(learner(name, rank), kind).items():
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
    ((metric, (value, error)),) = learned(Learner(task), kind, steps).items()
    assert value - task.chance(BATCH)[metric] > 4 * error, f"{value:.3f} ± {error:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_an_axis_that_was_enlarged_tells_turns_unless_it_is_kept_apart(apart):
    task = small_task("rotation", 3)
    if apart:
        task.keep_apart({(0, 2), (1, 2)}, set())  # as `pretraining.axes` finds of such scans
    fresh = functools.partial(volumes, "enlarged", 3)
    ((value, error),) = Learner(task).learned(fresh, batch=16, steps=150).values()
    assert task.num_classes == (6 if apart else 10)
    if apart:
        assert abs(value - 1 / 6) <= 3 * error
    else:
        assert value - 1 / 10 > 4 * error
