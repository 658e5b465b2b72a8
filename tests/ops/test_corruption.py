"""Random changes of a view: poses, intensities, and cells that trade places."""

from __future__ import annotations

import dataclasses

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import corruption
from self_supervised_3d_tasks.ops.corruption import Corruption, Deformation

SHAPES = [(8, 6, 2), (8, 6, 4, 1)]
NOTHING = Corruption(blur_sigma=0, noise_sigma=0, gamma=0, swap_share=0, swap_cell=(2, 2, 2))


def image_of(shape):
    return tf.constant(np.random.default_rng(0).uniform(size=shape), "float32")


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_zero_changes_nothing(shape):
    view = image_of(shape)
    np.testing.assert_array_equal(NOTHING.apply(view, tf.constant([0, 1])), view)
    np.testing.assert_array_equal(Deformation(False, 0, 0).apply(view, tf.constant([0, 1])), view)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_second_view_is_flipped_from_left_to_right(shape):
    view, flips = image_of(shape), 0
    for number in range(40):
        result = Deformation(True, 0, 0).apply(view, tf.constant([number, 1])).numpy()
        flipped = np.array_equal(result, np.flip(view, 0 if len(shape) == 4 else 1))
        assert flipped or np.array_equal(result, view)
        flips += flipped
    assert 10 < flips < 30


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deformed_view_stays_in_the_range_of_the_view(shape):
    view = image_of(shape)
    results = [Deformation(False, 0.1, 10.0).apply(view, tf.constant([number, 1])).numpy() for number in range(5)]
    for result in results:
        assert not np.array_equal(result, view)
        assert result.min() >= np.min(view) - 1e-6
        assert result.max() <= np.max(view) + 1e-6
    assert len({result.tobytes() for result in results}) == 5
    again = Deformation(False, 0.1, 10.0).apply(view, tf.constant([0, 1]))
    np.testing.assert_array_equal(again, results[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_each_corruption_by_itself(shape):
    view, seed = image_of(shape), tf.constant([3, 1])
    cell = (2,) * (len(shape) - 1)

    def corrupted(**strength):
        return dataclasses.replace(NOTHING, **{"swap_cell": cell} | strength).apply(view, seed).numpy()

    blurred, noisy = corrupted(blur_sigma=2.0), corrupted(noise_sigma=0.25)
    assert blurred.std() < np.std(view)
    assert 0 < (noisy - view.numpy()).std() < 0.25 * 1.2
    exponents = np.log(corrupted(gamma=0.3)) / np.log(view)
    np.testing.assert_allclose(exponents, exponents.flat[0], rtol=1e-3)
    assert np.exp(-0.3) <= exponents.flat[0] <= np.exp(0.3)
    swapped = corrupted(swap_share=0.5)
    assert not np.array_equal(swapped, view)
    np.testing.assert_array_equal(np.sort(swapped, axis=None), np.sort(view, axis=None))
    with_all = corrupted(blur_sigma=2.0, noise_sigma=0.25, gamma=0.3, swap_share=0.5)
    assert with_all.min() >= 0
    assert with_all.max() <= 1


@pytest.mark.parametrize("shape", [(120, 90, 2), (25, 30, 16, 2)])
def test_noise_is_normal_and_apart_in_each_channel(shape):
    noise = dataclasses.replace(NOTHING, noise_sigma=0.1).apply(tf.fill(shape, 0.5), tf.constant([1, 2])).numpy() - 0.5
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert 0 < noise.std() < 0.1
    assert (np.abs(noise) < noise.std()).mean() == pytest.approx(0.683, abs=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


CASES = [((12, 10, 2), (4, 3)), ((9, 8, 8, 1), (8, 4, 4)), ((16, 16, 8, 2), (8, 4, 4)), ((8, 9, 7, 1), (2, 9, 7))]


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def swaps(shape, cell, share, count):
    """Return (count, *shape): swapped copies of a numbered image, drawn in a graph."""
    image = tf.constant(numbered(shape))
    dataset = tf.data.Dataset.range(count).map(
        lambda number: corruption.swap_cells(image, tf.stack([tf.cast(number, tf.int32), 7]), cell=cell, share=share)
    )
    assert dataset.element_spec == tf.TensorSpec(shape, tf.float32)
    return np.stack(list(dataset.as_numpy_iterator()))


@pytest.mark.parametrize(("shape", "cell"), CASES)
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_every_voxel_is_kept_and_some_move(shape, cell, share):
    image = numbered(shape)
    for swapped in swaps(shape, cell, share, 50):
        np.testing.assert_array_equal(np.sort(swapped, axis=None), image.ravel())
        moved = swapped != image
        assert moved.any()
        assert moved.sum() % (2 * np.prod(cell) * shape[-1]) == 0


@pytest.mark.parametrize(("shape", "cell"), CASES)
def test_whole_cells_trade_places(shape, cell):
    """Each cell that moved carries its voxels in their order, and lies where its partner was."""
    image = numbered(shape)
    strides = np.array(image.strides) // image.itemsize
    for swapped in swaps(shape, cell, 0.5, 20):
        # A voxel moved by whole cells along every axis.
        places = np.stack(np.unravel_index(swapped.astype(int), shape), axis=-1)
        shifts = places - np.stack(np.indices(shape), axis=-1)
        assert (shifts[..., -1] == 0).all()
        assert (shifts[..., :-1] % cell == 0).all()
        # Where voxel x shows y, voxel y shows x.
        back = swapped.ravel()[swapped.astype(int).ravel()]
        np.testing.assert_array_equal(back, np.arange(image.size))
        # Inside a cell the shift is the same: from the first moved voxel on, a box of the cell's size.
        first = np.argwhere((swapped != image).any(axis=-1))[0]
        block = shifts[tuple(slice(start, start + side) for start, side in zip(first, cell, strict=True))]
        np.testing.assert_array_equal(
            block, np.broadcast_to(block.reshape(-1, len(shape))[0], (*cell, shape[-1], len(shape)))
        )
        assert strides @ block.reshape(-1, len(shape))[0] != 0


def test_the_share_of_cells_that_move():
    image = numbered((32, 32, 1))
    swapped = swaps(image.shape, (1, 1), 0.25, 5)
    np.testing.assert_allclose((swapped != image).mean(axis=(1, 2, 3)), 0.25, atol=0.002)
    assert not (swaps(image.shape, (4, 4), 0.0, 2) != image).any()
    everything = swaps(image.shape, (4, 4), 1.0, 30)
    whole_grids = (everything != image).all(axis=(1, 2, 3))
    assert whole_grids.any()  # the grid began at the first voxel
    assert not whole_grids.all()


def test_the_grid_begins_anywhere():
    changed = swaps((24, 24, 1), (4, 4), 1.0, 200)[..., 0] != numbered((24, 24))
    begins = {
        (int(rows.argmax()), int(columns.argmax()))
        for rows, columns in zip(changed.any(2), changed.any(1), strict=True)
    }
    assert len({row % 4 for row, _ in begins}) == len({column % 4 for _, column in begins}) == 4
    corner = [tuple(np.argwhere(one)[0] % 4) for one in changed]
    assert len(set(corner)) == 16


def test_masks_and_seeds():
    mask = tf.reshape(tf.range(64), (8, 8, 1))
    first, again, other = (
        corruption.swap_cells(mask, seed, cell=(2, 2), share=0.5) for seed in ([1, 2], [1, 2], [2, 1])
    )
    assert first.dtype == tf.int32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
