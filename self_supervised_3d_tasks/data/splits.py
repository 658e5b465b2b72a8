"""Which cases train, validate and test. Cases of one subject stay together.

Subjects are ordered by a hash of the seed and their name: no generator whose stream could change between
library versions, and a subject that is added later moves few others. Subjects with classes are interleaved, so that
every prefix of the order, and every rest, holds the classes in their proportions. The folds of a cross-validation
with classes are the exception: scikit-learn deals them with a generator, and another version of it may deal others.
A resumed run would notice: its split is on record.
"""

import functools
import hashlib
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.folders import subjects as subject_names
from self_supervised_3d_tasks.data.formats import stem_of
from self_supervised_3d_tasks.data.labels.tables import Label
from self_supervised_3d_tasks.errors import UserError

model_selection = lazy.load("sklearn.model_selection")

_UNLABELLED = -1


@dataclass(frozen=True)
class Split:
    """The cases of one finetuning job, each list sorted by name.

    Args:
        train: The cases of the label fraction.
        validation: The same for every fraction and, without folds, for every repetition.
        test: The same for every fraction and, without folds, for every repetition.
    """

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def pretraining_split(cases: Sequence[Case], train_val_split: float, seed: int) -> dict[str, list[Case]]:
    """Split cases into ``"train"`` and ``"validation"``.

    Args:
        cases: All cases.
        train_val_split: Share of the subjects that trains, in (0, 1).
        seed: Seed of the order of subjects.

    Raises:
        UserError: There are fewer subjects than parts.
    """
    classes = _classes(cases)
    subjects = _ordered(classes, classes, seed, "pretraining")
    num_validation = _num_held_out(len(subjects), 1 - train_val_split, others=1, parts="train and validation")
    return {
        "train": _of_subjects(cases, subjects[num_validation:]),
        "validation": _of_subjects(cases, subjects[:num_validation]),
    }


def finetuning_split(
    cases: Sequence[Case],
    test_cases: Sequence[Case] | None,
    *,
    val_split: float,
    test_split: float,
    percent: float,
    repetition: int,
    seed: int,
    folds: int | None = None,
) -> Split:
    """Split cases into train, validation and test.

    Test and validation are fixed first, by ``seed`` alone. Each repetition orders the remaining subjects anew
    and a label fraction is a prefix of that order: smaller fractions are subsets of larger ones. With ``folds``, each
    repetition tests on another part of the cases, and validates on some of the rest.

    Cases with classes are stratified: each part holds the classes in their proportions, as far as whole subjects allow.
    A subject counts for the largest class among its cases. Of findings, the classes are "none" and "at least one": a
    rare finding may be missing from a small part.

    Args:
        cases: All labelled cases that are not ``test_cases``.
        test_cases: A test set of its own; None takes it out of ``cases``.
        val_split: Share of the subjects left after the test set that validates, in [0, 1); 0 leaves it empty.
        test_split: Share of the subjects that tests, in (0, 1); only read without ``test_cases`` and ``folds``.
        percent: Share of the training subjects that is used, in (0, 100]; at least one subject.
        repetition: Number of the repetition, and of the fold that tests.
        seed: Seed of the experiment.
        folds: Number of folds of a cross-validation, above ``repetition``; excludes ``test_cases``.

    Raises:
        UserError: There are fewer subjects than parts or than folds, the test set is empty, or a test file or subject
            also trains.
    """
    classes = _classes(cases)
    subjects = _ordered(classes, classes, seed, "finetuning")
    if folds:
        fold = _folds(tuple(sorted(cases, key=lambda case: case.name)), folds, seed)[repetition]
        test = _of_subjects(cases, fold)
        subjects = [subject for subject in subjects if subject not in fold]
    elif test_cases is None:
        parts = "train, validation and test" if val_split else "train and test"
        num_test = _num_held_out(len(subjects), test_split, others=1 + (val_split > 0), parts=parts)
        test = _of_subjects(cases, subjects[:num_test])
        subjects = subjects[num_test:]
    else:
        _check_apart(cases, test_cases)
        test = sorted(test_cases, key=lambda case: case.name)
    subjects = _ordered(subjects, classes, seed, "finetuning")
    num_validation = _num_held_out(len(subjects), val_split, others=1, parts="train and validation")
    pool = _ordered(subjects[num_validation:], classes, seed, f"repetition {repetition}")
    num_train = max(1, _rounded(len(pool) * percent / 100))
    validation = _of_subjects(cases, subjects[:num_validation])
    return Split(_of_subjects(cases, pool[:num_train]), validation, test)


def warn_of_lookalikes(splits: Iterable[Iterable[Sequence[Case]]]) -> None:
    """Warn, once, of cases that look like one person's in two parts of a split.

    Args:
        splits: Each with its parts.
    """
    for parts in splits:
        if subject_names.warn_of_lookalikes([(case.name, stem_of(case.image)) for case in part] for part in parts):
            return


def balanced(cases: Sequence[Case]) -> list[Case]:
    """Return the cases, sorted by name, with those of smaller classes repeated until all classes are as large.

    For the training part only: a case that is repeated before the split would stand on both sides of it.
    """
    members: dict[Label | None, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.name):
        members[case.label].append(case)
    largest = max(map(len, members.values()), default=0)
    repeated = [group[number % len(group)] for group in members.values() for number in range(largest)]
    return sorted(repeated, key=lambda case: case.name)


