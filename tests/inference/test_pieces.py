from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from self_supervised_3d_tasks.inference.pieces import cover, moved, outside, slabs
from self_supervised_3d_tasks.inference.windows import blending_weights, sliding_pieces, window_starts


def slow_blend(predict, image, window, overlap, num_classes):
    """The formula with one sum for the whole image."""
    from itertools import product

    total = np.zeros((*image.shape[:-1], num_classes))
    starts = [window_starts(*axis, overlap) for axis in zip(image.shape[:-1], window, strict=True)]
    weights = [blending_weights(*axis) for axis in zip(starts, window, strict=True)]
    for numbers in product(*(range(len(axis)) for axis in starts)):
        place = tuple(
            slice(axis[number], axis[number] + size) for axis, number, size in zip(starts, numbers, window, strict=True)
        )
        weight = np.ones(())
        for axis, number in zip(weights, numbers, strict=True):
            weight = np.multiply.outer(weight, axis[number])
        total[place] += weight[..., None] * predict(image[place][None])[0]
    return total


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize(
    ("shape", "window"), [((29,), (8,)), ((9, 21), (6, 5)), ((13, 7, 18), (6, 7, 8)), ((20, 23, 9), (8, 8, 8))]
)
def test_pieces_tile_the_image_and_are_those_of_the_whole_blend(shape, window, overlap):
    rng = np.random.default_rng(1)
    image = rng.random((*shape, 1)).astype(np.float32)
    ramp = rng.random((*window, 3)).astype(np.float32)  # windows disagree where they overlap
    counts, found = np.zeros(shape, int), np.full((*shape, 3), np.nan)
    for place, values in sliding_pieces(lambda batch: batch * ramp, image, window, num_classes=3, overlap=overlap):
        counts[place] += 1
        found[place] = values
    assert (counts == 1).all()
    np.testing.assert_allclose(found, slow_blend(lambda batch: batch * ramp, image, window, overlap, 3), atol=1e-6)


def test_the_blend_takes_a_part_of_the_memory_of_the_whole():
    image = np.zeros((64, 64, 96, 1), np.float32)
    whole = image.size * 24 * 4
    tracemalloc.start()
    for _ in sliding_pieces(lambda batch: np.repeat(batch, 24, axis=-1), image, (16,) * 3, num_classes=24):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.1 * whole < peak < 0.25 * whole  # 8 of 96 slices wait for the next windows, and some rows of windows


def test_a_piece_moves_and_is_cut_at_the_bounds():
    values = np.arange(12).reshape(3, 4, 1)
    piece = (slice(0, 3), slice(4, 8)), values
    ((place, inside),) = moved(piece, (-1, 2), [slice(0, 5), slice(7, 9)])
    assert place == (slice(0, 2), slice(7, 9))
    np.testing.assert_array_equal(inside, values[1:3, 1:3])
    assert list(moved(piece, (-3, 0), [slice(0, 5), slice(0, 9)])) == []


@pytest.mark.parametrize("box", [(slice(2, 4), slice(0, 5)), (slice(0, 6), slice(1, 2)), (slice(1, 5), slice(2, 5))])
def test_what_lies_outside_of_a_box_is_all_the_rest(box):
    counts = np.zeros((6, 5))
    for place, values in outside(box, (6, 5), np.array([1.0, 0.0])):
        counts[place] += 1
        assert values.shape == (*counts[place].shape, 2)
        assert (values == [1, 0]).all()
    expected = np.ones((6, 5))
    expected[box] = 0
    np.testing.assert_array_equal(counts, expected)


def test_slabs_have_at_most_a_size_or_one_row():
    assert list(slabs((7, 9), row_bytes=10, limit=35)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(slabs((2, 9), row_bytes=10, limit=1)) == [slice(0, 1), slice(1, 2)]
    array = np.zeros((2, 1))
    assert cover(array, [((slice(1, 2),), np.ones((1, 1)))]) is array
    np.testing.assert_array_equal(array, [[0], [1]])
