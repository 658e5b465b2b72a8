"""Sets of permutations that are far apart."""

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops import permutations
from self_supervised_3d_tasks.ops.permutations import permutation_set


def min_distance(permutations):
    """Return in how many places the two rows differ that differ in the fewest."""
    return round(pdist(permutations, "hamming").min() * permutations.shape[1])


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
def test_more_permutations_than_there_are_cannot_be_told_apart(num_items, largest):
    assert largest == min(math.factorial(num_items), 20_000)
    assert permutations.checked_size(num_items, None, 10**6, items="patches") == largest
    assert permutations.checked_size(num_items, largest, 1, items="patches") == largest
    assert permutations.checked_size(num_items, None, 2, items="patches") == 2
    with pytest.raises(UserError, match=f"num_permutations: at most {largest} orders of {num_items} patches"):
        permutations.checked_size(num_items, largest + 1, 1, items="patches")
