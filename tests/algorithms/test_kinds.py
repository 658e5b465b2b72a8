"""Scans that do not count: what fills a part, what the target of the others is, and what is told of them."""

import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.cpc import CPC
from self_supervised_3d_tasks.algorithms.jigsaw import Jigsaw
from self_supervised_3d_tasks.algorithms.kinds import SelectiveAlgorithm
from self_supervised_3d_tasks.algorithms.rubiks_cube import RubiksCube
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry

SHAPES = {2: (24, 24, 1), 3: (24, 24, 24, 2)}
SELECTIVE = [name for name in registry.known("algorithm") if issubclass(registry.algorithm(name), SelectiveAlgorithm)]


def test_which_tasks_are_about_parts():
    assert SELECTIVE == ["cpc", "jigsaw", "relative_patch_location", "rubiks_cube", "tcpc"]


def test_a_part_is_filled_by_nineteen_of_twenty_voxels():
    parts = np.zeros((4, 40, 2, 2), np.float32)
    parts[0, :38, :, 0] = 0.06
    parts[1, :37, :, 0], parts[1, 37:] = 0.06, 0.05  # one row fewer
    parts[2, :10, :, 0], parts[2, 10:38, :, 1] = 0.9, 0.9  # either channel
    task = Jigsaw((24, 24, 1))
    np.testing.assert_array_equal(task.filled(tf.constant(parts)), [True, False, True, False])
    every = Jigsaw((24, 24, 1), min_foreground=0)
    np.testing.assert_array_equal(every.filled(tf.constant(parts)), [True] * 4)


@pytest.mark.parametrize("target", [np.int32(3), np.array([1, 0, 7], np.int32), np.array([0.0, 0.5], np.float32)])
def test_a_single_unfilled_part_makes_the_whole_target_minus_one(target):
    task, parts = Jigsaw((24, 24, 1)), np.full((3, 4, 4, 1), 0.5, np.float32)
    kept = task.only_if_filled(tf.constant(target), tf.constant(parts))
    np.testing.assert_array_equal(kept, target)
    assert task.counts(kept.numpy())
    parts[1, :2] = 0
    lost = task.only_if_filled(tf.constant(target), tf.constant(parts))
    np.testing.assert_array_equal(lost, np.full_like(target, -1))
    assert lost.dtype == kept.dtype
    assert not task.counts(lost.numpy())
    assert task.complete(np.stack([target, lost, target]), None).numpy().tolist() == [1, 0, 1]


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("name", [name for name in SELECTIVE if name != "rubiks_cube"])
def test_a_scan_that_does_not_count_is_told_and_costs_nothing(name, rank):
    """One of four scans begins with air: its loss is 0 whatever is answered, the accuracy is that of the others."""
    task = registry.algorithm(name)(SHAPES[rank])
    images = np.random.default_rng(0).uniform(0.1, 1, (4, *SHAPES[rank])).astype(np.float32)
    images[2][:6] = 0
    pairs = [task.make_example(tf.constant(image), tf.constant([i, 1])) for i, image in enumerate(images)]
    targets = np.stack([target for _, target in pairs])
    assert [task.counts(target) for target in targets] == [True, True, False, True]
    assert (targets[2] == -1).all() and (targets[[0, 1, 3]] >= 0).all()
    outputs = answers(task, 4)
    losses = task.loss(targets, outputs).numpy()
    assert losses[2] == 0 and (losses[[0, 1, 3]] > 0).all()
    accuracy = next(metric for metric in task.metrics() if getattr(metric, "name", "") == "accuracy")
    shares = []
    for scan in range(4):
        alone = np.full_like(targets, -1)
        alone[scan] = targets[scan]
        accuracy.reset_state()
        accuracy.update_state(alone, outputs)
        shares.append(float(accuracy.result()))
    assert shares[2] == 0
    accuracy.reset_state()
    accuracy.update_state(targets, outputs)
    assert float(accuracy.result()) == pytest.approx(np.mean([shares[0], shares[1], shares[3]]))
    complete = next(metric for metric in task.metrics() if getattr(metric, "__name__", "") == "complete")
    np.testing.assert_array_equal(complete(targets, outputs), [1, 1, 0, 1])
    # With every scan counted the same examples have their targets.
    every = registry.algorithm(name)(SHAPES[rank], min_foreground=0)
    inputs, target = every.make_example(tf.constant(images[2]), tf.constant([2, 1]))
    np.testing.assert_array_equal(inputs, pairs[2][0])
    assert every.counts(target.numpy())


