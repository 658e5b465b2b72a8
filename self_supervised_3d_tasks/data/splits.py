"""Which cases train, validate and test. Cases of one subject stay together.

Subjects are ordered by a hash of the seed and their name: no generator whose stream could change between
library versions, and a subject that is added later moves few others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from absl import logging

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.errors import UserError


@dataclass(frozen=True)
class Split:
    """The cases of one finetuning job, each list sorted by name.

    Args:
        train: the label fraction.
        validation: the same for every fraction and repetition.
        test: the same for every fraction and repetition.
    """

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def pretraining_split(cases: Sequence[Case], train_val_split: float, seed: int) -> dict[str, list[Case]]:
    """Split cases into ``"train"`` and ``"validation"``.

    Args:
        cases: all cases.
        train_val_split: share of the subjects that trains, in (0, 1]; 1 leaves the validation empty.
        seed: of the order of subjects.

    Raises:
        UserError: The share is out of range, or there are fewer subjects than parts.
    """
    if not 0 < train_val_split <= 1:
        raise UserError(f"train_val_split: expected a share above 0, at most 1, received {train_val_split}.")
    subjects = _ordered({case.subject for case in cases}, seed, "pretraining")
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
) -> Split:
    """Split cases into train, validation and test.

    Test and validation are fixed first, by ``seed`` alone. Each repetition orders the remaining subjects anew
    and a label fraction is a prefix of that order: smaller fractions are subsets of larger ones.

    Args:
        cases: all labelled cases that are not ``test_cases``.
        test_cases: a test set of its own; None takes it out of ``cases``.
        val_split: share of the subjects left after the test set that validates, in [0, 1); 0 leaves it empty.
        test_split: share of the subjects that tests, in (0, 1); only read without ``test_cases``.
        percent: share of the training subjects that is used, in (0, 100]; at least one subject.
        repetition: number of the repetition.
        seed: of the experiment.

    Raises:
        UserError: A share is out of range, there are fewer subjects than parts, or a test file also trains.
    """
    _check_shares(val_split, test_split, percent, own_test=test_cases is not None)
    subjects = _ordered({case.subject for case in cases}, seed, "finetuning")
    after_test = 1 + (val_split > 0)
    if test_cases is None:
        parts = "train, validation and test" if val_split else "train and test"
        num_test = _num_held_out(len(subjects), test_split, others=after_test, parts=parts)
        test = _of_subjects(cases, subjects[:num_test])
        subjects = subjects[num_test:]
    else:
        _check_apart(cases, test_cases)
        test = sorted(test_cases, key=lambda case: case.name)
    num_validation = _num_held_out(len(subjects), val_split, others=1, parts="train and validation")
    pool = _ordered(subjects[num_validation:], seed, f"repetition {repetition}")
    num_train = max(1, _rounded(len(pool) * percent / 100))
    return Split(
        train=_of_subjects(cases, pool[:num_train]),
        validation=_of_subjects(cases, subjects[:num_validation]),
        test=test,
    )


def _ordered(subjects: Iterable[str], seed: int, purpose: str) -> list[str]:
    def position(subject: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}/{purpose}/{subject}".encode()).digest(), subject

    return sorted(subjects, key=position)


def _of_subjects(cases: Iterable[Case], subjects: Iterable[str]) -> list[Case]:
    wanted = set(subjects)
    return sorted((case for case in cases if case.subject in wanted), key=lambda case: case.name)


def _num_held_out(num_subjects: int, share: float, *, others: int, parts: str) -> int:
    """Return how many subjects to hold out: rounded, at least one, leaving one for each other part."""
    needed = others + (share > 0)
    if num_subjects < needed:
        raise UserError(
            f"{num_subjects} subjects cannot be split into {parts}: expected at least {needed}. Add scans, "
            "or check subject_pattern."
        )
    return min(max(1, _rounded(num_subjects * share)), num_subjects - others) if share > 0 else 0


def _rounded(value: float) -> int:
    """Round half up, also 15 * (1 - 0.9), which is below a half; the built-in rounds 2.5 to 2, 3.5 to 4."""
    return math.floor(value + 0.5 + 1e-9)


def _check_shares(val_split: float, test_split: float, percent: float, *, own_test: bool) -> None:
    if not 0 <= val_split < 1:
        raise UserError(f"val_split: expected a share from 0 to below 1, received {val_split}.")
    if not own_test and not 0 < test_split < 1:
        raise UserError(f"test_split: expected a share between 0 and 1, received {test_split}.")
    if not 0 < percent <= 100:
        raise UserError(f"exp_splits: expected percentages above 0, at most 100, received {percent}.")


def _check_apart(cases: Sequence[Case], test_cases: Sequence[Case]) -> None:
    if not test_cases:
        raise UserError("The test set is empty: expected at least 1 case. Check the key for the test folder.")
    shared = {case.image for case in cases} & {case.image for case in test_cases}
    if shared:
        raise UserError(f"{min(shared)}: is a training file and a test file; expected separate scans.")
    subjects = {case.subject for case in cases} & {case.subject for case in test_cases}
    if subjects:
        logging.warning(
            "%d subjects have one name in the training and the test folder, such as %s. The same person?",
            len(subjects),
            min(subjects),
        )
