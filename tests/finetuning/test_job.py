"""Seeds of jobs."""

from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.finetuning.job import Job

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
