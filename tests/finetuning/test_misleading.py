"""Sweeps that are legal but would mislead: each is told of in one line."""

from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import finetuning_split
from self_supervised_3d_tasks.finetuning import misleading
from self_supervised_3d_tasks.finetuning.job import Job
from tests.experiment.experiment_files import classify, finetune


def cases_of(labels):
    return [Case(f"case{i}", Path(f"case{i}.npy"), None, f"case{i}", label=label) for i, label in enumerate(labels)]


def jobs_of(cases, percents, *, repetitions=1):
    options = {"val_split": 0.1, "test_split": 0.2, "seed": 0}
    return [
        Job(p, mode, r, 1, finetuning_split(cases, None, percent=p, repetition=r, **options))
        for p in percents
        for r in range(repetitions)
        for mode in ("initialized", "random")
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, ""),
        ({"epochs_initialized": 20, "epochs_random": 10}, "epochs_initialized 20, epochs_random 10: a difference"),
        ({"epochs_frozen": 3}, "epochs_frozen 3, epochs_random 5: a difference"),
        ({"epochs_frozen": 5}, ""),
        ({"epochs_initialized": 20, "epochs_random": 0}, ""),
    ],
)
def test_unequal_epochs(tmp_path, caplog, keys, said):
    misleading.warn_of_epochs(finetune(tmp_path, **keys))
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


def test_equal_fractions(caplog):
    """8 subjects: 2 test, 1 validates, 5 train; of those 10 % and 20 % are one scan."""
    misleading.warn_of_fractions(jobs_of(cases_of([None] * 8), [100, 20, 10, 50], repetitions=3))
    (record,) = caplog.records
    assert record.getMessage().startswith("exp_splits: 20% and 10% train on the same 1 scan(s)")


def test_classes_without_a_scan_and_fractions_of_one_class(tmp_path, caplog):
    cases = cases_of([0, 1] * 10)
    experiment, labels = classify(tmp_path, num_classes=4), {case: [case.label] for case in cases}
    misleading.warn_of_classes(experiment, jobs_of(cases, [100, 5], repetitions=2), labels)
    absent, single = (record.getMessage() for record in caplog.records)
    assert absent.startswith("num_classes: 4, but none of the 14 training scans has class 2, 3, of")
    assert single.startswith("exp_splits: the training scans of 5%, repetition 0; 5%, repetition 1 are of one class")
    caplog.clear()
    misleading.warn_of_classes(classify(tmp_path, num_classes=2), jobs_of(cases, [100, 50]), labels)
    misleading.warn_of_classes(experiment, jobs_of(cases, [5]), {})  # nothing is known of masks before they are read
    assert caplog.records == []


def test_a_class_of_validation_scans_alone(tmp_path, caplog):
    cases = cases_of([None] * 20)
    jobs = jobs_of(cases, [100])
    labels = {case: {0, 1} for case in cases} | {case: {0, 1, 2} for case in jobs[0].split.validation}
    misleading.warn_of_classes(finetune(tmp_path, num_classes=3), jobs, labels)
    (record,) = caplog.records
    assert record.getMessage().startswith("num_classes: 3, but none of the 14 training scans has class 2, of which")


def test_classes_that_a_fraction_lacks(tmp_path, caplog):
    """One scan of 14 has class 2, another class 3; of small fractions most lack one of them, or both."""
    cases = cases_of([None] * 20)
    jobs = jobs_of(cases, [100, 50, 8], repetitions=2)
    whole = next(job for job in jobs if job.percent == 100).split.train
    labels = {case: {0, 1} for case in cases} | {whole[0]: {0, 1, 2}, whole[-1]: {0, 1, 3}}
    misleading.warn_of_classes(finetune(tmp_path, num_classes=4), jobs, labels)
    expected = {}
    for job in jobs:
        lacking = {2: whole[0], 3: whole[-1]}
        absent = ", ".join(str(label) for label, case in lacking.items() if case not in job.split.train)
        if absent:
            expected.setdefault(absent, {})[f"{job.percent:g}%, repetition {job.repetition}"] = None
    assert "8%, repetition 0" in str(expected) and "100%, repetition 0" not in str(expected)
    assert {record.getMessage() for record in caplog.records} == {
        f"exp_splits: no training scan of {'; '.join(subsets)} has class {absent}, of which nothing is learned there; "
        "raise it, or expect low scores of these classes"
        for absent, subsets in expected.items()
    }
