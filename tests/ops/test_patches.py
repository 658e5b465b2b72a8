"""Patches: placement, extraction, padding, random offsets, standardisation, foreground."""

import itertools

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import binary_dilation, binary_erosion

from self_supervised_3d_tasks.errors import UserError
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


def test_mirroring_is_centred_and_repeats_the_ends():
    """One before, two behind: 0 1 2 becomes 0 0 1 2 2 1."""
    tensor = tf.constant([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])[..., None]
    mirrored = patches.mirror_to(tensor, (2, 6, 1)).numpy()[..., 0]
    np.testing.assert_array_equal(mirrored, [[0, 0, 1, 2, 2, 1], [3, 3, 4, 5, 5, 4]])
    np.testing.assert_array_equal(patches.mirror_to(tensor, (2, 3, 1)), tensor)
    image = numbered((5, 4, 3, 2))
    expected = np.pad(image, [(1, 2), (0, 1), (1, 1), (0, 0)], mode="symmetric")
    np.testing.assert_array_equal(patches.mirror_to(tf.constant(image), (8, 5, 5, 2)), expected)


CELLS = [((10, 13), 3, 0, 2), ((17, 13), 2, 1, 0), ((11, 14, 9), 3, 0, 1), ((16, 12, 20), 2, 3, 2)]


def drawn_origins(grid, number):
    """Origins ``(number, *cells, rank)`` of many seeds."""
    draw = tf.function(lambda i: grid.draw_origins(tf.stack([i, 0])))
    return np.stack([draw(i).numpy() for i in tf.range(number)]).reshape(number, *grid.sides, grid.rank)


