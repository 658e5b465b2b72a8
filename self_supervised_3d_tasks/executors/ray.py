"""Tasks of a Ray cluster, whose machines share the file system; without a cluster, of a Ray of this machine."""

from __future__ import annotations

import dataclasses
import importlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.executors import base
from self_supervised_3d_tasks.executors.base import Ended, Resources

CONNECT_SECONDS = 10
OPTIONS = frozenset("address num_cpus num_gpus memory accelerator_type max_retries".split())
TRIES_AGAIN = 2  # after a machine or a process has died


def run(work: Callable[[str], None], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    """See `executors.run`.

    The options are ``address`` (default: ``RAY_ADDRESS``, or a new Ray on this machine), and of those of
    ``ray.remote`` for a task the ones in `OPTIONS`, such as ``{"num_cpus": 4, "num_gpus": 1}``.
    """
    base.check_options("ray", resources.options, OPTIONS)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UserError("executor ray: ray is not installed; pip install self_supervised_3d_tasks[ray]") from None
    options = {"num_cpus": resources.threads, "max_retries": TRIES_AGAIN} | resources.options
    address = options.pop("address", None)
    base.let_processes_find_the_package()
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"executor ray: no Ray at {address or 'this machine'}: {base.reason(error)}") from error
    try:
        yield from _tasks(ray, work, items, resources, options)
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise `OSError` where nobody answers at ``host:port``: Ray would try for minutes, and end the process then."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _tasks(
    ray: Any, work: Callable[[str], None], items: Sequence[str], resources: Resources, options: dict[str, Any]
) -> Iterator[Ended]:
    try:
        # A process that has loaded TensorFlow for one item keeps its threads and GPU: the next item gets a new one.
        task = ray.remote(**{"max_calls": 1} | options)(base.do)
        resources = dataclasses.replace(resources, cores=max(1, int(options["num_cpus"])))
    except (TypeError, ValueError) as error:
        raise UserError(f"executor_options: Ray refuses them: {base.reason(error)}") from error
    waiting, running = list(reversed(items)), {}
    while waiting or running:
        while waiting and len(running) < resources.workers:
            item = waiting.pop()
            running[task.remote(work, item, resources)] = item
        (done,), _ = ray.wait(list(running), num_returns=1)
        item = running.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:  # of Ray itself, such as a machine that is gone
            yield Ended(item, base.reason(error))
