"""Grids of patches: placement, extraction, padding, random offsets."""

import itertools

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import patches


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("spatial", "per_side", "overlap", "stride", "patch"),
    [
        ((224, 224), 5, (37, 37), (37, 37), (74, 74)),
        ((128, 128, 128), 4, (0, 0, 0), (32, 32, 32), (32, 32, 32)),
        ((8, 9, 7), 2, (0, 1, 2), (4, 4, 2), (4, 5, 4)),
    ],
)
def test_sizes(spatial, per_side, overlap, stride, patch):
    grid = patches.PatchGrid(spatial, per_side, overlap)
    assert grid.stride == stride
    assert grid.patch_shape == patch
    last = grid.origin((per_side - 1,) * len(spatial))
    assert all(start + size <= whole for start, size, whole in zip(last, patch, spatial, strict=True))


@pytest.mark.parametrize("spatial", [(6, 9), (6, 9, 3)])
def test_stitching_the_patches_gives_the_image(spatial):
    image = numbered((*spatial, 2))
    grid = patches.PatchGrid(spatial, 3, (0,) * len(spatial))
    cut = patches.extract(tf.constant(image), [grid.origin(cell) for cell in grid.cells()], grid.patch_shape).numpy()
    stitched = np.full_like(image, -1)
    for patch, cell in zip(cut, itertools.product(range(3), repeat=len(spatial)), strict=True):
        place = tuple(slice(i * s, (i + 1) * s) for i, s in zip(cell, grid.patch_shape, strict=True))
        stitched[place] = patch
    np.testing.assert_array_equal(stitched, image)


def test_overlapping_patches_share_voxels():
    image = numbered((8, 8, 1))
    grid = patches.PatchGrid((8, 8), 3, (2, 2))
    first, second = patches.extract(tf.constant(image), [grid.origin((0, 0)), grid.origin((1, 0))], grid.patch_shape)
    assert grid.patch_shape == (4, 4)
    np.testing.assert_array_equal(first[2:], second[:2])


def test_cells_of_some_rows_are_in_raster_order():
    grid = patches.PatchGrid((4, 4), 2, (0, 0))
    assert grid.cells() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert grid.cells([1]) == [(1, 0), (1, 1)]


def test_offsets_cover_their_range_ends_included():
    offsets = patches.draw_offsets(tf.constant([3, 4]), 500, [0, 1, 5]).numpy()
    assert offsets.shape == (500, 3)
    assert [sorted(set(column)) for column in offsets.T] == [[0], [0, 1], [0, 1, 2, 3, 4, 5]]


def test_random_crop_lies_inside_and_reaches_the_ends():
    image = tf.constant(numbered((5, 4, 1)))
    starts = set()
    for i in range(40):
        crop = patches.random_crop(image, (3, 4), tf.constant([i, 0])).numpy()
        row = int(crop[0, 0, 0]) // 4
        np.testing.assert_array_equal(crop, image[row : row + 3])
        starts.add(row)
    assert starts == {0, 1, 2}


def test_padding_is_centred():
    padded = patches.pad_to(tf.ones((2, 2, 1)), (5, 4, 1)).numpy()[..., 0]
    assert padded.shape == (5, 4)
    np.testing.assert_array_equal(padded[1:3, 1:3], 1)
    assert padded.sum() == 4
