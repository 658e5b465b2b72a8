"""Sets of permutations that are far apart, so that each can be told from the others."""

import functools
import itertools
import math

import numpy as np

from self_supervised_3d_tasks.errors import UserError

# More candidates gain next to nothing: of 27 items, 1,000 permutations are at least 23 apart.
POOL_SIZE = 20_000


@functools.lru_cache(maxsize=8)
def permutation_set(num_items: int, size: int, seed: int = 0) -> np.ndarray:
    """Choose permutations whose smallest Hamming distance is large.

    The distance of two permutations is the number of places in which they differ. From a random pool (all
    permutations there are, where they are few) one is drawn to start with; then again and again the one is
    added that is farthest from the nearest of those already chosen, a tie being decided at random. Hence the
    first k of a set are the set of size k. Noroozi and Favaro 2016 maximise the average distance, which leaves
    pairs that differ in two places: an example of which shows little more than two swapped patches.

    Args:
        num_items: Length of a permutation, at least 2.
        size: How many permutations, as `checked_size` has it.
        seed: The same gives the same set.

    Returns:
        ``(size, num_items)`` int32, read-only: the same array at each call.
    """
    rng = np.random.default_rng(seed)
    # (items, candidates): sums over the short axis are much faster when it is the outer one.
    pool = np.ascontiguousarray(_pool(num_items, rng).T)
    chosen = [int(rng.integers(pool.shape[1]))]
    nearest = _distances(pool, chosen[0])
    while len(chosen) < size:
        ties = np.flatnonzero(nearest == nearest.max())
        chosen.append(int(rng.choice(ties)))
        np.minimum(nearest, _distances(pool, chosen[-1]), out=nearest)
    result = pool[:, chosen].T.astype(np.int32)
    result.setflags(write=False)
    return result


def checked_size(num_items: int, wanted: int | None, default: int, *, items: str) -> int:
    """Return how many permutations a task tells apart.

    Args:
        num_items: Length of a permutation.
        wanted: The task's ``num_permutations``; None: ``default``, or all there are where there are fewer.
        default: How many are told apart where nothing else is wanted.
        items: What is permuted, for the message.

    Raises:
        UserError: More are wanted than there are, or than the pool has that a set is chosen from.
    """
    largest = min(math.factorial(num_items), POOL_SIZE)
    if wanted is not None and wanted > largest:
        raise UserError(
            f"num_permutations: at most {largest} orders of {num_items} {items} can be told apart here, received "
            f"{wanted}; reduce it, or leave it out"
        )
    return wanted or min(largest, default)


def _pool(num_items: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(candidates, num_items)`` distinct permutations in the smallest type that holds a distance."""
    dtype = np.min_scalar_type(num_items)
    if math.factorial(num_items) <= POOL_SIZE:
        return np.array(list(itertools.permutations(range(num_items))), dtype)
    pool = np.empty((0, num_items), dtype)
    while len(pool) < POOL_SIZE:
        drawn = rng.permuted(np.tile(np.arange(num_items, dtype=dtype), (POOL_SIZE, 1)), axis=1)
        pool = np.unique(np.concatenate([pool, drawn]), axis=0)
    return pool[rng.choice(len(pool), POOL_SIZE, replace=False)]


def _distances(pool: np.ndarray, index: int) -> np.ndarray:
    """Return the Hamming distance of each column of ``pool`` to one of them, ``(candidates,)``."""
    return (pool != pool[:, index, None]).sum(axis=0, dtype=pool.dtype)
