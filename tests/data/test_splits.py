from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import balanced, finetuning_split, pretraining_split
from self_supervised_3d_tasks.errors import UserError

PERCENTS = [1, 5, 10, 25, 33.3, 50, 100]
SEEDS = range(40)


def make_cases(count: int, *, scans: int = 1, folder: str = "scans") -> list[Case]:
    names = [f"s{subject:03}_{scan}" for subject in range(count) for scan in range(scans)]
    return [Case(name, Path(folder, f"{name}.npy"), Path("masks", name), name.split("_")[0]) for name in names]


def make_test_cases(count: int) -> list[Case]:
    """Return scans of other people, under the names of `make_cases`."""
    return [replace(case, subject=f"other {case.subject}") for case in make_cases(count, folder="test")]


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
    ("count", "share", "expected"), [(2, 0.9, 1), (2, 0.1, 1), (15, 0.9, 2), (10, 0.75, 3), (3, 1.0, 0), (1, 1.0, 0)]
)
def test_pretraining_counts(count: int, share: float, expected: int) -> None:
    assert len(pretraining_split(make_cases(count), share, 0)["validation"]) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("own_test", [False, True])
def test_label_fractions_are_nested_and_the_rest_is_fixed(seed: int, own_test: bool) -> None:
    cases = make_cases(30, scans=2)
    test_cases = make_test_cases(5) if own_test else None
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
    ("count", "expected"), {3: "fd8ac63b08ebe0fa", 10: "032be463b72bbe08", 31: "30574bcddae2c4a6"}.items()
)
def test_cases_without_classes_split_as_in_version_1(count: int, expected: str) -> None:
    cases, test_cases = make_cases(count, scans=2), make_test_cases(2)
    text = ""
    for seed in (0, 1, 7):
        parts = [list(pretraining_split(cases, 0.8, seed).values())]
        for percent, repetition, own_test in itertools.product((1, 25, 50, 100), (0, 1, 4), (None, test_cases)):
            options = {"val_split": 0.15, "test_split": 0.25, "percent": percent, "repetition": repetition}
            part = split(cases, own_test, seed=seed, **options)
            parts.append([part.train, part.validation, part.test])
        text += repr([[[case.name for case in part] for part in group] for group in parts])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == expected


@pytest.mark.parametrize(
    ("own_test", "val_split", "needed"), [(False, 0.1, 3), (False, 0, 2), (True, 0.1, 2), (True, 0, 1)]
)
def test_too_few_subjects(own_test: bool, val_split: float, needed: int) -> None:
    test_cases = make_test_cases(1) if own_test else None
    part = split(make_cases(needed), test_cases, val_split=val_split, percent=1)
    assert len(part.train) == 1 and len(part.test) == 1 and len(part.validation) == (val_split > 0)
    with pytest.raises(UserError, match=f"{needed - 1} subjects .*at least {needed}.*or subject_column"):
        split(make_cases(needed - 1, scans=4), test_cases, val_split=val_split, percent=1)


def test_too_few_subjects_to_pretrain() -> None:
    with pytest.raises(UserError, match="1 subjects cannot be split into train and validation: expected at least 2"):
        pretraining_split(make_cases(1, scans=9), 0.9, 0)


def test_a_test_file_must_not_train(caplog) -> None:
    cases = make_cases(10)
    with pytest.raises(UserError, match="s003_0.npy"):
        split(cases, cases[3:5])
    with pytest.raises(UserError, match="test set is empty"):
        split(cases, [])
    assert not caplog.records


def test_a_subject_must_not_stand_on_both_sides(caplog) -> None:
    with pytest.raises(UserError, match="2 subjects .*training and .*test.* first 's000'.*subject_column"):
        split(make_cases(10), make_cases(2, folder="elsewhere"))
    by_file = [replace(case, subject=case.name) for case in make_cases(10)]
    # Known on one side only: the subject of the training file s000_0 is called as the test file.
    known = [replace(case, name=f"{case.name}.left") for case in by_file]
    with pytest.raises(UserError, match="2 subjects .* first 's000_0'"):
        split(known, [replace(case, image=Path("elsewhere", case.name)) for case in by_file[:2]])
    assert not caplog.records
    # A file is no person: scans are often numbered from one in each folder.
    split(by_file, [replace(case, image=Path("elsewhere", case.name)) for case in by_file[:2]])
    assert "2 subjects have one name" in caplog.text