def _classes(cases: Iterable[Case]) -> dict[str, int]:
    """Return the class of each subject: the largest of its cases, which of grades is the most severe."""
    classes: dict[str, int] = {}
    for case in cases:
        classes[case.subject] = max(_class(case), classes.get(case.subject, _UNLABELLED))
    return classes


def _class(case: Case) -> int:
    """Return what a case counts for when classes are spread evenly: its class, or whether it has any finding."""
    return _UNLABELLED if case.label is None else int(np.max(case.label))


def _ordered(subjects: Iterable[str], classes: Mapping[str, int], seed: int, purpose: str) -> list[str]:
    """Order subjects by their hash, and interleave their classes: the k-th of n in a class comes at (k + 1/2) / n."""
    by_hash = sorted(subjects, key=lambda subject: _digest(f"{seed}/{purpose}/{subject}"))
    members: dict[int, list[str]] = defaultdict(list)
    for subject in by_hash:
        members[classes[subject]].append(subject)
    positions = {subject: (k + 0.5) / len(group) for group in members.values() for k, subject in enumerate(group)}
    return sorted(by_hash, key=positions.__getitem__)  # stable: equal positions stay in hash order


@functools.lru_cache(maxsize=1)  # a sweep asks once per label fraction and fold; large cohorts take seconds
def _folds(cases: tuple[Case, ...], count: int, seed: int) -> list[frozenset[str]]:
    """Return the subjects of each fold of a cross-validation.

    Raises:
        UserError: There are more folds than subjects, or than cases of every class; or a fold would be empty.
    """
    classes = _classes(cases)
    if not 2 <= count <= len(classes):
        raise UserError(
            f"repetitions: expected 2 to {len(classes)} folds, because there are {len(classes)} subjects, received "
            f"{count}. Change repetitions, which is the number of folds with do_cross_val, or check subject_pattern or "
            "subject_column."
        )
    if set(classes.values()) == {_UNLABELLED}:
        order = _ordered(classes, classes, seed, "folds")
        return [frozenset(order[fold::count]) for fold in range(count)]
    labels = [_class(case) for case in cases]
    if max(Counter(labels).values()) < count:
        raise UserError(f"repetitions: no class has as many as {count} cases. Lower repetitions, the number of folds.")
    for label, subjects in sorted(Counter(classes.values()).items()):
        if subjects < count:
            logging.warning("Class %d has %d subjects for %d folds: some have none to test.", label, subjects, count)
    splitter = model_selection.StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    # scikit-learn warns of classes smaller than the folds, which are told above.
    with warnings.catch_warnings(category=UserWarning, action="ignore"):
        parts = [
            frozenset(cases[index].subject for index in test)
            for _, test in splitter.split(cases, labels, [case.subject for case in cases])
        ]
    if not all(parts):
        raise UserError(f"repetitions: the cases cannot be dealt into {count} folds by subject. Lower repetitions.")
    return parts


def _of_subjects(cases: Iterable[Case], subjects: Iterable[str]) -> list[Case]:
    wanted = set(subjects)
    return sorted((case for case in cases if case.subject in wanted), key=lambda case: case.name)


def _num_held_out(num_subjects: int, share: float, *, others: int, parts: str) -> int:
    """Return how many subjects to hold out: rounded, at least one, leaving one for each other part."""
    needed = others + (share > 0)
    if num_subjects < needed:
        raise UserError(
            f"{num_subjects} subjects cannot be split into {parts}: expected at least {needed}. Add scans, "
            "or check subject_pattern or subject_column."
        )
    return min(max(1, _rounded(num_subjects * share)), num_subjects - others) if share > 0 else 0


def _rounded(value: float) -> int:
    """Round half up, also 15 * (1 - 0.9), which is below a half; the built-in rounds 2.5 to 2, 3.5 to 4."""
    return math.floor(value + 0.5 + 1e-9)


def _subject(case: Case) -> str:
    return case.subject


def _check_apart(cases: Sequence[Case], test_cases: Sequence[Case]) -> None:
    if not test_cases:
        raise UserError("The test set is empty: expected at least 1 case. Check the key for the test folder.")
    shared = {case.image for case in cases} & {case.image for case in test_cases}
    if shared:
        raise UserError(f"{min(shared)}: is a training file and a test file; expected separate scans.")
    subjects = {case.subject for case in cases} & {case.subject for case in test_cases}
    if subjects:
        rows = [
            min((case for case in side if case.subject in subjects), key=_subject).row for side in (cases, test_cases)
        ]
        if all(rows):
            raise UserError(
                f"{' and '.join(rows)}: a scan of subject {min(subjects)!r} trains and one tests ({len(subjects)} such "
                "subjects); expected each in one index. Move the rows, or rename where one name stands for two people."
            )
    if any(case.subject in subjects and case.subject != case.name for case in (*cases, *test_cases)):
        raise UserError(
            f"{len(subjects)} subjects have scans in the training and in the test set, the first {min(subjects)!r}; "
            "expected each on one side. Move their scans, or change subject_pattern or subject_column where one name "
            "stands for two people."
        )
    if subjects:
        same = "%d subjects have one name in the training and the test folder, such as %s. The same person?"
        logging.warning(same, len(subjects), min(subjects))


def _digest(text: str) -> bytes:
    """Return a hash of a text, in which names may have bytes that are no UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
