"""Views: over many draws always in the image and overlapping enough, with every pair of sizes that can be."""

import functools
import math
from fractions import Fraction

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops import views
from self_supervised_3d_tasks.ops.views import InnerBoxes, OverlappingBoxes

PAPER = OverlappingBoxes((128, 128, 96), ((64, 64, 32), (96, 96, 64), (96, 96, 96), (112, 112, 64)), 0.3)
CASES = [
    PAPER,
    OverlappingBoxes((16, 16, 8), ((8, 8, 4), (12, 12, 8), (16, 16, 8)), 0.3),
    OverlappingBoxes((24, 20), ((8, 8), (12, 9), (9, 12), (20, 20), (3, 3)), 0.5),
    OverlappingBoxes((10, 10), ((5, 5), (10, 5)), 0.5),  # at most 1/2: one row of places
    OverlappingBoxes((9, 9, 9), ((4, 4, 4), (5, 3, 4)), 1.0),  # the same box twice
    OverlappingBoxes((20, 20, 20), ((10, 10, 10),), 1 / 3),
]
every_case = pytest.mark.parametrize("boxes", CASES, ids=lambda boxes: "x".join(map(str, boxes.spatial_shape)))


def draw(function, rows, count):
    """Return origins and sizes, each (count, rows, rank), of a drawing function of a seed, drawn in a graph."""
    seeds = tf.stack([tf.range(count), tf.fill([count], 5)], axis=1)
    signature = tuple(tf.TensorSpec(rows, tf.int32) for _ in range(2))
    draws = tf.function(lambda seeds: tf.map_fn(function, seeds, fn_output_signature=signature))(seeds)
    return [values.numpy() for values in draws]


def draw_pairs(boxes, count):
    return draw(boxes.draw, (2, len(boxes.spatial_shape)), count)


@functools.cache
def thousand_pairs(boxes):
    return draw_pairs(boxes, 1000)


def iou(origins, sizes):
    """Return the exact intersection over union of two boxes, axis by axis in plain Python."""
    shared = 1
    for (low_1, low_2), (side_1, side_2) in zip(origins.T.tolist(), sizes.T.tolist(), strict=True):
        shared *= max(0, min(low_1 + side_1, low_2 + side_2) - max(low_1, low_2))
    return Fraction(shared, sum(math.prod(size) for size in sizes.tolist()) - shared)


def possible(boxes):
    """Return the ordered pairs of indices that reach the bound where both boxes begin at 0."""
    sizes = np.array(boxes.sizes)
    pairs = [(i, j) for i in range(len(sizes)) for j in range(len(sizes))]
    return {pair for pair in pairs if iou(np.zeros_like(sizes[list(pair)]), sizes[list(pair)]) >= boxes.min_iou - 1e-9}


def check(boxes, origins, sizes):
    assert origins.min() >= 0
    assert (origins + sizes <= boxes.spatial_shape).all()
    assert min(map(iou, origins, sizes)) >= boxes.min_iou - 1e-9


@every_case
def test_a_thousand_pairs_overlap_enough_inside_the_image(boxes):
    origins, sizes = thousand_pairs(boxes)
    check(boxes, origins, sizes)
    assert (origins[:, 0] != origins[:, 1]).any() or boxes.min_iou == 1
    for axis, length in enumerate(boxes.spatial_shape):
        assert (origins[..., axis] == 0).any()
        assert ((origins + sizes)[..., axis] == length).any()


@every_case
def test_every_possible_pair_of_sizes_is_drawn_and_no_other(boxes):
    _, sizes = thousand_pairs(boxes)
    number = {size: index for index, size in enumerate(boxes.sizes)}
    drawn = [tuple(number[tuple(size)] for size in pair) for pair in sizes.tolist()]
    assert set(drawn) == possible(boxes) == set(boxes.pairs)
    assert len(boxes.pairs) == len(set(boxes.pairs))
    expected = len(drawn) / len(boxes.pairs)
    counts = np.array([drawn.count(pair) for pair in boxes.pairs])
    assert np.abs(counts - expected).max() <= 4 * np.sqrt(expected)


def test_of_the_papers_sizes_the_smallest_goes_with_itself_alone():
    assert {pair for pair in PAPER.pairs if 0 in pair} == {(0, 0)}
    assert len(PAPER.pairs) == 10


@every_case
def test_places_of_greatest_overlap_are_the_last_resort(monkeypatch, boxes):
    monkeypatch.setattr(views, "NUM_CANDIDATES", 0)
    origins, sizes = draw_pairs(boxes, 300)
    check(boxes, origins, sizes)
    greatest = [iou(np.zeros_like(pair), pair) for pair in sizes]
    assert list(map(iou, origins, sizes)) == greatest


def test_the_last_resort_is_taken_where_no_candidate_reaches_the_bound(monkeypatch):
    boxes = CASES[1]
    places = OverlappingBoxes._places

    def far_away(self, seed, number, *arguments):
        return places(self, seed, number, *arguments) if number == 1 else tf.fill((number, 3), 1000)

    monkeypatch.setattr(OverlappingBoxes, "_places", far_away)
    check(boxes, *draw_pairs(boxes, 100))