def labelled_cases(counts: dict[int, int], *, scans: int = 1) -> list[Case]:
    """Return that many subjects of each class; of several scans, the last has the class and the others 0."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    cases = make_cases(len(labels), scans=scans)
    return [
        replace(case, label=labels[number // scans] if number % scans == scans - 1 else 0)
        for number, case in enumerate(cases)
    ]


def class_counts(cases: list[Case]) -> Counter[int]:
    """Count the subjects by their largest class."""
    return Counter({case.subject: case.label for case in sorted(cases, key=lambda case: case.label)}.values())


GRADES = {0: 50, 1: 7, 2: 25, 3: 3, 4: 15}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scans", [1, 2])
def test_every_part_holds_the_classes_in_proportion(seed: int, scans: int) -> None:
    cases = labelled_cases(GRADES, scans=scans)
    for percent in PERCENTS:
        part = split(cases, percent=percent, seed=seed, repetition=seed % 3)
        for some, whole in (
            (part.test, cases),
            (part.validation, [case for case in cases if case not in part.test]),
            (part.train, [case for case in cases if case not in part.test + part.validation]),
        ):
            share = len(subjects(some)) / len(subjects(whole))
            totals, counts = class_counts(whole), class_counts(some)
            assert all(abs(counts[label] - share * total) <= 1.5 for label, total in totals.items())
    rest = pretraining_split(cases, 0.8, seed)["validation"]
    assert all(abs(class_counts(rest)[label] - 0.2 * total) <= 1.5 for label, total in GRADES.items())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("folds", [None, 5])
def test_stratified_fractions_are_nested_and_share_no_subject(seed: int, folds: int | None) -> None:
    cases = labelled_cases(GRADES, scans=2)
    for repetition in range(3):
        whole = split(cases, seed=seed, repetition=repetition, folds=folds)
        smaller: set[str] = set()
        for percent in PERCENTS:
            part = split(cases, seed=seed, percent=percent, repetition=repetition, folds=folds)
            assert part.validation == whole.validation and part.test == whole.test
            assert smaller <= subjects(part.train)
            smaller = subjects(part.train)
        parts = [subjects(cases) for cases in (part.train, part.validation, part.test)]
        assert sum(map(len, parts)) == 100 == len(set.union(*parts))


def test_stratified_order_by_hand() -> None:
    # Four subjects of class 0 stand at 1/8, 3/8, 5/8, 7/8, two of class 1 at 1/4, 3/4: the order is 0 1 0 0 1 0.
    cases = labelled_cases({0: 4, 1: 2})
    for seed in SEEDS:
        part = split(cases, make_test_cases(1), val_split=2 / 6, seed=seed)
        assert class_counts(part.validation) == {0: 1, 1: 1}


def fold_sets(cases, folds: int, seed: int = 0) -> list[list[Case]]:
    return [split(cases, folds=folds, repetition=fold, seed=seed).test for fold in range(folds)]


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_partition_the_subjects(seed: int, labelled: bool, folds: int) -> None:
    cases = labelled_cases({0: 20, 1: 11, 2: 9}, scans=2) if labelled else make_cases(41, scans=2)
    tests = fold_sets(cases, folds, seed)
    assert sorted(itertools.chain(*tests), key=lambda case: case.name) == cases
    for one, other in itertools.combinations(tests, 2):
        assert not subjects(one) & subjects(other)
    sizes = [len(subjects(test)) for test in tests]
    assert max(sizes) - min(sizes) <= (1 if not labelled else 2)
    if labelled:
        for label, count in {0: 20, 1: 11, 2: 9}.items():
            assert all(abs(class_counts(test)[label] - count / folds) <= 1.5 for test in tests)
    assert fold_sets(cases[::-1], folds, seed) == tests
    assert fold_sets(cases, folds, seed + 1) != tests


def test_rotation_of_folds_leaves_train_and_validation() -> None:
    # 50 subjects: each fold tests 10, 10 % of the other 40 validate.
    cases = labelled_cases({0: 25, 1: 25})
    for fold in range(5):
        part = split(cases, folds=5, repetition=fold)
        assert (len(part.test), len(part.validation), len(part.train)) == (10, 4, 36)
        assert class_counts(part.test) == {0: 5, 1: 5} and class_counts(part.validation) == {0: 2, 1: 2}


def test_rare_classes_are_told(caplog) -> None:
    cases = labelled_cases({0: 20, 1: 10, 2: 2})
    assert sorted(class_counts(test)[2] for test in fold_sets(cases, 5)) == [0, 0, 0, 1, 1]
    (record,) = caplog.records
    assert "Class 2 has 2 subjects for 5 folds" in record.getMessage()


@pytest.mark.parametrize(
    ("cases", "folds", "message"),
    [
        (make_cases(4, scans=3), 5, "repetitions: expected 2 to 4 folds.*received 5.*subject_column"),
        (make_cases(4), 1, "repetitions: expected 2 to 4 folds.*received 1"),
        (labelled_cases({0: 4, 1: 4}), 5, "repetitions: no class has as many as 5 cases"),
        (make_cases(2), 2, "1 subjects cannot be split into train and validation"),
    ],
)
def test_too_many_folds(cases, folds: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split(cases, folds=folds)


def test_large_seeds_of_folds() -> None:
    assert len(fold_sets(labelled_cases({0: 5, 1: 5}), 2, seed=2**40)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_balanced_repeats_the_smaller_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = {label: int(count) for label, count in enumerate(rng.integers(1, 9, 4))}
    cases = labelled_cases(counts)
    repeated = balanced(cases[::-1])
    largest = max(counts.values())
    assert Counter(case.label for case in repeated) == dict.fromkeys(counts, largest)
    times = Counter(repeated)
    assert set(times) == set(cases)
    assert all(times[case] in (largest // counts[case.label], -(-largest // counts[case.label])) for case in cases)
    assert [case.name for case in repeated] == sorted(case.name for case in repeated)


def test_balanced_leaves_even_and_unlabelled_cases() -> None:
    even = labelled_cases({0: 3, 1: 3})
    assert balanced(even) == even
    assert balanced(make_cases(5)) == make_cases(5)
    assert balanced([]) == []


def make_findings(healthy: int, ill: int) -> list[Case]:
    """Two scans of each subject; of the ill ones, the second has one or two findings of three."""
    vectors = [(1, 0, 0), (0, 1, 1), (0, 0, 1)]
    return [
        replace(case, label=vectors[index // 2 % 3] if index % 2 and index // 2 >= healthy else (0, 0, 0))
        for index, case in enumerate(make_cases(healthy + ill, scans=2))
    ]


@pytest.mark.parametrize("seed", range(10))
def test_findings_are_spread_by_whether_a_subject_has_any(seed: int) -> None:
    cases = make_findings(60, 40)
    ill = {case.subject for case in cases if any(case.label)}
    for percent in (10, 50, 100):
        made = split(cases, val_split=0.25, percent=percent, seed=seed)
        parts = [subjects(part) for part in (made.train, made.validation, made.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert [len(part) for part in parts] == [60 * percent // 100, 20, 20]
        assert all(abs(len(part & ill) - 0.4 * len(part)) <= 1 for part in parts)
        assert len(made.train) == 2 * len(parts[0])
    folds = [split(cases, folds=5, repetition=fold, seed=seed).test for fold in range(5)]
    assert sorted(case.name for fold in folds for case in fold) == [case.name for case in cases]
    assert all(4 <= len(subjects(fold) & ill) <= 12 for fold in folds)
