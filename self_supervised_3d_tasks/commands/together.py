"""A run of several processes that train together, see `training.distribution.processes`: the first one's is kept."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags

from self_supervised_3d_tasks.errors import UserError, is_of_the_system
from self_supervised_3d_tasks.experiment.keys import Experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.training.distribution import data_parallel, processes

_FLAGS = ("coordinator", "num_processes", "process_id")
# What a copy of a run folder does without: nothing is read from it again.
_NOT_COPIED = shutil.ignore_patterns("tensorboard", "plots", "logs", "*.png")


def define_flags() -> None:
    """Define the flags by which processes find each other."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for several processes that train together (JAX).")
    flags.DEFINE_integer("num_processes", None, "How many processes train together.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.", lower_bound=0)


def place(experiments: Sequence[Experiment]) -> processes.Place | None:
    """Return where the flags put this process; None where there are none.

    Raises:
        UserError: They do not fit together, or the experiments are not for several processes, or not for this backend.
    """
    if any(experiment.distribution == "data_parallel" for experiment in experiments):
        data_parallel.check()
    values = [flags.FLAGS[name].value for name in _FLAGS]
    given = [f"--{name}" for name, value in zip(_FLAGS, values, strict=True) if value is not None]
    if not given:
        return None
    if len(given) < len(_FLAGS):
        raise UserError(f"{', '.join(given)}: give all of {', '.join(f'--{name}' for name in _FLAGS)}")
    if any(experiment.distribution != "data_parallel" for experiment in experiments):
        raise UserError(f'{given[0]}: processes train together with "distribution": "data_parallel" alone; set it')
    found = processes.Place(*values)
    found.check()
    return found


def are_several(experiments: Sequence[Experiment]) -> bool:
    """Return whether this process is to train together with others; `UserError` as of `place`."""
    where = place(experiments)
    parallel = all(experiment.distribution == "data_parallel" for experiment in experiments)
    return parallel and (where is not None or processes.of_slurm())


@contextlib.contextmanager
def joined(experiments: Sequence[Experiment]) -> Iterator[None]:
    """Meet the other processes of the training, if there are any, and end with them.

    Raises:
        UserError: They cannot be met, or the experiments are not for several processes; later: one of them is gone.
    """
    if are_several(experiments):
        _check(experiments)
        processes.start(place(experiments))
    try:
        yield
        processes.wait()
    except BaseException as error:
        if processes.has_lost(error):
            processes.leave(2)
            raise processes.lost(error) from error
        processes.leave(_code(error))
        raise


def _check(experiments: Sequence[Experiment]) -> None:
    if len(experiments) > 1 or experiments[0].works_elsewhere:
        raise UserError(
            "workers, executor: several processes train one model of one file together; give one file, and leave both "
            "keys out"
        )


@contextlib.contextmanager
def folder(hold: Callable[[], contextlib.AbstractContextManager[RunFolder]]) -> Iterator[RunFolder]:
    """Yield the run folder to the first process, and to each of the others a copy that goes when the block ends.

    Args:
        hold: Finds or makes the folder and holds it.

    Raises:
        UserError: There is none, or the others do not see it.
    """
    if processes.count() == 1:
        with hold() as found:
            yield found
    elif processes.is_first():
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(hold())
            except UserError:
                processes.tell()
                raise
            processes.tell(str(found.path.absolute()))
            processes.wait()  # until it has been copied
            yield found
    else:
        told = Path(processes.tell())
        if told == Path():
            raise UserError("process 0 could not begin; what it has said tells why")
        if not told.is_dir():
            raise UserError(f"base_workspace: {told}, made by process 0, is not seen here; use a shared file system")
        with tempfile.TemporaryDirectory(prefix="ss3d-") as own:
            copy = shutil.copytree(told, Path(own) / told.name, ignore=_NOT_COPIED)
            processes.wait()
            yield RunFolder(Path(copy))


def _code(error: BaseException) -> int:
    """Return the exit code of the process that an error ends, see `commands.run`."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 128 + getattr(error, "number", 2)
    return 2 if isinstance(error, UserError) or is_of_the_system(error) else 1
