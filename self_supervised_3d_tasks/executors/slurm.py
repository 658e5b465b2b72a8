"""An array job of SLURM, by submitit: a task per item, queued again when it is preempted or its time is over."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.executors import base
from self_supervised_3d_tasks.executors.base import Ended, Resources

POLL_SECONDS = 5
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
    options = dict(resources.options)
    cluster = options.pop("cluster", "slurm")
    base.let_processes_find_the_package()
    try:
        executor = submitit.AutoExecutor(folder=resources.logs / "slurm", cluster=cluster)
        executor.update_parameters(
            **{"timeout_min": MINUTES, "cpus_per_task": resources.threads, "name": resources.logs.parent.name}
            | ({"slurm_array_parallelism": resources.workers} if cluster == "slurm" else {})
            | options
        )
        with executor.batch():
            jobs = [executor.submit(Requeued(work, resources), item) for item in items]
    except (RuntimeError, NameError, ValueError, TypeError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"executor slurm: the array job cannot be submitted: {base.reason(error)}") from error
    names = dict(zip(jobs, items, strict=True))
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=POLL_SECONDS if cluster == "slurm" else 0.2):
            yield _ended(job, names.pop(job), resources)
    finally:
        for job in names:  # Ctrl-C here ends them too
            job.cancel()


def _ended(job: Any, item: str, resources: Resources) -> Ended:
    """Return what the task said of itself, or that it was ended before it could."""
    if job.exception() is None:
        return job.result()
    return Ended(item, f"its task ended without a result; what SLURM knows of it: {resources.logs / 'slurm'}")
