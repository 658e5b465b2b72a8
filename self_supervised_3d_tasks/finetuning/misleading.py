"""What a sweep may well do, but what misleads whoever reads its tables: told before anything is trained."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from absl import logging

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.labels.tables import Label
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.finetuning.job import Job


def warn_of_epochs(experiment: FinetuneExperiment) -> None:
    """Warn of a comparison with a training from scratch that is shorter or longer."""
    epochs = dict(experiment.modes())
    others = {mode: count for mode, count in epochs.items() if count != epochs.get("random", count)}
    if others:
        keys = ", ".join(f"epochs_{mode} {count}" for mode, count in (others | {"random": epochs["random"]}).items())
        logging.warning("%s: a difference between the modes is one between their epochs too; make them equal", keys)


def warn_of_validation(experiment: FinetuneExperiment) -> None:
    """Warn of trainings whose epoch is chosen by the scans that they train on."""
    if not experiment.val_split:
        logging.warning(
            "val_split: 0, so that the epoch is chosen by the loss of the training scans themselves; use it only where "
            "there are too few subjects"
        )


def warn_of_fractions(jobs: Iterable[Job]) -> None:
    """Warn of label fractions that come to the same subset of a small training set."""
    percents = defaultdict(dict)
    for job in jobs:
        percents[job.repetition, tuple(job.split.train)][f"{job.percent:g}%"] = None
    alike = dict.fromkeys((" and ".join(names), len(train)) for (_, train), names in percents.items() if len(names) > 1)
    for names, count in alike:
        logging.warning(
            "exp_splits: %s train on the same %d scan(s), so that their rows are of one experiment; keep one",
            names,
            count,
        )


def warn_of_label_map(experiment: FinetuneExperiment, met: Iterable[int], where: str) -> None:
    """Warn of labels in ``label_map`` that no training or validation scan has, so that their entries do nothing.

    Args:
        experiment: The sweep's settings.
        met: Labels that were found, as the files have them.
        where: What was looked at.
    """
    if absent := sorted(set(experiment.label_map) - set(met)):
        logging.warning(
            "label_map: none of %s has label %s, whose entries do nothing; check the numbers in the files, or remove "
            "the entries",
            where,
            ", ".join(map(str, absent)),
        )


def warn_of_classes(
    experiment: FinetuneExperiment, jobs: Iterable[Job], classes: Mapping[Case, Iterable[Label]]
) -> None:
    """Warn of classes that no training scan has, or none of a subset, and of subsets of one class.

    Args:
        experiment: The sweep's settings.
        jobs: Its trainings.
        classes: What occurs in training and validation scans, as far as it is known.
    """
    subsets = {f"{job.percent:g}%, repetition {job.repetition}": set(job.split.train) for job in jobs}
    taught = {name: set().union(*(classes.get(case, ()) for case in cases)) for name, cases in subsets.items()}
    known = set().union(*taught.values())
    absent = sorted(set(range(experiment.num_classes)) - known) if experiment.task != "findings" and known else []
    if absent:
        logging.warning(
            "num_classes: %d, but none of the %d training scans has class %s, of which nothing is learned; lower "
            "num_classes, or check the labels and label_map",
            experiment.num_classes,
            len(set().union(*subsets.values()) & set(classes)),
            ", ".join(map(str, absent)),
        )
    if empty := [case.name for case, found in classes.items() if experiment.task == "segmentation" and found == {0}]:
        logging.warning("%d of %d masks hold no foreground, such as that of %s", len(empty), len(classes), empty[0])
    if single := [name for name, found in taught.items() if len(found) == 1]:
        logging.warning(
            "exp_splits: the training scans of %s are of one class, from which no other can be told; raise it",
            "; ".join(single),
        )
    lacking = defaultdict(list)
    for name, found in taught.items():
        if len(found) > 1 and found != known and experiment.task != "findings":
            lacking[", ".join(map(str, sorted(known - found)))].append(name)
    for labels, names in lacking.items():
        logging.warning(
            "exp_splits: no training scan of %s has class %s, of which nothing is learned there; raise it, or expect "
            "low scores of these classes",
            "; ".join(names),
            labels,
        )
