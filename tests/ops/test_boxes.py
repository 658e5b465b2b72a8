"""Random boxes: over many draws always in the image and in the range, the same for the same seed."""

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops import boxes
from self_supervised_3d_tasks.ops.boxes import RandomBox

SIXTEENTH_TO_QUARTER = (1 / 16, 1 / 4)


def draw(box, count):
    """Return origins and sizes, each (count, rank), drawn in a graph."""
    rank = len(box.spatial_shape)

    @tf.function
    def draws(seeds):
        signature = (tf.TensorSpec(rank, tf.int32), tf.TensorSpec(rank, tf.int32))
        return tf.map_fn(box.draw, seeds, fn_output_signature=signature)

    return [values.numpy() for values in draws(tf.stack([tf.range(count), tf.fill([count], 5)], axis=1))]


def shares(box, sizes):
    return sizes.prod(axis=1) / np.prod(box.spatial_shape)


def check(box, origins, sizes):
    low, high = box.volume
    assert sizes.min() >= 1
    assert origins.min() >= 0
    assert (origins + sizes <= box.spatial_shape).all()
    assert (shares(box, sizes) >= low - 1e-9).all()
    assert (shares(box, sizes) <= high + 1e-9).all()
    assert (sizes.prod(axis=1) < np.prod(box.spatial_shape)).all()


@pytest.mark.parametrize("shape", [(128, 128, 64), (16, 16, 8), (64, 48)])
def test_ten_thousand_boxes_are_in_range_and_reach_its_ends(shape):
    box = RandomBox(shape, SIXTEENTH_TO_QUARTER, 4 / 3)
    origins, sizes = draw(box, 10_000)
    check(box, origins, sizes)
    assert shares(box, sizes).min() < 1 / 16 + 0.005
    assert shares(box, sizes).max() > 1 / 4 - 0.005
    assert shares(box, sizes).mean() == pytest.approx((1 / 16 + 1 / 4) / 2, abs=0.01)
    ratios = (sizes[:, 0] / shape[0]) / (sizes[:, 1] / shape[1])
    assert ratios.min() < 0.75
    assert ratios.max() > 1 / 0.75
    assert (origins == 0).any(axis=0).all()
    assert (origins + sizes == shape).any(axis=0).all()


@pytest.mark.parametrize(
    ("shape", "volume", "max_aspect"),
    [
        ((5, 5, 3), SIXTEENTH_TO_QUARTER, 4 / 3),  # few boxes
        ((32, 32, 1), SIXTEENTH_TO_QUARTER, 4 / 3),  # an axis that cannot be cut
        ((24, 20, 9), (1 / 16, 1), 4 / 3),  # up to the whole, which is none
        ((40, 40, 40), (0.1, 0.103), 9.0),  # nearly every draw is out of range
        ((12, 12), (0.25, 0.25), 1.0),  # one size
        ((8, 8, 8), (0.6, 1), 8.0),
    ],
)
def test_boxes_are_in_range_where_few_are(shape, volume, max_aspect):
    box = RandomBox(shape, volume, max_aspect)
    check(box, *draw(box, 2000))
    check(box, np.zeros((1, len(shape)), int), np.array([box.fallback]))


@pytest.mark.parametrize("shape", [(16, 16, 8), (9, 30)])
def test_without_a_candidate_the_fallback_is_used(monkeypatch, shape):
    for candidate in (shape, (1,) * len(shape), (2 * max(shape),) * len(shape)):
        sizes = tf.constant([candidate] * boxes.NUM_CANDIDATES)
        monkeypatch.setattr(RandomBox, "_candidates", lambda self, seed, sizes=sizes: sizes)
        box = RandomBox(shape, SIXTEENTH_TO_QUARTER, 4 / 3)
        origins, drawn = draw(box, 50)
        check(box, origins, drawn)
        assert (drawn == box.fallback).all()
        assert len(np.unique(origins, axis=0)) > 1


def test_an_aspect_of_one_keeps_the_shape_of_the_image():
    _, sizes = draw(RandomBox((64, 64, 32), SIXTEENTH_TO_QUARTER, 1.0), 500)
    assert (sizes[:, 0] == sizes[:, 1]).all()
    assert (abs(sizes[:, 0] - 2 * sizes[:, 2]) <= 1).all()


def test_seeds_decide():
    box = RandomBox((16, 16, 8), SIXTEENTH_TO_QUARTER, 4 / 3)
    first, again, other = (box.draw(tf.constant(seed)) for seed in ([1, 2], [1, 2], [2, 1]))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("shape", "volume", "message"),
    [
        ((2, 2, 2), (1 / 16, 1 / 10), "no box of whole voxels and about the aspect of .2, 2, 2. has a share of 0.0625"),
        ((16, 16), (0.5, 0.25), r"part_volume: expected \[least, largest\], received \[0.5, 0.25\]; swap them"),
        ((4, 4), (1, 1), "no box of whole voxels"),
    ],
)
def test_ranges_without_a_box_are_refused(shape, volume, message):
    with pytest.raises(UserError, match=message):
        RandomBox(shape, volume, 4 / 3)
