"""Every pretext task learns what anatomy tells, under its default keys and with the two scans per step of a newcomer.

The counterpart of `test_noise`. Scans are alike: what all patches have in common is far larger than what tells them
apart, as in real scans. A head that keeps it stays at chance.
"""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.algorithms import learners
from tests.algorithms.learners import GUESSING, SHAPES

# Turns in 3D are ten answers: two scans per step take longer than a test may.
BATCH = {("rotation", 3): 8}
STEPS = {"rotation": 80, "tcpc": 100}  # of the others 200
# No sign of learning in 500 steps on volumes as small as these; on real ones it takes a few epochs.
TOO_SMALL = {("cpc", 3)}


def smooth(rank, number, seed):
    noise = np.random.default_rng(seed).normal(size=(number, *SHAPES[rank])).astype(np.float32)
    noise = gaussian_filter(noise, (0, *[2] * rank, 0))
    return noise / noise.std()


@functools.cache
def scans(rank, number, seed):
    """Bright volumes that share one anatomy, and have half as much of their own: ``(number, *spatial, 1)``."""
    anatomy, own = smooth(rank, 1, 12345), smooth(rank, number, seed)
    grain = np.random.default_rng([seed, 2]).normal(size=own.shape).astype(np.float32)
    return np.clip(0.6 + 0.08 * anatomy + 0.04 * own + 0.01 * grain, 0.06, 1)


@pytest.mark.parametrize(
    ("name", "rank"), [(name, rank) for name in GUESSING for rank in (2, 3) if (name, rank) not in TOO_SMALL]
)
def test_anatomy_lifts_a_task_above_chance(name, rank):
    options = {"num_permutations": 100} if (name, rank) == ("jigsaw", 3) else {}  # not the 1,000 of large cohorts
    task, batch = learners.small_task(name, rank, **options), BATCH.get((name, rank), 2)
    found = learners.Learner(task).learned(functools.partial(scans, rank), batch=batch, steps=STEPS.get(name, 200))
    metric, (value, error) = next(iter(found.items()))
    chance = task.chance(batch)[metric]
    assert value - chance > 3 * error, f"{metric}: {value:.3f} ± {error:.3f} at chance {chance:.3f}"
