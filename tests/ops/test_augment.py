"""Segmentation augmentation: the same geometry for image and mask, and the predecessor's ranges."""

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import augment

SHAPES = [(24, 20), (20, 16, 18)]


def labelled(spatial):
    """A mask with two off-centre blocks, and an image that equals it."""
    mask = np.zeros(spatial, np.int32)
    mask[tuple(slice(size // 4, size // 2 + 1) for size in spatial)] = 1
    mask[tuple(slice(size // 2 + 1, size - size // 6) for size in spatial)] = 2
    return tf.constant(mask[..., None], tf.float32), tf.constant(mask)


def draws(rank, number=1500):
    dataset = tf.data.Dataset.range(number).map(lambda i: augment.draw(tf.stack([tf.cast(i, tf.int32), 5]), rank))
    return augment.Augmentation(*(value.numpy() for value in dataset.batch(number).get_single_element()))


@pytest.mark.parametrize("spatial", SHAPES)
def test_image_and_mask_stay_together(spatial):
    image, mask = labelled(spatial)
    moved = 0
    for i in range(12):
        change = augment.draw(tf.constant([i, 1]), len(spatial))
        change = change._replace(brightness=tf.constant(0.0), contrast=tf.constant(1.0))
        new_image, new_mask = augment.apply(image, mask, change)
        assert new_image.shape == image.shape
        assert new_mask.shape == mask.shape
        assert new_mask.dtype == mask.dtype
        assert set(np.unique(new_mask)) <= {0, 1, 2}
        foreground, expected = new_image.numpy()[..., 0] > 0.5, new_mask.numpy() > 0
        assert 2 * (foreground & expected).sum() > 0.9 * (foreground.sum() + expected.sum())
        moved += not np.array_equal(new_mask, mask)
    assert moved > 6


@pytest.mark.parametrize("spatial", SHAPES)
def test_colour_does_not_touch_the_mask(spatial):
    image, mask = labelled(spatial)
    rank = len(spatial)
    change = augment.Augmentation(
        flips=tf.constant([False] * rank),
        resample=tf.constant(False),
        matrix=tf.eye(rank),
        brightness=tf.constant(0.1),
        contrast=tf.constant(0.5),
    )
    new_image, new_mask = augment.apply(image, mask, change)
    np.testing.assert_array_equal(new_mask, mask)
    assert float(tf.reduce_mean(new_image)) == pytest.approx(float(tf.reduce_mean(image)) + 0.1, abs=1e-5)


@pytest.mark.parametrize("spatial", SHAPES)
def test_same_seed_same_example_in_a_graph(spatial):
    image, mask = labelled(spatial)
    dataset = tf.data.Dataset.range(3).map(
        lambda i: augment.augment_segmentation(image, mask, tf.stack([tf.cast(i, tf.int32), 9]))
    )
    first, second = list(dataset), list(dataset)
    for (image_a, mask_a), (image_b, mask_b) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image_a, image_b)
        np.testing.assert_array_equal(mask_a, mask_b)
    eager = augment.augment_segmentation(image, mask, tf.constant([1, 9]))
    np.testing.assert_allclose(first[1][0], eager[0], atol=1e-5)
    assert not np.array_equal(first[0][0], first[1][0])


@pytest.mark.parametrize("rank", [2, 3])
def test_parameters_have_the_predecessors_ranges(rank):
    change = draws(rank)
    coloured = change.contrast != 1.0
    np.testing.assert_allclose(change.flips.mean(axis=0), 0.5, atol=0.05)
    assert coloured.mean() == pytest.approx(0.7, abs=0.05)
    assert np.abs(change.brightness).max() <= 0.125
    assert 0.5 <= change.contrast.min() < 0.55
    assert 1.45 < change.contrast.max() <= 1.5
    assert not change.brightness[~coloured].any()


def test_2d_zooms_and_does_not_turn():
    change = draws(2)
    scales = np.diagonal(change.matrix, axis1=1, axis2=2)
    assert change.resample.all()
    assert 0.85 <= scales.min() < 0.86
    assert 1.14 < scales.max() <= 1.15
    assert not change.matrix[:, 0, 1].any()


def test_3d_turns_half_of_the_volumes_in_every_plane():
    change = draws(3)
    assert change.resample.mean() == pytest.approx(0.5, abs=0.05)
    products = change.matrix @ change.matrix.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(change.matrix), 1, atol=1e-5)
    fixed = (np.diagonal(change.matrix, axis1=1, axis2=2) == 1).mean(axis=0)
    np.testing.assert_allclose(fixed, 1 / 3, atol=0.05)
