from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.inference.averaging import mean_of, mirrored

BATCH = np.random.default_rng(0).random((2, 4, 3, 5, 1)).astype(np.float32)


def ramp(batch):
    """Predicts the image times the place on each axis, so that flips change the prediction."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in batch.shape[1:4]), indexing="ij")
    place = (x + 10 * y + 100 * z)[None, ..., None]
    return np.concatenate([batch * place, batch * (1000 - place), batch], axis=-1).astype(np.float32)


def test_the_mean_of_several_is_their_mean_and_one_stays_itself():
    predicts = [lambda batch: batch, lambda batch: 4 * batch, lambda batch: 0 * batch]
    np.testing.assert_allclose(mean_of(predicts)(BATCH), 5 / 3 * BATCH, rtol=1e-6)
    assert mean_of(predicts[:1]) is predicts[0]


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_every_combination_of_flips_counts_the_same(axes):
    # Over both directions of an axis the mean place is the middle; other axes keep theirs.
    middle = {0: 1.5, 1: 1.0, 2: 2.0}
    places = np.meshgrid(*(np.arange(size) for size in (4, 3, 5)), indexing="ij")
    x, y, z = (np.full(place.shape, middle[axis]) if axis in axes else place for axis, place in enumerate(places))
    place = (x + 10 * y + 100 * z)[None, ..., None]
    expected = np.concatenate([BATCH * place, BATCH * (1000 - place), BATCH], axis=-1)
    np.testing.assert_allclose(mirrored(ramp, axes)(BATCH), expected, rtol=1e-5)


def test_no_axis_changes_nothing():
    assert mirrored(ramp, ()) is ramp


def test_paired_classes_are_exchanged_where_left_and_right_are():
    """Class 1 is what is bright on the left half, class 2 on the right half: a flip calls each the other."""

    def sides(batch):
        left = np.arange(batch.shape[1])[None, :, None, None, None] < 2
        return np.concatenate([np.zeros_like(batch), batch * left, batch * ~left], axis=-1)

    once = sides(BATCH)
    swapped = mirrored(sides, (0, 1), swaps=[(1, 2)])(BATCH)
    np.testing.assert_allclose(swapped, once, rtol=1e-6)
    unswapped = mirrored(sides, (0, 1))(BATCH)
    np.testing.assert_allclose(unswapped[..., 1], BATCH[..., 0] / 2, rtol=1e-6)
    other_axis = mirrored(sides, (0,), swaps=[(1, 2)], left_right_axis=1)(BATCH)
    np.testing.assert_allclose(other_axis, mirrored(sides, (0,))(BATCH), rtol=1e-6)


def test_outputs_of_whole_scans_are_averaged_without_being_flipped():
    def corner(batch):
        return np.stack([batch[:, 0, 0, 0, 0], batch[:, -1, 0, 0, 0]], axis=-1)

    first, last = BATCH[:, 0, 0, 0, 0], BATCH[:, -1, 0, 0, 0]
    np.testing.assert_allclose(mirrored(corner, (0,))(BATCH), np.stack([first + last] * 2, axis=-1) / 2, rtol=1e-6)