@pytest.mark.parametrize(("spatial", "per_side", "gap", "jitter"), CELLS)
def test_patches_lie_inside_their_cells_and_reach_both_ends(spatial, per_side, gap, jitter):
    grid = patches.PatchCells(spatial, per_side, gap, jitter)
    rank = len(spatial)
    origins = drawn_origins(grid, 100)
    first = np.stack(np.meshgrid(*[np.arange(per_side)] * rank, indexing="ij"), axis=-1) * grid.cell_shape
    np.testing.assert_array_equal(first.reshape(-1, rank), np.array(grid.cells()) * grid.cell_shape)
    shifts = (origins - first).reshape(-1, rank)
    assert [sorted(set(column)) for column in shifts.T] == [list(range(gap // 2, gap // 2 + jitter + 1))] * rank
    assert (shifts + grid.patch_shape <= grid.cell_shape).all()
    assert (origins >= 0).all()
    assert (origins + grid.patch_shape <= spatial).all()


@pytest.mark.parametrize(("spatial", "per_side", "gap", "jitter"), CELLS)
def test_neighbours_are_between_gap_and_gap_plus_twice_the_jitter_apart(spatial, per_side, gap, jitter):
    grid = patches.PatchCells(spatial, per_side, gap, jitter)
    origins = drawn_origins(grid, 100)
    for axis, size in enumerate(grid.patch_shape):
        distances = np.diff(origins[..., axis], axis=1 + axis) - size
        assert set(distances.ravel()) == set(range(gap, gap + 2 * jitter + 1))


PER_AXIS = [
    ((17, 12), (3, 2), (1, 0), (0, 2)),
    ((16, 20, 9), (2, 2, 1), (2, 3, 0), (1, 2, 1)),
    ((16, 16, 3), (2, 2, 1), 0, 0),
    ((18, 12, 9), 3, (2, 1, 0), 1),
]


@pytest.mark.parametrize(("spatial", "per_side", "gap", "jitter"), PER_AXIS)
def test_every_axis_can_have_its_own_number_gap_and_jitter(spatial, per_side, gap, jitter):
    grid = patches.PatchCells(spatial, per_side, gap, jitter)
    origins = drawn_origins(grid, 100)
    np.testing.assert_array_equal(grid.cells(), list(np.ndindex(*grid.sides)))
    for axis, (number, least, most) in enumerate(zip(grid.sides, grid.gaps, grid.jitters, strict=True)):
        assert grid.cell_shape[axis] == spatial[axis] // number
        assert grid.patch_shape[axis] == grid.cell_shape[axis] - least - most
        first = np.arange(number) * grid.cell_shape[axis]
        shifts = np.moveaxis(origins[..., axis], 1 + axis, -1) - first
        assert set(shifts.ravel()) == set(range(least // 2, least // 2 + most + 1))
        distances = np.diff(origins[..., axis], axis=1 + axis) - grid.patch_shape[axis]
        assert set(distances.ravel()) == (set(range(least, least + 2 * most + 1)) if number > 1 else set())


@pytest.mark.parametrize(("spatial", "per_side", "gap", "jitter"), CELLS)
def test_one_number_is_the_same_for_every_axis(spatial, per_side, gap, jitter):
    rank, seed = len(spatial), tf.constant([3, 1])
    one = patches.PatchCells(spatial, per_side, gap, jitter)
    many = patches.PatchCells(spatial, (per_side,) * rank, (gap,) * rank, (jitter,) * rank)
    np.testing.assert_array_equal(one.draw_origins(seed), many.draw_origins(seed))
    offsets = patches.draw_offsets(seed, per_side**rank, [jitter] * rank)
    np.testing.assert_array_equal(one.draw_origins(seed), np.array(one.cells()) * one.cell_shape + gap // 2 + offsets)


@pytest.mark.parametrize(("spatial", "per_side"), [((6, 9), (2, 3)), ((6, 9, 4), (3, 1, 2)), ((4, 4, 4), 2)])
def test_patches_assembled_give_the_image(spatial, per_side):
    image, grid = numbered((*spatial, 2)), patches.PatchCells(spatial, per_side, gap=0, jitter=0)
    cut = patches.extract(tf.constant(image), grid.draw_origins(tf.constant([0, 0])), grid.patch_shape)
    np.testing.assert_array_equal(grid.assemble(cut.numpy()), image)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (((2, 2), 0, 0), "patches_per_side: expected one number or one for each of 3 axes, received \\[2, 2\\]"),
        ((2, (1, 1, 1, 1), 0), "patch_gap: expected one number"),
        ((2, 0, (1,)), "patch_jitter: expected one number"),
    ],
)
def test_as_many_numbers_as_axes_are_expected(numbers, message):
    with pytest.raises(UserError, match=message):
        patches.PatchCells((8, 8, 8), *numbers)


def test_shifts_of_patches_and_axes_are_drawn_apart():
    shifts = drawn_origins(patches.PatchCells((16, 16), 2, gap=0, jitter=5), 400).reshape(400, -1) % 8
    correlation = np.corrcoef(shifts.T)
    assert np.abs(correlation - np.eye(8)).max() < 0.2


def test_the_predecessors_patches_have_39_voxels():
    grid = patches.PatchCells((128, 128, 128), 3, gap=0, jitter=3)
    assert grid.cell_shape == (42, 42, 42)
    assert grid.patch_shape == (39, 39, 39)
    assert len(grid.cells()) == 27


@pytest.mark.parametrize(
    ("cell", "gap", "jitter", "patch"),
    [
        (2, 1, 0, 1),
        (3, 1, 0, 2),
        (4, 1, 0, 3),
        (8, 2, 1, 5),
        (11, 2, 1, 8),
        (12, 3, 1, 8),
        (16, 3, 2, 11),
        (24, 3, 3, 18),
        (42, 3, 3, 36),
        (75, 3, 3, 69),
    ],
)
def test_gap_and_jitter_follow_from_the_cell(cell, gap, jitter, patch):
    """A quarter of it, at least 1 and at most 3, and an eighth, at most 3; each axis by itself."""
    grid = patches.PatchCells((2 * cell, 26, 2 * cell + 1), (2, 1, 2))
    assert grid.cell_shape == (cell, 26, cell)
    assert grid.gaps == (gap, 3, gap)
    assert grid.jitters == (jitter, 3, jitter)
    assert grid.patch_shape == (patch, 20, patch)
    assert patches.PatchCells((2 * cell,) * 2, 2, gap=0).gaps == (0, 0)  # 0 is 0, not what is not said
    assert patches.PatchCells((2 * cell,) * 2, 2, jitter=0).jitters == (0, 0)


def test_a_cell_of_one_voxel_has_no_room_for_a_gap():
    assert patches.PatchCells((3, 3), 3, gap=0).patch_shape == (1, 1)
    with pytest.raises(UserError, match="a gap of .* leave no voxel"):
        patches.PatchCells((3, 3), 3)


def test_cells_without_jitter_and_gap_are_those_of_the_grid():
    grid, cells = patches.PatchGrid((9, 7), 3, (0, 0)), patches.PatchCells((9, 7), 3, gap=0, jitter=0)
    expected = [grid.origin(cell) for cell in grid.cells()]
    np.testing.assert_array_equal(cells.draw_origins(tf.constant([0, 0])), expected)


@pytest.mark.parametrize(
    ("spatial", "options"),
    [((128,) * 3, {"jitter": 60}), ((128, 8), {"gap": 2}), ((9, 9), {"gap": 1, "jitter": 2}), ((2, 9), {})],
)
def test_cells_without_a_voxel_for_the_patch_are_refused(spatial, options):
    with pytest.raises(UserError, match="patches_per_side, patch_jitter, patch_gap, data_dim: 3 patches per side"):
        patches.PatchCells(spatial, 3, **options)


@pytest.mark.parametrize("shape", [(5, 6, 4, 2), (5, 6, 4, 3, 1)])
def test_standardized_patches_have_zero_mean_and_unit_deviation(shape):
    cut = np.random.default_rng(0).uniform(size=shape).astype(np.float32) * np.arange(1, 6).reshape(
        5, *[1] * (len(shape) - 1)
    )
    axes = tuple(range(1, len(shape) - 1))
    result = patches.standardize(tf.constant(cut, tf.float32)).numpy()
    np.testing.assert_allclose(result.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axes), 1, atol=1e-4)
    expected = (cut - cut.mean(axes, keepdims=True)) / cut.std(axes, keepdims=True)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_patches_become_zeros(value):
    cut = np.full((2, 21, 21, 2), value, np.float32)
    cut[1, :10, :, 1] = 0.5
    result = patches.standardize(tf.constant(cut)).numpy()
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_array_equal(result[1, ..., 0], 0)
    assert result[1, ..., 1].std() == pytest.approx(1, abs=1e-5)


def test_tissue_is_what_is_above_five_percent_in_some_channel():
    cut = np.zeros((4, 8, 5, 2), np.float32)
    cut[1, 3, 2, 0] = cut[1, 3, 2, 1] = 0.06  # one voxel, in both channels
    cut[2, :4, :, 0], cut[2, 4:6, :, 1] = 0.9, 0.06
    cut[3] = patches.FOREGROUND
    np.testing.assert_allclose(patches.filled_share(tf.constant(cut)), [0, 0.025, 0.75, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 12), (7, 9, 8), (1, 2, 3)])
def test_dark_voxels_between_tissue_are_a_closing_and_air_is_not(shape):
    """By value of scipy's closing with a cube of three, beyond the patch as within."""
    draw = np.random.default_rng(0)
    cut = np.where(draw.random((40, *shape, 1)) < np.linspace(0, 1, 40).reshape(40, *[1] * len(shape), 1), 0.5, 0.0)
    cut[-1, : shape[0] // 2] = 0  # air
    cube = np.ones((3,) * len(shape), bool)
    expected = []
    for patch in cut[..., 0]:
        grown = binary_dilation(patch > 0, cube)
        expected.append(binary_erosion(grown, cube, border_value=True).mean())
    found = patches.filled_share(tf.constant(cut.astype(np.float32)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == 0


def test_slivers_of_air_are_not_filled_and_holes_are():
    cut = np.full((3, 9, 9, 9, 1), 0.5, np.float32)
    cut[0, 3:5, 3:5, 3:5] = 0  # a hole of two voxels
    cut[1, 3:6, 3:6, 3:6] = 0  # of three
    cut[2, :2, :2, :] = 0  # a corner
    np.testing.assert_allclose(patches.filled_share(tf.constant(cut)), [1, 1 - 27 / 729, 1 - 36 / 729], atol=1e-6)
