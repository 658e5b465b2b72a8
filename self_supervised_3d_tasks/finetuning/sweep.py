"""The downstream sweep: {frozen, initialized, random} × label fractions × repetitions → scores.

Each combination is one job (see `job`) with its own folder under ``jobs/``. A finished job is never computed again; an
interrupted one continues after its last finished epoch.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from absl import logging

from self_supervised_3d_tasks import plots, training
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import TrainingDiverged
from self_supervised_3d_tasks.experiment import geometry
from self_supervised_3d_tasks.files.run_folder import RunFolder, environment
from self_supervised_3d_tasks.finetuning import leakage
from self_supervised_3d_tasks.finetuning.baseline import check_baseline, check_labels, take_over
from self_supervised_3d_tasks.finetuning.job import finished_rows, run_job
from self_supervised_3d_tasks.finetuning.plan import Plan, plan
from self_supervised_3d_tasks.scores import report, statistics
from self_supervised_3d_tasks.scores.base import Distance
from self_supervised_3d_tasks.scores.statistics import ScoreRow

__all__ = ["plan", "run", "write_results"]


def run(plan: Plan, folder: RunFolder) -> None:
    """Run every job and write ``results.csv``, ``results_long.csv``, ``statistics.csv`` and the plots.

    Args:
        plan: The sweep's plan.
        folder: A new run folder, or an unfinished one: finished jobs are kept, the interrupted one is continued.

    Raises:
        UserError: A scan, mask or checkpoint cannot be used (its file is named).
        TrainingDiverged: Some jobs diverged; the tables hold the others.
    """
    experiment = plan.experiment
    folder.write_json(RunFolder.environment, environment(seed=experiment.seed))
    store = _read_scans(plan, folder)
    plan.check_network()
    training.set_precision(experiment.mixed_precision)
    logging.info("\n%s", plan.describe_jobs())
    baseline = RunFolder.open(experiment.random_from) if experiment.random_from else None
    if baseline:
        check_baseline(plan, baseline)
    rows: list[ScoreRow] = []
    diverged: list[str] = []
    for job in plan.jobs:
        job_folder = folder.job(job.name)
        if baseline and job.mode == "random":
            take_over(job, baseline, folder)
        try:
            rows += finished_rows(job, job_folder) or run_job(experiment, job, store, job_folder)
        except TrainingDiverged as error:
            # One unlucky seed must not discard a sweep of hours: the other jobs go on, the failure is told at the end.
            diverged.append(f"{job.name}: {error}")
            logging.error("%s", diverged[-1])
    write_results(plan, folder, rows, [case for case in plan.test if case in set(store.cases)])
    if diverged:
        raise TrainingDiverged("; ".join(diverged))


def _read_scans(plan: Plan, folder: RunFolder) -> VolumeStore:
    """Read and check the scans of all jobs; their split is recorded, or compared with the one on record."""
    experiment, task, parts = plan.experiment, plan.task, plan.record()
    if folder.split.exists():
        recorded = folder.read_json(RunFolder.split)
        check_labels(experiment, str(folder.split), recorded, parts, "start a new run without --resume")
    store = task.read(plan.cases)
    folder.write_json(RunFolder.geometry, geometry.record(experiment, store.headers))
    geometry.warn_of_differences(experiment, store.headers)
    task.check_splits(plan.splits, store)
    found = leakage.look_for(experiment, plan.test, task.test_content(plan.test, store))
    if found is not None:
        logging.log(logging.INFO if found.is_clean else logging.WARNING, "%s", found)
        folder.write_json(RunFolder.leakage, {"summary": str(found)} | dataclasses.asdict(found))
    plan.check_labels(store)
    folder.pin_json(RunFolder.split, parts | {"skipped": store.skipped})
    return store


def write_results(plan: Plan, folder: RunFolder, rows: list[ScoreRow], test: Sequence[Case]) -> None:
    """Write the tables and plots of a sweep and log the table.

    Args:
        plan: The sweep's plan.
        folder: Its run folder.
        rows: The scores of its finished jobs.
        test: The test cases that can be used.
    """
    experiment, task = plan.experiment, plan.task
    modes = [mode for mode, _ in experiment.modes()]
    report.write_long(folder.results_long, rows)
    report.write_summary(folder.results, rows, modes, list(task.scores()), experiment.exp_splits)
    report.write_statistics(folder.statistics, statistics.compare(rows))
    distances = [name for name, score in task.scores().items() if isinstance(score, Distance)]
    for score in task.curves():
        picture = folder.plots / f"{score}_over_fraction.png"
        plots.score_over_fraction(picture, statistics.defined(rows), score, distance=score in distances)
    finished = [job for job in plan.jobs if folder.job(job.name).scores.exists()]
    columns = ["val_loss", *(f"val_{metric.__name__}" for metric in task.metrics())]
    for percent in experiment.exp_splits:
        histories = {
            f"{job.mode} {job.repetition}": training.read_history(folder.job(job.name))
            for job in finished
            if job.percent == percent
        }
        for column in columns:
            plots.score_over_epochs(folder.plots / f"{column}_{percent:g}_percent.png", histories, column)
    groups = defaultdict(list)
    for job in finished:
        groups[job.percent, job.mode].append(folder.job(job.name))
    task.plot(folder.plots, groups)
    unit = "folds" if experiment.do_cross_val else "repetitions"
    notes = task.notes(test)
    if folder.leakage.exists():
        notes.append(folder.read_json(RunFolder.leakage)["summary"])
    options = {"unit": unit, "undefined": task.UNDEFINED, "distances": distances, "remarks": notes}
    logging.info("\n%s", report.table(rows, **options))
