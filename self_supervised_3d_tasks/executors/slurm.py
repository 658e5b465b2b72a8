"""An array job of SLURM, by submitit: a task per item, queued again when it is preempted or its time is over."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.executors import base, slurm_queue
from self_supervised_3d_tasks.executors.base import Ended, Resources

MINUTES = 24 * 60
OPTIONS = frozenset(
    "cluster name timeout_min cpus_per_task mem_gb nodes gpus_per_node slurm_partition slurm_account slurm_qos "
    "slurm_time slurm_constraint slurm_gres slurm_gpus_per_node slurm_cpus_per_gpu slurm_mem slurm_exclude "
    "slurm_nodelist slurm_reservation slurm_comment slurm_job_name slurm_array_parallelism slurm_signal_delay_s".split()
)


class Requeued:
    """Work that begins again with the same item when its task is stopped: it goes on where its files say it was.

    Args:
        work: See `executors.run`.
        resources: See `executors.run`.
    """

    def __init__(self, work: Callable[[str], None], resources: Resources) -> None:
        self._work, self._resources = work, resources

    def __call__(self, item: str) -> Ended:
        """Do one item."""
        return base.do(self._work, item, self._resources)

    def checkpoint(self, item: str) -> Any:
        """Return what submitit queues in place of a task that is stopped."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self, item)


def run(work: Callable[[str], None], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    """See `executors.run`.

    The options are those of submitit's ``update_parameters`` that run nothing, see `OPTIONS`, such as
    ``{"slurm_partition": "gpu", "timeout_min": 480, "gpus_per_node": 1}``; and ``"cluster": "local"`` runs the tasks as
    processes of this machine, to try it.
    """
    base.check_options("slurm", resources.options, OPTIONS)
    try:
        submitit = importlib.import_module("submitit")
    except ImportError:
        raise UserError(
            "executor slurm: submitit is not installed; pip install self_supervised_3d_tasks[slurm]"
        ) from None
    base.let_processes_find_the_package()
    cluster = resources.options.get("cluster", "slurm")
    options = {"timeout_min": MINUTES, "cpus_per_task": resources.threads, "name": resources.logs.parent.name}
    options |= {"slurm_array_parallelism": resources.workers} if cluster == "slurm" else {}
    options |= {key: value for key, value in resources.options.items() if key != "cluster"}
    try:
        executor = submitit.AutoExecutor(folder=resources.logs / "slurm", cluster=cluster)
        executor.update_parameters(**options)
        task = Requeued(work, dataclasses.replace(resources, cores=int(options["cpus_per_task"])))
        if cluster == "slurm":
            with executor.batch():
                jobs = [executor.submit(task, item) for item in items]
    except (RuntimeError, NameError, ValueError, TypeError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"executor slurm: the array job cannot be submitted: {base.reason(error)}") from error
    if cluster == "slurm":
        yield from _array(jobs, items, resources)
    else:
        yield from _on_this_machine(submitit, executor, task, items, resources)


def _array(jobs: Sequence[Any], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    left = {job.job_id: (job, item) for job, item in zip(jobs, items, strict=True)}
    try:
        for number, state in slurm_queue.as_they_end({job.job_id: job.paths.result_pickle for job in jobs}):
            yield _ended(*left.pop(number), resources, state)
    finally:
        if left:  # Ctrl-C here ends them too
            slurm_queue.cancel(left)


def _on_this_machine(
    submitit: Any, executor: Any, task: Requeued, items: Sequence[str], resources: Resources
) -> Iterator[Ended]:
    waiting, running = iter(items), {}
    try:
        while True:
            for item in itertools.islice(waiting, resources.workers - len(running)):
                running[executor.submit(task, item)] = item
            if not running:
                return
            job = next(submitit.helpers.as_completed(list(running), poll_frequency=0.2))
            yield _ended(job, running.pop(job), resources)
    finally:
        for job in running:
            job.cancel()


def _ended(job: Any, item: str, resources: Resources, state: str = "") -> Ended:
    """Return what the task said of itself, or that it was ended before it could."""
    if job.paths.result_pickle.exists() and job.exception() is None:
        return job.result()
    said = f" ({state})" if state else ""
    return Ended(item, f"its task ended without a result{said}; what SLURM knows of it: {resources.logs / 'slurm'}")
