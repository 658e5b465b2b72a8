"""Seeds of jobs, and what is told of their validation."""

import pytest

from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.finetuning.job import Job, warn_of_standstill

SPLIT = Split([], [], [])


def test_no_two_pairs_of_seed_and_repetition_share_a_seed():
    """Seed 0 had in repetition 1 what seed 1 had in repetition 0: two sweeps were fewer repetitions than they said."""
    pairs = [(seed, repetition) for seed in (*range(40), 2**32, 2**32 + 1, 2**40) for repetition in range(10)]
    seeds = [Job(100, "random", repetition, 1, SPLIT).seed(seed) for seed, repetition in pairs]
    assert len(set(seeds)) == len(pairs)
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_all_modes_and_fractions_of_a_repetition_share_its_seed():
    jobs = [Job(percent, mode, 1, 1, SPLIT) for percent in (100, 5) for mode in ("frozen", "initialized", "random")]
    assert len({job.seed(3) for job in jobs}) == 1


@pytest.mark.parametrize(
    ("training", "validation", "told"),
    [
        ([1.0, 0.6, 0.3], [0.9, 0.95, 1.2], True),  # learned by heart
        ([1.0, 0.6, 0.3], [0.9, 0.88, 0.86], True),  # 0.04 of 0.7
        ([1.0, 0.6, 0.3], [0.9, 0.7, 0.8], False),
        ([1.0, 0.9, 0.8], [0.9, 0.9, 0.9], False),  # nothing was learned in training either
        ([1.0, 0.3], [0.9, 0.9], False),  # too early to tell
    ],
)
def test_a_validation_that_stands_still_is_told(caplog, training, validation, told):
    warn_of_standstill("100_random_0", [{"loss": a, "val_loss": b} for a, b in zip(training, validation, strict=True)])
    assert ("100_random_0: the loss of training fell from 1.000 to 0.300" in caplog.text) == told
