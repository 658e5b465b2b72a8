"""What ``train.py`` and ``finetune.py`` have in common: one experiment file, one run folder."""

from __future__ import annotations

import importlib
import os
import shutil
import sys

from absl import flags, logging

from self_supervised_3d_tasks import commands
from self_supervised_3d_tasks.config import Experiment, load_experiment
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.run_folder import RunFolder

MODULES = {"train": "pretraining", "finetune": "evaluation"}


def define_flags(command: str) -> None:
    """Define the flags of ``train.py`` or ``finetune.py``."""
    flags.DEFINE_multi_string("set", [], "key=value: overrides a key of the experiment file; repeatable.")
    flags.DEFINE_bool("resume", False, "Continue this experiment's newest unfinished run folder, if there is one.")
    flags.DEFINE_bool("dry_run", False, f"Check the file and the data, print what {command} would do, and stop.")


def execute(command: str, argv: list[str]) -> None:
    """Run ``python <command>.py FILE.json`` with parsed flags.

    Args:
        command: ``"train"`` or ``"finetune"``.
        argv: Program name and positional arguments.

    Raises:
        UserError: The command line, the file or the data cannot be used.
    """
    if len(argv) != 2:
        raise UserError(f"usage: python {command}.py FILE.json [--set key=value] [--resume] [--dry_run]")
    experiment = load_experiment(command, argv[1], flags.FLAGS["set"].value)
    logging.set_verbosity(getattr(logging, experiment.log_level))
    if experiment.use_gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, experiment.use_gpu))
    # The module that trains pulls in everything else, so it is imported only once the file is known to be right.
    module = importlib.import_module(f"self_supervised_3d_tasks.{MODULES[command]}")
    plan = module.plan(experiment)
    if flags.FLAGS.dry_run:
        plan.check_headers()
        print(plan.describe())
        return
    folder, resume = claim(experiment, resume=flags.FLAGS.resume)
    if folder.is_finished:
        logging.info("already finished: %s", folder.path)
    else:
        folder.mark("running")
        try:
            module.run(plan, folder, resume=resume)
        except UserError:
            discard_unstarted(folder)
            raise
        except module.TrainingDiverged as error:
            print(f"error: training diverged: {error}", file=sys.stderr)
            sys.exit(1)
        folder.mark("finished")
    print(f"run folder: {folder.path}")


def claim(experiment: Experiment, *, resume: bool) -> tuple[RunFolder, bool]:
    """Return the run folder and whether it holds an earlier run to continue.

    Without ``resume`` the folder is always new. With it, the newest folder of this experiment is taken, finished or
    not; where there is none, a new one is made, so that a cluster job can always be started with ``--resume``.

    Raises:
        UserError: The folder to resume was made by a different experiment file.
    """
    base, name = experiment.run_location()
    config = experiment.model_dump(mode="json")
    earlier = RunFolder.newest(base, name) if resume else None
    if earlier is None:
        folder = RunFolder.create(base, name)
        folder.write_json("config.json", config)
        return folder, False
    before = earlier.read_json("config.json")
    changed = sorted(key for key in config.keys() | before.keys() if config.get(key) != before.get(key))
    if changed:
        raise UserError(
            f"--resume: {earlier.path} was started with other values of {', '.join(changed)}; "
            "restore them, or start a new run without --resume"
        )
    return earlier, True


def discard_unstarted(folder: RunFolder) -> None:
    """Remove a run folder in which no epoch has finished: after a mistake in the data there is nothing to keep."""
    if not any(folder.path.rglob("state.json")):
        shutil.rmtree(folder.path)


def main(command: str) -> None:
    """Entry point of ``train.py`` and ``finetune.py``."""
    define_flags(command)
    commands.run(lambda argv: execute(command, argv))
