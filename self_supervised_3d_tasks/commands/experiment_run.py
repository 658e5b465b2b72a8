"""What ``train`` and ``finetune`` have in common: an experiment file and its run folder, or several of them."""

import contextlib
import functools
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags, logging
from pydantic import ValidationError

from self_supervised_3d_tasks import backend, commands, executors, terminal, training
from self_supervised_3d_tasks.commands import together
from self_supervised_3d_tasks.errors import JobsFailed, TrainingDiverged, UserError
from self_supervised_3d_tasks.executors.base import Resources
from self_supervised_3d_tasks.experiment.keys import Experiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.scratch import own_temporary_folder

MODULES = {"train": "self_supervised_3d_tasks.pretraining.run", "finetune": "self_supervised_3d_tasks.finetuning.sweep"}

USAGE = "FILE.json [FILE.json ...] [--set key=value] [--resume] [--dry_run] [--print_config]"
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
    "distribution",
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
    together.define_flags()


@own_temporary_folder()
def execute(command: str, path: str, *more: str) -> None:
    """Run one experiment file with parsed flags, or several.

    Every file is checked before the first one is run. Of several, one that fails does not stop the others.

    Args:
        command: ``"train"`` or ``"finetune"``.
        path: The experiment file.
        more: Further ones.

    Raises:
        UserError: A file or its data cannot be used.
    """
    given, paths = flags.FLAGS, (path, *more)
    experiments = [load_experiment(command, path, given["set"].value) for path in paths]
    if not given["verbosity"].present:
        logging.set_verbosity(min(getattr(logging, experiment.log_level) for experiment in experiments))
    if given.print_config:
        for experiment in experiments:
            print(json.dumps(experiment.model_dump(mode="json"), indent=2))
        return
    _choose_devices(experiments)
    _check_together(paths, experiments)
    # The module that trains pulls in everything else, so it is imported only once the file is known to be right.
    module = importlib.import_module(MODULES[command])
    plans = [module.plan(experiment) for experiment in experiments]
    _check_devices(plans)
    if given.dry_run:
        for plan in plans:
            plan.check_headers()
            print(plan.describe())
        return
    for experiment in experiments:
        training.check_precision(experiment.mixed_precision, experiment.rank)
        training.check_compilation(experiment.jit_compile)
    with together.joined(experiments):
        _train(command, module, dict(zip(paths, plans, strict=True)))


def _choose_devices(experiments: Sequence[Experiment]) -> None:
    """Say what is to compute, before the backend is loaded; `UserError` where that cannot be."""
    backend.check()
    together.place(experiments)
    if any(experiment.deterministic for experiment in experiments):
        backend.make_deterministic()
    if experiments[0].use_gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, experiments[0].use_gpu))


def _train(command: str, module: ModuleType, plans: Mapping[str, Any]) -> None:
    """Run the plans of one or several files; what failed ends the process."""
    try:
        if len(plans) == 1:
            folder = _run(module, *plans.values(), resume=flags.FLAGS.resume)
            if training.processes.is_first():
                terminal.say(f"run folder: {folder.path}")
        else:
            _run_several(command, module, plans)
    except (JobsFailed, TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _check_together(paths: Sequence[str], experiments: Sequence[Experiment]) -> None:
    """Raise `UserError` where files that are given together get in each other's way."""
    places = [experiment.run_location() for experiment in experiments]
    if double := [path for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"run_name: {' and '.join(double)} have the same run folder; give each a run_name of its own")
    for key in ("workers", "executor", "executor_options", "use_gpu"):
        if any(getattr(experiment, key) != getattr(experiments[0], key) for experiment in experiments):
            raise UserError(f"{key}: differs between the files; give one for all of them with --set {key}=…")


def _check_devices(plans: Sequence[Any]) -> None:
    """Raise `UserError` where the devices of this machine cannot share a batch, if it is this one alone that trains."""
    for plan in plans:
        # Several processes must meet before devices are asked for; they check then.
        if not plan.experiment.works_elsewhere and not together.are_several([plan.experiment]):
            plan.check_devices()


def _run(module: ModuleType, plan: Any, *, resume: bool) -> RunFolder:
    """Run a plan in its folder, unless that has finished, and return the folder."""
    with together.folder(functools.partial(held, plan.experiment, resume=resume)) as folder:
        if folder.is_finished:
            lacking = module.lacking(plan, folder)
            if not lacking:
                logging.info("already finished: %s", folder.path)
                return folder
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
        folder.mark("finished")
        return folder


def _run_several(command: str, module: ModuleType, plans: Mapping[str, Any]) -> None:
    """Run the plans of several files: one after the other or, pretrainings, several at once; report what failed."""
    experiment = next(iter(plans.values())).experiment
    # A sweep has several processes of its own.
    elsewhere = command == "train" and experiment.works_elsewhere
    failures = {}
    ended = _elsewhere(command, plans) if elsewhere else _here(module, plans)
    with contextlib.closing(ended):
        for path, reason in ended:
            if reason:
                failures[path] = reason
                logging.error("%s: %s", path, reason)
            else:
                terminal.say(f"run folder: {claim(plans[path].experiment, resume=True).path}")
    if failures:
        raise JobsFailed(failures, len(plans))


def _here(module: ModuleType, plans: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    for path, plan in plans.items():
        try:
            _run(module, plan, resume=flags.FLAGS.resume)
        except (UserError, JobsFailed, TrainingDiverged) as error:
            yield path, str(error)
        else:
            yield path, None


def _elsewhere(command: str, plans: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    experiment = next(iter(plans.values())).experiment
    # What an executor calls an item is the name of its log, too.
    files = {f"{number}_{Path(path).stem}": path for number, path in enumerate(plans, start=1)}
    resources = Resources.of(experiment, len(plans), logs=experiment.run_location()[0] / "logs")
    logging.info("%d pretrainings, %d at once; their logs: %s", len(plans), resources.workers, resources.logs)
    options = {"overrides": flags.FLAGS["set"].value, "resume": flags.FLAGS.resume}
    work = functools.partial(run_file, command=command, files=files, **options)
    with contextlib.closing(executors.run(experiment.executor, work, list(files), resources)) as ended:
        for item, reason in ended:
            yield files[item], reason


def run_file(item: str, *, command: str, files: Mapping[str, str], overrides: Sequence[str], resume: bool) -> None:
    """Run one of several files in a process that another one leads.

    Args:
        item: Which.
        command: ``"train"`` or ``"finetune"``.
        files: The path of each item.
        overrides: What ``--set`` was given.
        resume: Whether ``--resume`` was.
    """
    module = importlib.import_module(MODULES[command])
    _run(module, module.plan(load_experiment(command, files[item], list(overrides))), resume=resume)


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
