"""The downstream sweep: {frozen, initialized, random} × label fractions × repetitions → scores.

Each combination is one job (see `job`) with its own folder under ``jobs/``. A finished job is never computed again; an
interrupted one continues after its last finished epoch.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks import plots, training
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import JobsFailed
from self_supervised_3d_tasks.experiment import geometry
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_files import LeakageRecord, SweepSplit
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import execution, leakage
from self_supervised_3d_tasks.finetuning.baseline import check_baseline, check_labels, take_over
from self_supervised_3d_tasks.finetuning.job import finished_rows
from self_supervised_3d_tasks.finetuning.plan import Plan, plan
from self_supervised_3d_tasks.scores import report, statistics
from self_supervised_3d_tasks.scores.base import Distance
from self_supervised_3d_tasks.scores.statistics import ScoreRow

__all__ = ["lacking", "plan", "run", "write_results"]


def run(plan: Plan, folder: RunFolder) -> None:
    """Run every job and write ``results.csv``, ``results_long.csv``, ``statistics.csv`` and the plots.

    Args:
        plan: The sweep's plan.
        folder: A new run folder, or an unfinished one: finished jobs are kept, the interrupted one is continued.

    Raises:
        UserError: A scan, mask or checkpoint cannot be used (its file is named).
        JobsFailed: Some trainings diverged, or failed otherwise; the tables hold the others.
    """
    folder.record_environment(seed=plan.experiment.seed)
    with execution.ready(plan, folder):
        failures, rows, store = _train(plan, folder)
    used = [case for case in plan.test if case in set(store.cases)]
    write_results(plan, folder, rows, used)
    if failures:
        raise JobsFailed(failures, len(plan.jobs))


def _train(plan: Plan, folder: RunFolder) -> tuple[dict[str, str], list[ScoreRow], VolumeStore]:
    """Do the jobs that have not finished; return why some failed, the rows of all others, and the scans."""
    experiment = plan.experiment
    store = _read_scans(plan, folder)
    plan.check_network()
    logging.info("\n%s", plan.describe_jobs())
    baseline = RunFolder.open(as_path(experiment.random_from)) if experiment.random_from else None
    if baseline:
        check_baseline(plan, baseline)
    for job in plan.jobs:
        if baseline and job.mode == "random":
            take_over(job, baseline, folder)
    rows = {job.name: finished_rows(plan.task, job, folder.job(job.name)) for job in plan.jobs}
    unfinished = [job for job in plan.jobs if not rows[job.name]]
    failures = execution.train(plan, folder, store, unfinished)
    rows |= {job.name: finished_rows(plan.task, job, folder.job(job.name)) for job in unfinished}
    return failures, list(itertools.chain.from_iterable(rows.values())), store


def lacking(plan: Plan, folder: RunFolder) -> list[Path]:
    """Return what a finished run must hold, does not, and can be made again from its jobs."""
    tables = [path for path in (folder.results, folder.results_long, folder.statistics) if not path.exists()]
    jobs = [(job, folder.job(job.name)) for job in plan.jobs]
    return tables + [of_job.scores for job, of_job in jobs if not finished_rows(plan.task, job, of_job)]


def _read_scans(plan: Plan, folder: RunFolder) -> VolumeStore:
    """Read and check the scans of all jobs; their split is recorded, or compared with the one on record."""
    experiment, task, parts = plan.experiment, plan.task, plan.record()
    if folder.split.exists():
        recorded = folder.read(RunFolder.split, SweepSplit)
        check_labels(experiment, str(folder.split), recorded, parts, "start a new run without --resume")
    store = task.read(plan.cases)
    folder.write_json(RunFolder.geometry, geometry.record(experiment, store.headers))
    geometry.warn_of_differences(experiment, store.headers)
    task.check_splits(plan.splits, store)
    found = leakage.look_for(experiment, plan.test, task.test_content(plan.test, store))
    if found is None:
        folder.leakage.unlink(missing_ok=True)
    else:
        logging.log(logging.INFO if found.is_clean else logging.WARNING, "%s", found)
        folder.write_json(RunFolder.leakage, {"summary": str(found)} | dataclasses.asdict(found))
    plan.check_labels(store)
    folder.pin(RunFolder.split, parts | {"skipped": store.skipped}, SweepSplit)
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
    logging.info("all jobs have ended; now tables and pictures are written")
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
        notes.append(folder.read(RunFolder.leakage, LeakageRecord).summary)
    options = {"unit": unit, "undefined": task.UNDEFINED, "distances": distances, "remarks": notes}
    logging.info("\n%s", report.table(rows, **options))
