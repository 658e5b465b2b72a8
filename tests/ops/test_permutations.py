"""Sets of permutations that are far apart."""

import itertools
import math

import numpy as np
import pytest

from self_supervised_3d_tasks.ops import permutations
from self_supervised_3d_tasks.ops.permutations import min_distance, permutation_set

SIZES = [(2, 2), (4, 24), (8, 1000), (9, 100), (16, 100), (27, 1000), (64, 1000)]


@pytest.mark.parametrize(("num_items", "size"), SIZES)
def test_sets_hold_distinct_permutations(num_items, size):
    result = permutation_set(num_items, size)
    assert result.shape == (size, num_items)
    np.testing.assert_array_equal(np.sort(result, axis=1), np.tile(np.arange(num_items), (size, 1)))
    assert len({tuple(row) for row in result.tolist()}) == size


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("num_items", "size", "distance"), [(9, 100, 6), (27, 1000, 23), (27, 100, 24), (64, 1000, 58)]
)
def test_distances(num_items, size, distance, seed):
    """Of 1,000 random permutations of 27 items some pair is only about 18 apart."""
    assert min_distance(permutation_set(num_items, size, seed)) >= distance


def test_smallest_distance_is_that_of_the_slow_formula():
    rows = permutation_set(5, 7).tolist()
    slow = min(sum(a != b for a, b in zip(one, two, strict=True)) for one, two in itertools.combinations(rows, 2))
    assert min_distance(permutation_set(5, 7)) == slow
    assert min_distance(np.array([[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]])) == 2


def test_each_choice_is_a_farthest_candidate():
    """All 24 permutations of 4 items are candidates, so the greedy rule can be followed by hand."""
    chosen = permutation_set(4, 24, seed=5)
    everything = np.array(list(itertools.permutations(range(4))))
    for number in range(1, 24):
        nearest = (everything[:, None] != chosen[None, :number]).sum(axis=2).min(axis=1)
        added = (chosen[number] != chosen[:number]).sum(axis=1).min()
        assert added == nearest.max()


def test_four_items_have_four_permutations_that_share_no_place():
    assert min_distance(permutation_set(4, 4)) == 4


def test_same_seed_same_set():
    first = permutation_set(9, 50, 3).copy()
    permutation_set.cache_clear()
    np.testing.assert_array_equal(permutation_set(9, 50, 3), first)
    assert not np.array_equal(permutation_set(9, 50, 4), first)


@pytest.mark.parametrize("num_items", [5, 9])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(num_items):
    np.testing.assert_array_equal(permutation_set(num_items, 20), permutation_set(num_items, 60)[:20])


def test_sets_are_shared_and_read_only():
    result = permutation_set(9, 10)
    assert permutation_set(9, 10) is result
    with pytest.raises(ValueError, match="read-only"):
        result[0, 0] = 1


def test_distances_above_255_do_not_overflow():
    assert min_distance(permutation_set(343, 4)) > 320


@pytest.mark.parametrize(("num_items", "largest"), [(2, 2), (4, 24), (7, 5040), (8, permutations.POOL_SIZE)])
def test_largest_size(num_items, largest):
    assert permutations.largest_size(num_items) == largest == min(math.factorial(num_items), 20_000)
    with pytest.raises(ValueError, match=f"at most {largest}"):
        permutation_set(num_items, largest + 1)
