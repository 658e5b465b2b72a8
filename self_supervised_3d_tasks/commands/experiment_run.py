"""What ``train`` and ``finetune`` have in common: one experiment file, one run folder."""

import contextlib
import functools
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from absl import flags, logging
from pydantic import ValidationError

from self_supervised_3d_tasks import commands, terminal, training
from self_supervised_3d_tasks.errors import JobsFailed, TrainingDiverged, UserError
from self_supervised_3d_tasks.experiment.keys import Experiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.scratch import own_temporary_folder

MODULES = {"train": "self_supervised_3d_tasks.pretraining.run", "finetune": "self_supervised_3d_tasks.finetuning.sweep"}

USAGE = "FILE.json [--set key=value] [--resume] [--dry_run] [--print_config]"
_PATIENCE = 60  # seconds, for what takes a moment
# Keys that do not touch the result.
_WITHOUT_EFFECT = {
    "log_level",
    "tensorboard",
    "restoration_picture_every_n_epochs",
    "use_gpu",
    "cache",
    "cache_dir",
    "forbid_leakage",
    "workers",
    "executor",
    "executor_options",
}


def run(command: str, *, text: str, example: str, argv: Sequence[str] | None) -> None:
    """Define the flags and run ``"train"`` or ``"finetune"``; the other arguments are those of `commands.run`."""
    define_flags()
    commands.run(functools.partial(execute, command), usage=USAGE, text=text, example=example, argv=argv)


def define_flags() -> None:
    """Define the flags of both commands."""
    flags.DEFINE_multi_string("set", [], "key=value: overrides a key of the experiment file; repeatable.")
    flags.DEFINE_bool("resume", False, "Continue this experiment's newest unfinished run, if there is one.")
    flags.DEFINE_bool("dry_run", False, "Check the file and the data, print what would be done, and stop.")
    flags.DEFINE_bool("print_config", False, "Print the file with its bases and all defaults, and stop; reads no data.")


@own_temporary_folder()
def execute(command: str, path: str) -> None:
    """Run one experiment file with parsed flags.

    Args:
        command: ``"train"`` or ``"finetune"``.
        path: The experiment file.

    Raises:
        UserError: The file or the data cannot be used.
    """
    experiment = load_experiment(command, path, flags.FLAGS["set"].value)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(getattr(logging, experiment.log_level))
    if flags.FLAGS.print_config:
        print(json.dumps(experiment.model_dump(mode="json"), indent=2))
        return
    if experiment.use_gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, experiment.use_gpu))
    # The module that trains pulls in everything else, so it is imported only once the file is known to be right.
    module = importlib.import_module(MODULES[command])
    plan = module.plan(experiment)
    if flags.FLAGS.dry_run:
        plan.check_headers()
        print(plan.describe())
        return
    training.check_precision(experiment.mixed_precision, experiment.rank)
    with held(plan.experiment, resume=flags.FLAGS.resume) as folder:
        _run(module, plan, folder)
        terminal.say(f"run folder: {folder.path}")


def _run(module: ModuleType, plan: Any, folder: RunFolder) -> None:
    """Run a plan in its folder, unless that has finished."""
    if folder.is_finished:
        lacking = module.lacking(plan, folder)
        if not lacking:
            logging.info("already finished: %s", folder.path)
            return
        logging.warning("%s: is missing or damaged though the run has finished; it is made again", lacking[0])
    is_new = not folder.status.exists()
    folder.mark("running")
    try:
        module.run(plan, folder)
    except UserError:
        # After a mistake in the data there is nothing to keep, unless an epoch has finished.
        if is_new and not any(folder.path.rglob(str(RunFolder.state))):
            shutil.rmtree(folder.path)
        raise
    except JobsFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except TrainingDiverged as error:
        print(f"error: training diverged: {error}", file=sys.stderr)
        sys.exit(1)
    folder.mark("finished")


@contextlib.contextmanager
def held(experiment: Experiment, *, resume: bool) -> Iterator[RunFolder]:
    """Yield the run folder, see `claim`; no other process works in it meanwhile.

    Raises:
        UserError: Another process works in it.
    """
    base, _ = experiment.run_location()
    with contextlib.ExitStack() as stack:
        # Who looks for a folder, and who makes one, do so in turn: it takes no time.
        with lock.hold(base, "try again", wait=_PATIENCE) as alone:
            if alone:
                RunFolder.remove_unnamed(base)
            folder = claim(experiment, resume=resume)
            remedy = "wait until it has ended, or start a new run without --resume"
            alone = stack.enter_context(lock.hold(folder.path, remedy))
        if alone and not folder.is_finished:
            folder.remove_unfinished()
        yield folder


def claim(experiment: Experiment, *, resume: bool) -> RunFolder:
    """Return the run folder.

    Without ``resume`` it is always new. With it, it is the newest unfinished folder with the same experiment, or else
    the newest finished one; where there is none, a new one, so that a cluster job can always be given ``--resume``.

    Raises:
        UserError: There is an unfinished folder of that name, but of another experiment, or one whose ``config.json``
            cannot be read.
    """
    base, name = experiment.run_location()
    if resume:
        found = [folder for folder in RunFolder.all(base, name) if folder.config.exists()]  # newest last
        changes = {folder: _changed(experiment, folder) for folder in found}
        same = [folder for folder in found if not changes[folder]]
        if same:
            # Unfinished ones come behind finished ones.
            return sorted(same, key=lambda folder: not folder.is_finished)[-1]
        if unfinished := [folder for folder in found if not folder.is_finished]:
            folder = unfinished[-1]
            raise UserError(
                f"--resume: {folder.path} is unfinished, but was started with other values of "
                f"{', '.join(changes[folder])}; restore them, or start a new run without --resume"
            )
    return RunFolder.create(base, name, experiment.model_dump(mode="json"))


def _changed(experiment: Experiment, folder: RunFolder) -> list[str]:
    """Return the keys of a run's experiment that have other values now, without those that leave the result alone."""
    stored = folder.read_json(RunFolder.config)
    if not isinstance(stored, dict):
        raise UserError(
            f"{folder.config}: expected a JSON object of keys; restore it from a copy, or move {folder.path} elsewhere"
        )
    try:
        # Keys that have been added since it was written have their defaults.
        stored = type(experiment).model_validate_json(json.dumps(stored)).model_dump(mode="json")
    except ValidationError:  # another algorithm, or a key that is gone: the comparison names what differs
        pass
    now = experiment.model_dump(mode="json")
    keys = (stored.keys() | now.keys()) - _WITHOUT_EFFECT
    return sorted(key for key in keys if stored.get(key) != now.get(key))


if __name__ == "__main__":
    print("error: experiment_run is no command; run train or finetune", file=sys.stderr)
    sys.exit(2)
