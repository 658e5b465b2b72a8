from __future__ import annotations

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction.choice import FinishedJob, chosen, default, finished_jobs


def jobs(**losses):
    """Finished jobs with all labels, from losses per mode, and better ones with fewer labels."""
    named = [(mode, number, loss) for mode, group in losses.items() for number, loss in enumerate(group)]
    full = [FinishedJob(f"100_{mode}_{number}", 100.0, mode, loss) for mode, number, loss in named]
    return [*full, FinishedJob("010_initialized_0", 10.0, "initialized", 0.001)]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"initialized": [0.3, 0.2], "random": [0.5, 0.6]}, "100_initialized_1"),
        # 0.24 against 0.20, and 0.057 is the sd of initialized: within the spread
        ({"initialized": [0.28, 0.20], "random": [0.19, 0.21]}, "100_initialized_1"),
        # the same difference, but neither of them varies by more than 0.014
        ({"initialized": [0.25, 0.23], "random": [0.19, 0.21]}, "100_random_0"),
        # nothing is known of the spread of single repetitions
        ({"initialized": [0.21], "frozen": [0.4], "random": [0.2]}, "100_random_0"),
        # two pretrained modes are within the spread: the better one on average, and its best job
        ({"frozen": [0.1, 0.5], "initialized": [0.2, 0.3], "random": [0.0, 0.4]}, "100_initialized_0"),
        ({"random": [0.3, 0.2]}, "100_random_1"),
    ],
)
def test_the_default_is_the_lowest_loss_but_pretrained_where_scratch_is_within_the_spread(losses, expected):
    assert default(jobs(**losses))[0].name == expected


def test_the_reason_has_the_numbers():
    _, reason = default(jobs(initialized=[0.28, 0.20], random=[0.19, 0.21]))
    assert reason == (
        "100 % of the labels; validation loss of initialized 0.24 ± 0.057, within the spread of random, 0.2 ± 0.014"
    )
    assert default(jobs(frozen=[0.25, 0.5]))[1] == "100 % of the labels; lowest of 2 validation losses, 0.25"


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    losses = {"100_initialized_0": 0.4, "100_initialized_1": 0.3, "100_random_0": 0.9, "2.5_random_0": 0.1}
    return write_run(tmp_path_factory.mktemp("choice"), jobs=losses | {"100_random_1": None})


def test_finished_jobs_have_scores_and_a_model(run):
    assert [(job.name, job.percent, job.mode, job.loss) for job in finished_jobs(run)] == [
        ("100_initialized_0", 100.0, "initialized", 0.4),
        ("100_initialized_1", 100.0, "initialized", 0.3),
        ("100_random_0", 100.0, "random", 0.9),
        ("2.5_random_0", 2.5, "random", 0.1),
    ]


@pytest.mark.parametrize(
    ("job", "ensemble", "names"),
    [
        (None, None, ["100_initialized_1"]),
        (None, "best", ["100_initialized_0", "100_initialized_1"]),
        (None, "all", ["100_initialized_0", "100_initialized_1", "100_random_0", "2.5_random_0"]),
        (None, "2.5_random_0,100_random_0", ["2.5_random_0", "100_random_0"]),
        ("100_random_0", None, ["100_random_0"]),
    ],
)
def test_jobs_are_chosen_by_flags(run, job, ensemble, names):
    assert chosen(run, job, ensemble)[0] == names


@pytest.mark.parametrize(
    ("job", "ensemble", "message"),
    [
        (None, "100_random_0,100_random_1", r"--ensemble: .*100_random_1 holds no model\.keras\. Did you mean '100_ra"),
        (None, "al", r"--ensemble: .*/al holds no model"),
        (None, "100_random_0,", "--ensemble: .* holds no model"),
        ("100_random_0", "all", "--job, --ensemble: .*leave out one"),
    ],
)
def test_what_cannot_be_chosen_is_named(run, job, ensemble, message):
    with pytest.raises(UserError, match=message):
        chosen(run, job, ensemble)
