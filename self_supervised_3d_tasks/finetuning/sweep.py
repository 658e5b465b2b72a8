"""The downstream sweep: {frozen, initialized, random} × label fractions × repetitions → scores.

Each combination is one job (see `finetuning`) with its own folder under ``jobs/``. A finished job is never computed
again; an interrupted one continues after its last finished epoch.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks import plots, training, transfer
from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.labels.findings import FindingTable
from self_supervised_3d_tasks.data.labels.tables import Classes, LabelTable
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.downstream.base import DownstreamTask
from self_supervised_3d_tasks.errors import TrainingDiverged, UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder, environment
from self_supervised_3d_tasks.finetuning import job as finetuning
from self_supervised_3d_tasks.scores import results
from self_supervised_3d_tasks.scores.results import ScoreRow
from self_supervised_3d_tasks.transfer import decoder

__all__ = ["Plan", "plan", "run", "write_results"]


@dataclass(frozen=True)
class Plan:
    """What a finetuning sweep will do, known before any voxel is read."""

    experiment: FinetuneExperiment
    jobs: list[finetuning.Job]

    @property
    def task(self) -> DownstreamTask:
        """What the sweep's kind of label brings to it."""
        return finetuning.task_of(self.experiment)

    @property
    def cases(self) -> list[Case]:
        """Every case that some job reads from the store, once each."""
        return _unique(case for job in self.jobs for case in self.task.stored_cases(job.split))

    @property
    def test(self) -> list[Case]:
        """Every case that tests some job, once each; with cross-validation those of all folds."""
        return _unique(case for job in self.jobs for case in job.split.test)

    @property
    def splits(self) -> dict[str, Split]:
        """The split of each label fraction and repetition, by a name for people."""
        return {f"{job.percent:g}%, repetition {job.repetition}": job.split for job in self.jobs}

    def check_headers(self) -> None:
        """Raise `UserError` for the first scan or mask whose header does not fit; no voxel is read."""
        preprocessing, mask_classes = self.task.preprocessing, self.task.mask_classes
        for case in dict.fromkeys((*self.cases, *self.test)):
            check_case(case, preprocessing, num_classes=mask_classes)

    def describe(self) -> str:
        """Return the plan as text; builds the model to count its parameters."""
        experiment = self.experiment
        encoder, model = build.make_model(experiment, seed=experiment.seed)
        part = "decoder" if experiment.task == "segmentation" else "head"
        folds = f", in {experiment.repetitions} folds" if experiment.do_cross_val else ""
        lines = [
            f"checkpoint       {experiment.model_checkpoint}",
            f"model            {experiment.encoder_name} encoder {encoder.count_params():,} parameters, with "
            f"{experiment.prediction_name} {part} {model.count_params():,}; input {experiment.input_shape}",
            f"test             {len(self.test)} scans{folds}",
        ]
        for job in self.jobs:
            lines.append(
                f"{job.name:<25} {len(job.split.train)} train, {len(job.split.validation)} validation scans, "
                f"{job.epochs} epochs of {finetuning.steps_per_epoch(experiment, job)} steps"
            )
        return "\n".join(lines)


def plan(experiment: FinetuneExperiment) -> Plan:
    """List and split the scans and enumerate the jobs.

    Raises:
        UserError: A folder, mask or class is missing, there are too few subjects, or the checkpoint does not exist.
    """
    task = finetuning.task_of(experiment)
    task.check()
    if any(mode != "random" for mode, _ in experiment.modes()):
        transfer.find_encoder(experiment.model_checkpoint)
        if experiment.transfer == "encoder_decoder":
            decoder.find_decoder(experiment.model_checkpoint)
    train_cases = _find(experiment)
    task.check_cases(train_cases)
    test_cases = _find(experiment, test=True) if experiment.has_test_set else None
    jobs = []
    for percent in experiment.exp_splits:
        for repetition in range(experiment.repetitions):
            split = splits.finetuning_split(
                train_cases,
                test_cases,
                val_split=experiment.val_split,
                test_split=experiment.test_split,
                percent=percent,
                repetition=repetition,
                seed=experiment.seed,
                folds=experiment.repetitions if experiment.do_cross_val else None,
            )
            jobs += [finetuning.Job(percent, mode, repetition, epochs, split) for mode, epochs in experiment.modes()]
    return Plan(experiment, jobs)


