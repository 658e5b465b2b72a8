from __future__ import annotations

from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.splits import finetuning_split, pretraining_split
from self_supervised_3d_tasks.errors import UserError

PERCENTS = [1, 5, 10, 25, 33.3, 50, 100]
SEEDS = range(40)


def make_cases(count: int, *, scans: int = 1, folder: str = "scans") -> list[Case]:
    names = [f"s{subject:03}_{scan}" for subject in range(count) for scan in range(scans)]
    return [Case(name, Path(folder, f"{name}.npy"), Path("masks", name), name.split("_")[0]) for name in names]


def split(cases, test_cases=None, **options):
    defaults = {"val_split": 0.1, "test_split": 0.2, "percent": 100, "repetition": 0, "seed": 0}
    return finetuning_split(cases, test_cases, **(defaults | options))


def subjects(cases) -> set[str]:
    return {case.subject for case in cases}


@pytest.mark.parametrize("seed", SEEDS)
def test_pretraining_parts_cover_everything_and_share_no_subject(seed: int) -> None:
    cases = make_cases(20, scans=3)
    parts = pretraining_split(cases, 0.9, seed)
    assert sorted(parts["train"] + parts["validation"], key=lambda case: case.name) == cases
    assert len(subjects(parts["validation"])) == 2 and len(parts["validation"]) == 6
    assert not subjects(parts["train"]) & subjects(parts["validation"])


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(2, 0.9, 1), (2, 0.1, 1), (15, 0.9, 2), (10, 0.75, 3), (3, 1.0, 0), (1, 1.0, 0)],
)
def test_pretraining_counts(count: int, share: float, expected: int) -> None:
    assert len(pretraining_split(make_cases(count), share, 0)["validation"]) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("own_test", [False, True])
def test_label_fractions_are_nested_and_the_rest_is_fixed(seed: int, own_test: bool) -> None:
    cases = make_cases(30, scans=2)
    test_cases = make_cases(5, folder="test") if own_test else None
    whole = split(cases, test_cases, seed=seed)
    for repetition in range(3):
        smaller: set[str] = set()
        for percent in PERCENTS:
            part = split(cases, test_cases, seed=seed, percent=percent, repetition=repetition)
            assert part.validation == whole.validation and part.test == whole.test
            assert smaller <= subjects(part.train)
            smaller = subjects(part.train)
        assert part.train == whole.train  # 100 %: all, in every repetition
    held_out = subjects(whole.validation) | (set() if own_test else subjects(whole.test))
    assert not held_out & subjects(whole.train)
    assert held_out | subjects(whole.train) == subjects(cases)


def test_counts_by_hand() -> None:
    # 30 subjects: 6 test, round(24 * 0.1) = 2 validation, 22 train.
    cases = make_cases(30)
    whole = split(cases)
    assert (len(whole.test), len(whole.validation), len(whole.train)) == (6, 2, 22)
    # 22 * 1 % = 0.22 -> 1; 5 % = 1.1 -> 1; 10 % = 2.2 -> 2; 25 % = 5.5 -> 6; 50 % = 11.
    assert [len(split(cases, percent=percent).train) for percent in (1, 5, 10, 25, 50)] == [1, 1, 2, 6, 11]


def test_repetitions_and_seeds_differ() -> None:
    cases = make_cases(30)
    trains = {tuple(case.name for case in split(cases, percent=25, repetition=r).train) for r in range(10)}
    assert len(trains) == 10
    tests = {tuple(case.name for case in split(cases, seed=seed).test) for seed in range(10)}
    assert len(tests) == 10


def test_file_order_does_not_matter() -> None:
    cases = make_cases(12)
    assert split(cases, percent=50) == split(cases[::-1], percent=50)
    assert pretraining_split(cases, 0.8, 1) == pretraining_split(cases[::-1], 0.8, 1)


def test_stays_the_same_in_future_versions() -> None:
    part = split(make_cases(10), percent=50, seed=7)
    names = [[case.subject for case in cases] for cases in (part.train, part.validation, part.test)]
    assert names == [["s003", "s004", "s005", "s006"], ["s000"], ["s001", "s002"]]


@pytest.mark.parametrize(
    ("own_test", "val_split", "needed"), [(False, 0.1, 3), (False, 0, 2), (True, 0.1, 2), (True, 0, 1)]
)
def test_too_few_subjects(own_test: bool, val_split: float, needed: int) -> None:
    test_cases = make_cases(1, folder="test") if own_test else None
    part = split(make_cases(needed), test_cases, val_split=val_split, percent=1)
    assert len(part.train) == 1 and len(part.test) == 1 and len(part.validation) == (val_split > 0)
    with pytest.raises(UserError, match=f"{needed - 1} subjects .*at least {needed}"):
        split(make_cases(needed - 1, scans=4), test_cases, val_split=val_split, percent=1)


def test_too_few_subjects_to_pretrain() -> None:
    with pytest.raises(UserError, match="1 subjects cannot be split into train and validation: expected at least 2"):
        pretraining_split(make_cases(1, scans=9), 0.9, 0)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"percent": 0}, "exp_splits"),
        ({"percent": 101}, "exp_splits"),
        ({"val_split": 1}, "val_split"),
        ({"test_split": 0}, "test_split"),
    ],
)
def test_shares_out_of_range(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        split(make_cases(10), **options)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_pretraining_share_out_of_range(share: float) -> None:
    with pytest.raises(UserError, match="train_val_split"):
        pretraining_split(make_cases(10), share, 0)


def test_a_test_file_must_not_train(caplog) -> None:
    cases = make_cases(10)
    with pytest.raises(UserError, match="s003_0.npy"):
        split(cases, cases[3:5])
    with pytest.raises(UserError, match="test set is empty"):
        split(cases, [])
    assert not caplog.records
    split(cases, make_cases(2, folder="elsewhere"))
    assert "2 subjects have one name" in caplog.text
