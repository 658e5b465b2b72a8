"""What an experiment may change about augmentation: the axes of flips, the angles of turns, labels of paired organs."""

import math

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.ops.augment import Rules


def draws(rank, rules, number=1500):
    dataset = tf.data.Dataset.range(number).map(
        lambda i: augment.draw(tf.stack([tf.cast(i, tf.int32), 5]), rank, rules)
    )
    return augment.Augmentation(*(value.numpy() for value in dataset.batch(number).get_single_element()))


def angles(matrices):
    """The angle of each rotation in degrees, from the trace: 1 + 2 cos in 3D, 2 cos in 2D."""
    trace = np.trace(matrices, axis1=1, axis2=2)
    return np.degrees(np.arccos(np.clip((trace - (matrices.shape[1] - 2)) / 2, -1, 1)))


@pytest.mark.parametrize(("rank", "axes"), [(2, ()), (2, (1,)), (3, (1, 2)), (3, (0,)), (3, ())])
def test_only_the_axes_that_are_named_are_flipped(rank, axes):
    change, free = draws(rank, Rules(flip_axes=axes)), draws(rank, Rules())
    for axis in range(rank):
        expected = free.flips[:, axis] if axis in axes else np.zeros(1500, bool)
        np.testing.assert_array_equal(change.flips[:, axis], expected)
    np.testing.assert_array_equal(change.matrix, free.matrix)


@pytest.mark.parametrize("degrees", [10.0, 75.0, 180.0])
def test_3d_turns_by_no_more_than_the_largest_angle(degrees):
    change = draws(3, Rules(degrees=degrees))
    assert change.resample.mean() == pytest.approx(0.5, abs=0.05)
    turned = angles(change.matrix[change.resample])
    assert 0.97 * degrees < turned.max() <= degrees + 1e-2
    assert turned.mean() == pytest.approx(degrees / 2, rel=0.07)
    # In both directions: the entries above and below the diagonal have either sign.
    assert np.sign(change.matrix[change.resample][:, 0, 1]).mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("rank", [2, 3])
def test_no_angle_leaves_a_scan_as_it_stands(rank):
    change = draws(rank, Rules(degrees=0.0))
    assert not (change.matrix - change.matrix * np.eye(rank)).any()
    assert change.resample.all() if rank == 2 else not change.resample.any()


def test_2d_turns_half_of_the_images_beside_the_zoom():
    change, zoomed = draws(2, Rules(degrees=20)), draws(2, Rules())
    # The columns of turn @ zoom are those of the turn, each as long as its axis is zoomed.
    factors = np.linalg.norm(change.matrix, axis=1)
    np.testing.assert_allclose(factors, np.diagonal(zoomed.matrix, axis1=1, axis2=2), atol=1e-5)
    found = np.degrees(np.arctan2(change.matrix[:, 1, 0], change.matrix[:, 0, 0]))
    assert (found == 0).mean() == pytest.approx(0.5, abs=0.05)
    assert 19 < np.abs(found).max() <= 20 + 1e-3
    assert found[found != 0].mean() == pytest.approx(0, abs=1.5)
    assert abs(np.corrcoef(found != 0, factors[:, 0])[0, 1]) < 0.1


def test_2d_pixels_are_where_the_angle_says():
    """A bar along the first axis, turned by up to 90 degrees, is at some angle from its centre; its mask with it."""
    bar = np.zeros((41, 41), np.float32)
    bar[4:20, 16:25] = 1
    image, mask = tf.constant(bar[..., None]), tf.constant(bar.astype(np.int32))
    rules, seen = Rules(flip_axes=(), degrees=90), []
    for i in range(20):
        turned, labels = augment.augment_segmentation(image, mask, tf.constant([i, 2]), rules)
        rows, columns = np.nonzero(labels.numpy())
        seen.append(math.degrees(math.atan2(columns.mean() - 20, 20 - rows.mean())))
        inside = turned.numpy()[..., 0] > 0.5
        assert 2 * (inside & (labels.numpy() > 0)).sum() > 0.85 * (inside.sum() + (labels.numpy() > 0).sum())
    assert max(seen) > 40 and min(seen) < -40


@pytest.mark.parametrize(("spatial", "axis"), [((6, 5, 4), 0), ((6, 7), 0), ((6, 7), 1)])
def test_labels_are_exchanged_with_the_sides(spatial, axis):
    rank = len(spatial)
    mask = np.random.default_rng(0).integers(0, 7, spatial).astype(np.int32)
    exchanged = np.array([0, 1, 5, 4, 3, 2, 6])[mask]
    rules = Rules(degrees=0, swap_labels=((3, 4), (5, 2)), left_right_axis=axis)
    for flips in np.ndindex(*[2] * rank):
        change = augment.Augmentation.none(rank)._replace(flips=tf.constant(np.array(flips, bool)))
        axes = [number for number in range(rank) if flips[number]]
        expected = np.flip(exchanged if flips[axis] else mask, axes)
        np.testing.assert_array_equal(augment.apply_to_mask(tf.constant(mask), change, rules), expected)


def test_a_left_organ_stays_on_the_left():
    """Whatever is flipped, class 3 lies in the low half of the first axis and class 4 in the high half."""
    mask = np.zeros((8, 6, 4), np.int32)
    mask[1:3, 1:3, 1:3], mask[5:7, 1:3, 1:3] = 3, 4
    rules, flipped = Rules(degrees=0, swap_labels=((3, 4),)), 0
    image = tf.constant((mask == 3).astype(np.float32)[..., None])
    for i in range(12):
        changed, labels = (x.numpy() for x in augment.augment_segmentation(image, mask, tf.constant([i, 1]), rules))
        assert np.argwhere(labels == 3)[:, 0].max() < 4 <= np.argwhere(labels == 4)[:, 0].min()
        # The image is not repainted: what was class 3 is bright, wherever it is.
        bright = changed[..., 0] == changed.max()
        flipped += set(labels[bright]) == {4}
    assert 2 < flipped < 10


def test_images_without_masks_follow_the_same_rules():
    image = tf.constant(np.random.default_rng(0).uniform(size=(6, 5, 4, 1)), tf.float32)
    assert_same = np.testing.assert_array_equal
    mask = tf.zeros((6, 5, 4), tf.int32)
    for i in range(4):
        seed, rules = tf.constant([i, 4]), Rules(flip_axes=(2,), degrees=5)
        expected, _ = augment.augment_segmentation(image, mask, seed, rules)
        assert_same(augment.augment_image(image, seed, rules), expected)
    zoomed = augment.augment_image(image, seed, Rules(zoom_only=True))
    assert_same(zoomed, augment.augment_image(image, seed, Rules(flip_axes=(), degrees=0, zoom_only=True)))
