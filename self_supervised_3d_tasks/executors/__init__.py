"""Who does work that can be done in any order, such as the trainings of a sweep: a file each, named as in JSON."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from self_supervised_3d_tasks.executors import local, ray, slurm
from self_supervised_3d_tasks.executors.base import Ended, Resources

_EXECUTORS = {"local": local, "slurm": slurm, "ray": ray}


def run(name: str, work: Callable[[str], None], items: Sequence[str], resources: Resources) -> Iterator[Ended]:
    """Call ``work`` once for each item, several at once, and say of each when it has ended.

    What goes wrong inside ``work`` is best recorded by itself, in a file; here an item fails when ``work`` raises, or
    when its process is ended from outside. The others go on. Closed before its end, nothing further is begun.

    Args:
        name: ``"local"``: processes of this machine; ``"slurm"``: an array job; ``"ray"``: tasks of a Ray cluster.
        work: Called in another process with one item. It can be sent there: a function of a module, or a
            `functools.partial` of one.
        items: What it is called with: names for people too, since each has a log of that name.
        resources: How many at once, and with what.

    Yields:
        How each item ended, in the order in which they do.

    Raises:
        UserError: The executor's library is not installed, or the executor cannot be reached or refuses its options.
    """
    return _EXECUTORS[name].run(work, items, resources)


def ready(name: str, prepare: Callable[[], None], resources: Resources) -> contextlib.AbstractContextManager[None]:
    """Start the processes of this machine, each of which calls ``prepare``, while the block decides on their work.

    It takes seconds until a process has loaded its libraries. Where `run` is called in the block, it waits for them;
    when an error ends the block before, they are ended. Processes elsewhere start with their work.

    Args:
        name: See `run`.
        prepare: Can be sent there.
        resources: Those that `run` will be given.
    """
    return local.ready(prepare, resources) if name == "local" else contextlib.nullcontext()