def run(plan: Plan, folder: RunFolder) -> None:
    """Run every job and write ``results.csv``, ``results_long.csv``, ``statistics.csv`` and the plots.

    Args:
        plan: The sweep's plan.
        folder: A new run folder, or an unfinished one: finished jobs are kept, the interrupted one is continued.

    Raises:
        UserError: A scan, mask or checkpoint cannot be used (its file is named).
        TrainingDiverged: Some jobs diverged; the tables hold the others.
    """
    experiment, task = plan.experiment, plan.task
    folder.write_json(RunFolder.environment, environment(seed=experiment.seed))
    parts = _splits_json(plan)
    if folder.split.exists():
        recorded = folder.read_json(RunFolder.split)
        _check_labels(experiment, str(folder.split), recorded, parts, "start a new run without --resume")
    store = VolumeStore(
        plan.cases,
        task.preprocessing,
        num_classes=task.mask_classes,
        cache=experiment.cache,
        cache_dir=experiment.cache_folder,
        on_bad_file=experiment.on_bad_file,
    )
    task.check_splits(plan.splits, store)
    folder.pin_json(RunFolder.split, parts | {"skipped": store.skipped})
    training.set_precision(experiment.mixed_precision)
    logging.info("\n%s", plan.describe())
    baseline = RunFolder.open(experiment.random_from) if experiment.random_from else None
    if baseline:
        check_baseline(plan, baseline)
    rows: list[ScoreRow] = []
    diverged: list[str] = []
    for job in plan.jobs:
        job_folder = folder.job(job.name).path
        if baseline and job.mode == "random":
            take_over(job, baseline, folder)
        try:
            rows += finetuning.finished_rows(job, job_folder) or finetuning.run_job(experiment, job, store, job_folder)
        except TrainingDiverged as error:
            # One unlucky seed must not discard a sweep of hours: the other jobs go on, the failure is told at the end.
            diverged.append(f"{job.name}: {error}")
            logging.error("%s", diverged[-1])
    write_results(plan, folder, rows)
    if diverged:
        raise TrainingDiverged("; ".join(diverged))


def check_baseline(plan: Plan, baseline: RunFolder) -> None:
    """Raise `UserError` if another sweep trained from scratch with other settings, or on another split."""
    other = load_experiment("finetune", baseline.config)
    mine, theirs = build.baseline_settings(plan.experiment), build.baseline_settings(other)
    changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if changed:
        raise UserError(f"random_from: {baseline.path} trained from scratch with other values of {', '.join(changed)}")
    parts, recorded = _splits_json(plan), baseline.read_json(RunFolder.split)
    _check_labels(plan.experiment, f"random_from: {baseline.path}", recorded, parts, "remove random_from")
    if any(recorded.get(part) != parts[part] for part in parts):
        raise UserError(f"random_from: {baseline.path} has another split; the folders of scans have changed since")


def take_over(job: finetuning.Job, baseline: RunFolder, folder: RunFolder) -> None:
    """Copy a job that another sweep has finished, where this one has not begun it."""
    theirs, mine = baseline.job(job.name), folder.job(job.name).path
    if mine.exists() or not theirs.scores.exists():
        return
    logging.info("%s: taken over from %s", job.name, baseline.path)
    with tempfile.TemporaryDirectory(dir=folder.path) as temporary:
        shutil.copytree(theirs.path, Path(temporary) / job.name)
        mine.parent.mkdir(exist_ok=True)
        (Path(temporary) / job.name).rename(mine)


