"""A Ray of two nodes, each with processes of its own, as on two machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from self_supervised_3d_tasks.executors.base import let_processes_find_the_package


@contextlib.contextmanager
def two(**resources: int) -> Iterator[Any]:
    """Start two nodes with these resources each, which end with the block.

    Args:
        resources: Of `ray.init`, such as ``num_cpus``; there need not be that many.
    """
    from ray.cluster_utils import Cluster

    let_processes_find_the_package()
    options = {"object_store_memory": 80 * 2**20} | resources
    found = Cluster(initialize_head=True, head_node_args={"include_dashboard": False} | options)
    try:
        found.add_node(**options)
        yield found
    finally:
        found.shutdown()