def test_second_places_are_uniform_among_those_that_reach_the_bound():
    boxes = OverlappingBoxes((7, 7), ((4, 4),), 0.3)
    origins, _ = draw_pairs(boxes, 4000)
    central = origins[(origins[:, 0] == [1, 2]).all(axis=1), 1]
    every = [(row, column) for row in range(4) for column in range(4)]
    reach = {place for place in every if iou(np.array([(1, 2), place]), np.array([(4, 4)] * 2)) >= 0.3}
    counts = {place: (central == place).all(axis=1).sum() for place in every}
    assert {place for place, count in counts.items() if count} == reach
    expected = len(central) / len(reach)
    assert max(abs(counts[place] - expected) for place in reach) < 4 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("shape", "sizes", "min_iou", "message"),
    [
        ((16, 16, 8), ((8, 8, 4), (8, 8, 9)), 0.3, r"global_sizes, data_dim: a view of \[8, 8, 9\].*\[16, 16, 8\]"),
        (
            (16, 16),
            ((8, 8), (4, 4)),
            1.1,
            r"global_sizes, min_iou: no two .*\[8, 8\], \[4, 4\].* 1.1; add sizes or reduce",
        ),
        ((16, 16), (), 0.3, "global_sizes, min_iou"),
    ],
)
def test_sizes_without_a_pair_are_refused(shape, sizes, min_iou, message):
    with pytest.raises(UserError, match=message):
        OverlappingBoxes(shape, sizes, min_iou)


@every_case
def test_the_bounding_box_contains_both_and_is_minimal(boxes):
    origins, sizes = thousand_pairs(boxes)
    for pair, pair_sizes in zip(origins[:50], sizes[:50], strict=True):
        origin, size = (value.numpy() for value in views.bounding_box(tf.constant(pair), tf.constant(pair_sizes)))
        assert (pair >= origin).all()
        assert (pair + pair_sizes <= origin + size).all()
        # One voxel less at any side would cut one of them.
        assert (pair == origin).any(axis=0).all()
        assert (pair + pair_sizes == origin + size).any(axis=0).all()


@pytest.mark.parametrize(
    ("boxes", "inner"),
    [
        (PAPER, InnerBoxes(((8, 8, 8), (16, 16, 16), (32, 32, 16), (32, 32, 32)), 6)),
        (CASES[1], InnerBoxes(((4, 4, 4), (8, 8, 4), (2, 14, 2), (6, 6, 8)), 6)),
        (CASES[2], InnerBoxes(((3, 3), (9, 9), (2, 14)), 4)),
    ],
)
def test_local_boxes_lie_in_the_bounding_box_of_the_global_ones(boxes, inner):
    rank = len(boxes.spatial_shape)

    def draw_both(seed):
        origins, sizes = boxes.draw(seed)
        box = views.bounding_box(origins, sizes)
        locals_ = inner.draw(tf.random.fold_in(seed, 1), *box)
        return tuple(tf.concat([*rows], axis=0) for rows in zip(((box[0],), (box[1],)), locals_, strict=True))

    origins, sizes = draw(draw_both, (inner.count + 1, rank), 1000)
    outer, outer_size, origins, sizes = origins[:, :1], sizes[:, :1], origins[:, 1:], sizes[:, 1:]
    assert (origins >= outer).all()
    assert (origins + sizes <= outer + outer_size).all()
    assert {tuple(size) for size in sizes.reshape(-1, rank).tolist()} == set(inner.sizes)
    assert (origins == outer).any(axis=(0, 1)).all()
    assert (origins + sizes == outer + outer_size).any(axis=(0, 1)).all()


def test_local_sizes_and_places_are_uniform_among_those_that_fit():
    inner = InnerBoxes(((2, 2), (3, 5), (6, 1), (3, 3)), 5)
    origins, sizes = draw(lambda seed: inner.draw(seed, tf.constant([4, 7]), tf.constant([3, 5])), (5, 2), 2000)
    origins, sizes = origins.reshape(-1, 2), sizes.reshape(-1, 2)
    for size, places in {(2, 2): 2 * 4, (3, 5): 1, (3, 3): 3}.items():
        chosen = origins[(sizes == size).all(axis=1)]
        assert len(chosen) == pytest.approx(len(sizes) / 3, rel=0.06)
        _, counts = np.unique(chosen, axis=0, return_counts=True)
        assert len(counts) == places
        np.testing.assert_allclose(counts, len(chosen) / places, rtol=0.2)
    assert (sizes != [6, 1]).any(axis=1).all()


def test_a_local_size_has_to_fit_into_the_smallest_bounding_box():
    inner = InnerBoxes(((8, 4, 4), (4, 8, 4)), 6)
    inner.check((8, 8, 4))
    inner.check((4, 8, 4))
    with pytest.raises(UserError, match=r"local_sizes.*\[8, 4, 4\], \[4, 8, 4\].*\[4, 7, 9\]; add a smaller"):
        inner.check((4, 7, 9))


def test_seeds_decide():
    for function in (
        PAPER.draw,
        lambda seed: InnerBoxes(((2, 2), (3, 5)), 6).draw(seed, tf.constant([4, 7]), tf.constant([30, 50])),
    ):
        first, again, other = (function(tf.constant(seed)) for seed in ([1, 2], [1, 2], [2, 1]))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