def write_results(plan: Plan, folder: RunFolder, rows: list[ScoreRow]) -> None:
    """Write the tables and plots of a sweep and log the table."""
    experiment = plan.experiment
    scores = plan.task.scores()
    modes = [mode for mode, _ in experiment.modes()]
    results.write_long(folder.results_long, rows)
    results.write_summary(folder.results, rows, modes, scores, experiment.exp_splits)
    results.write_statistics(folder.statistics, results.statistics(rows))
    for score in plan.task.curves():
        plots.score_over_fraction(folder.plots / f"{score}_over_fraction.png", rows, score)
    finished = [job for job in plan.jobs if folder.job(job.name).scores.exists()]
    for percent in experiment.exp_splits:
        histories = {
            f"{job.mode} {job.repetition}": training.read_history(folder.job(job.name).path)
            for job in finished
            if job.percent == percent
        }
        scored = [f"val_{metric.__name__}" for metric in plan.task.metrics()]
        for column in ("val_loss", *scored):
            plots.score_over_epochs(folder.plots / f"{column}_{percent:g}_percent.png", histories, column)
    groups = defaultdict(list)
    for job in finished:
        groups[job.percent, job.mode].append(folder.job(job.name).path)
    plan.task.plot(folder.plots, groups)
    logging.info("\n%s", results.table(rows, unit="folds" if experiment.do_cross_val else "repetitions"))


def _unique(cases: Iterable[Case]) -> list[Case]:
    return sorted(set(cases), key=lambda case: case.name)


def _find(experiment: FinetuneExperiment, *, test: bool = False) -> list[Case]:
    """List the labelled scans of the training folder, or of the test set that has a folder or a table of its own."""
    own_folder = test and experiment.data_dir_test
    return find_cases(
        experiment.dataset_name,
        experiment.data_dir_test if own_folder else experiment.data_dir_train,
        label_dir=experiment.label_dir_test if own_folder else experiment.label_dir_train,
        label_stem=experiment.label_stem,
        labelled=True,
        table=_table(experiment, test=test),
        classes=Classes(experiment.num_classes, experiment.label_map),
        subject_pattern=experiment.subject_pattern,
        channel_suffixes=experiment.channel_suffixes,
    )


def _table(experiment: FinetuneExperiment, *, test: bool) -> LabelTable | None:
    options = experiment.label_table_options(test=test)
    if options is None:
        return None
    return FindingTable(**options) if "findings" in options else LabelTable(**options)


def _splits_json(plan: Plan) -> dict:
    """Return the names per part, and the labels; without folds, test and validation are the same for every job."""
    first = plan.jobs[0].split
    held_out = {"test": _names(first.test), "validation": _names(first.validation)}
    if plan.experiment.do_cross_val:
        folds = {f"repetition {job.repetition}": job.split for job in plan.jobs}
        held_out = {part: {fold: _names(getattr(split, part)) for fold, split in folds.items()} for part in held_out}
    train = {name: _names(split.train) for name, split in plan.splits.items()}
    return held_out | {"train": train} | _labels_json(plan)


def _labels_json(plan: Plan) -> dict[str, dict[str, int | str]]:
    """Return the label of each case, nothing of masks; a test set of its own may repeat names of training cases."""
    recorded = plan.task.recorded_label
    own_test = set(plan.test if plan.experiment.has_test_set else ())
    parts = {"labels": [case for case in plan.cases if case not in own_test], "test_labels": _unique(own_test)}
    labels = {
        part: {case.name: recorded(case) for case in cases if case.label is not None} for part, cases in parts.items()
    }
    return {part: classes for part, classes in labels.items() if classes}


def _check_labels(experiment: FinetuneExperiment, where: str, recorded: dict, parts: dict, remedy: str) -> None:
    """Raise `UserError` if a scan has another label than was recorded: jobs on both would be compared."""
    for part, test in (("labels", False), ("test_labels", True)):
        before, now = recorded.get(part, {}), parts.get(part, {})
        changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
        if changed:
            first = changed[0]
            raise UserError(
                f"{where}: the labels of {len(changed)} scans have changed since, first that of {first!r} from "
                f"{before[first]} to {now[first]}; restore {experiment.label_key(test=test)}, or {remedy}"
            )


def _names(cases: Iterable[Case]) -> list[str]:
    return [case.name for case in cases]
