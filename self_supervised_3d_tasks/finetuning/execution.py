"""The jobs of a sweep, done one after the other in this process, or several at once in processes of their own.

What a job leaves in its folder is all that is known of it: ``scores.json`` when it has finished, ``failure.json`` when
it could not be. So it makes no difference who did it, and on which machine.
"""

import contextlib
import functools
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging

from self_supervised_3d_tasks import executors, training
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import TrainingDiverged, UserError, is_of_the_system, refused
from self_supervised_3d_tasks.executors.base import Resources
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.paths import shown
from self_supervised_3d_tasks.files.run_files import JobFailure
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning.job import Job, run_job, steps_per_epoch
from self_supervised_3d_tasks.finetuning.plan import Plan, plan
from self_supervised_3d_tasks.lazy import keras


def train(plan: Plan, folder: RunFolder, store: VolumeStore, jobs: Sequence[Job]) -> dict[str, str]:
    """Do some jobs of a sweep.

    A job that fails does not discard a sweep of hours: the others go on.

    Args:
        plan: The sweep's plan.
        folder: Its run folder.
        store: The prepared scans of all jobs.
        jobs: Those to be done; an interrupted one is continued.

    Returns:
        Why jobs failed, by name.

    Raises:
        UserError: No job can be done, for the same reason: a mistake in the experiment or the data.
    """
    failures = {}
    for job in jobs:
        folder.job(job.name).failure.unlink(missing_ok=True)
    elsewhere = plan.experiment.works_elsewhere
    for name, reason in _elsewhere(plan, folder, jobs) if elsewhere else _here(plan, folder, store, jobs):
        if reason:
            failures[name] = reason
            logging.error("%s: %s", name, reason)
    # Whoever did a job: it has finished when its scores are there.
    lost = [job.name for job in jobs if job.name not in failures and not folder.job(job.name).scores.exists()]
    failures |= dict.fromkeys(lost, f"ended without scores; see {folder.logs}")
    for name in [name for name in failures if not folder.job(name).failure.exists()]:  # those that could not say why
        record = JobFailure(kind="ended", reason=shown(failures[name]), traceback=None)
        folder.job(name).write_json(RunFolder.failure, record.model_dump())
    if len(failures) == len(plan.jobs) and len(reasons := set(failures.values())) == 1:
        records = [folder.job(name).read(RunFolder.failure, JobFailure) for name in failures]
        if {record.kind for record in records} == {"mistake"}:
            raise UserError(reasons.pop())
    return failures


def ready(plan: Plan, folder: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Let the processes of a sweep load their libraries while this one reads scans in the block, before `train`."""
    experiment = plan.experiment
    left = sum(not folder.job(job.name).scores.exists() for job in plan.jobs)
    if not left or not experiment.works_elsewhere:
        return contextlib.nullcontext()
    return executors.ready(experiment.executor, _load_libraries, Resources.of(experiment, left, logs=folder.logs))


def _load_libraries() -> None:
    keras.version()  # of lazy.load: the first use imports it, and TensorFlow with it


def attempt(plan: Plan, job: Job, store: VolumeStore, folder: RunFolder) -> str | None:
    """Do one job; record why it failed, or return None.

    What the system refuses, such as space on the disk, is raised: it would refuse it to the other jobs too.
    """
    folder.failure.unlink(missing_ok=True)
    try:
        run_job(plan.experiment, job, store, folder)
    except Exception as error:
        if training.processes.has_lost(error):
            raise training.processes.lost(error) from error
        failure = _failure(error)
        if training.processes.count() > 1 and failure.kind != "diverged":
            raise  # the others are still at this job
        if failure.kind == "defect" and is_of_the_system(error):
            raise
        folder.write_json(RunFolder.failure, failure.model_dump())
        return failure.reason if failure.kind != "defect" else f"{failure.reason} (a defect; see {folder.failure})"
    return None


def _failure(error: Exception) -> JobFailure:
    if isinstance(error, TrainingDiverged):
        return JobFailure(kind="diverged", reason=str(error), traceback=None)
    if said := str(error) if isinstance(error, UserError) else refused(error):
        return JobFailure(kind="mistake", reason=said, traceback=None)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return JobFailure(kind="defect", reason=shown(reason), traceback=traceback.format_exc())


def _here(plan: Plan, folder: RunFolder, store: VolumeStore, jobs: Sequence[Job]) -> Iterator[tuple[str, str | None]]:
    training.set_precision(plan.experiment.mixed_precision)
    if any(job.mode != "random" for job in jobs):
        plan.check_pretrained()  # before hours of jobs from scratch
    for job in jobs:
        yield job.name, attempt(plan, job, store, folder.job(job.name))


def _elsewhere(plan: Plan, folder: RunFolder, jobs: Sequence[Job]) -> Iterator[tuple[str, str | None]]:
    experiment = plan.experiment
    resources = Resources.of(experiment, len(jobs), logs=folder.logs)
    # The longest first, so that none of them is left alone at the end.
    by_length = sorted(jobs, key=lambda job: -job.epochs * steps_per_epoch(experiment, job))
    names = [job.name for job in by_length]
    logging.info("%d trainings, %d at once; their logs: %s", len(jobs), resources.workers, folder.logs)
    work = functools.partial(do_named, folder=str(folder.path.absolute()))
    ended = executors.run(experiment.executor, work, names, resources)
    with contextlib.closing(ended):
        for number, (name, reason) in enumerate(ended, start=1):
            if not reason:
                logging.info("%s: finished, %d of %d", name, number, len(jobs))
            yield name, reason


def do_named(name: str, folder: str) -> None:
    """Do one job of a sweep that another process leads.

    Args:
        name: The job's name.
        folder: The sweep's run folder, which holds the experiment.

    Raises:
        RuntimeError: It failed; why stands in the folder of the job, too.
    """
    plan, store = _sweep(folder)
    (job,) = (job for job in plan.jobs if job.name == name)
    training.set_precision(plan.experiment.mixed_precision)
    if reason := attempt(plan, job, store, RunFolder(Path(folder)).job(name)):
        raise RuntimeError(reason)


@functools.lru_cache(maxsize=1)  # a process does several jobs of one sweep
def _sweep(folder: str) -> tuple[Plan, VolumeStore]:
    """Return the plan of a sweep and its scans, which the leading process has checked and prepared on the disk."""
    experiment = load_experiment("finetune", RunFolder(Path(folder)).config)
    whole = plan(experiment)
    return whole, whole.task.read(whole.cases)