def answers(task, number):
    """Random outputs of the task's model."""
    if isinstance(task, CPC):
        shape = (number, len(task.columns), len(task.target_rows), number, len(task.columns))
    elif task.name == "tcpc":
        shape = (number, number, len(task.cells))
    else:
        shape = (number, *([task.queries_per_image] if task.name != "jigsaw" else []), task.num_classes)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


COUNTS, DOES_NOT = np.int32(4), np.int32(-1)


def test_half_of_the_scans_are_enough_for_silence():
    task = Jigsaw((24, 24, 1))
    assert task.warnings([COUNTS] * 4) == []
    assert task.warnings([COUNTS, DOES_NOT, DOES_NOT, COUNTS]) == []
    assert task.warnings([]) == []


def test_fewer_are_warned_of():
    (warning,) = Jigsaw((24, 24, 1), min_foreground=0.75).warnings([DOES_NOT, COUNTS, DOES_NOT])
    assert warning.startswith(
        "min_foreground: 1 of the first 3 training scans have at least 75% tissue (above 5% of the range) in every "
        "part; the others show by their outline where a part lies, and nothing is learned from them. Cut off "
        "the background"
    )
    assert "reduce min_foreground: to 0 to count every scan" in warning


@pytest.mark.parametrize("name", SELECTIVE)
def test_scans_that_count_by_their_outline_are_warned_of(name):
    """Of four scans one has a slab of air, one is of noise all over."""
    task = registry.algorithm(name)(SHAPES[3], min_foreground=0.25)
    images = np.random.default_rng(0).uniform(0.1, 1, (4, *SHAPES[3])).astype(np.float32)
    images[1][:, :, :3] = images[3][:, :, :5] = 0

    def targets(task):
        pairs = [task.make_example(tf.constant(image), tf.constant([i, 1])) for i, image in enumerate(images)]
        return [target.numpy() for _, target in pairs]

    strict = task.strict()
    assert type(strict) is type(task) and (strict.min_foreground, task.min_foreground) == (0.95, 0.25)
    more = sum(map(task.counts, targets(task))) - sum(map(strict.counts, targets(strict)))
    assert more >= 1
    (warning,) = task.warnings(targets(task), targets(strict))
    assert warning.startswith(
        f"min_foreground: {more} of the first 4 training scans count at 0.25 that do not at 0.95:"
    )
    assert strict.warnings(targets(strict), targets(strict.strict())) == []


@pytest.mark.parametrize("target", [DOES_NOT, np.full(4, -1), np.full(4, -1.0, np.float32)])
def test_none_is_an_error(target):
    with pytest.raises(UserError, match="^min_foreground: 0 of the first 2 training scans.* nothing is learned from"):
        Jigsaw((24, 24, 1)).warnings([target, target])


def test_filled_cubes_still_tell_of_their_turns():
    blank, shown = np.array([3, 0, 1, 0, 1, 1, 1, 0, 1]), np.array([3, 0, 1, 0, 1, 1, 1, 1, 1])
    task = RubiksCube((24, 24, 1))
    assert task.warnings([shown, blank]) == []
    (warning,) = task.warnings([blank, shown, blank])
    assert "1 of the first 3" in warning and "the order is not learned from them" in warning
    (warning,) = task.warnings([blank, blank])  # no error
    assert "0 of the first 2" in warning
    order_alone = RubiksCube((24, 24, 1), cube_rotation="none")
    with pytest.raises(UserError, match="0 of the first 2 .* the order is not learned from them"):
        order_alone.warnings([np.array([3, 1, 1, 0, 1])] * 2)
