"""From-scratch trainings of another sweep, taken over where nothing that they depend on differs (``random_from``)."""

import shutil
from typing import Any

from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.atomic import atomic_folder
from self_supervised_3d_tasks.files.run_files import SweepSplit
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning.job import Job
from self_supervised_3d_tasks.finetuning.plan import Plan

# Keys that training from scratch does not depend on.
_NOT_OF_THE_BASELINE = {
    *("algorithm", "model_checkpoint", "transfer", "channel_map", "allow_partial_load", "random_from"),
    *("epochs_initialized", "epochs_frozen", "epochs_warmup", "save_checkpoint_every_n_epochs", "run_name"),
    *("base_workspace", "cache", "cache_dir", "log_level", "use_gpu", "tensorboard", "forbid_leakage"),
    *("workers", "executor", "executor_options"),
}


def baseline_settings(experiment: FinetuneExperiment) -> dict[str, Any]:
    """Return every value that training from scratch depends on: sweeps that share these jobs must agree in them."""
    decoder = registry.prediction_network(experiment.prediction_architecture)
    shared = registry.options(registry.encoder(experiment.encoder_name)).keys() | registry.options(decoder).keys()
    shared |= FinetuneExperiment.model_fields.keys()
    pretext = registry.options(registry.algorithm(experiment.algorithm)).keys() - shared
    for_tables = set() if experiment.task == "findings" else {"class_names"}
    settings = experiment.model_dump(mode="json", exclude=pretext | _NOT_OF_THE_BASELINE | for_tables)
    # One network has several spellings.
    names = {"encoder_architecture": experiment.encoder_name, "prediction_architecture": experiment.prediction_name}
    return settings | names


def check_baseline(plan: Plan, baseline: RunFolder) -> None:
    """Raise `UserError` if another sweep trained from scratch with other settings, or on another split."""
    other = load_experiment("finetune", baseline.config)
    mine, theirs = baseline_settings(plan.experiment), baseline_settings(other)
    changed = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if changed:
        raise UserError(f"random_from: {baseline.path} trained from scratch with other values of {', '.join(changed)}")
    parts, recorded = plan.record(), baseline.read(RunFolder.split, SweepSplit)
    check_labels(plan.experiment, f"random_from: {baseline.path}", recorded, parts, "remove random_from")
    if any(getattr(recorded, part) != parts[part] for part in parts):
        raise UserError(f"random_from: {baseline.path} has another split; the folders of scans have changed since")


def check_labels(experiment: FinetuneExperiment, where: str, recorded: SweepSplit, now: dict, remedy: str) -> None:
    """Raise `UserError` if a scan has another label than was recorded: jobs on both would be compared.

    Args:
        experiment: The sweep's settings.
        where: Where the labels were recorded, for the message.
        recorded: What was found then.
        now: What is found in the present files, see `Plan.record`.
        remedy: What the user can do beside restoring the labels.
    """
    for part, test in (("labels", False), ("test_labels", True)):
        before, after = getattr(recorded, part), now.get(part, {})
        changed = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        if changed:
            first = changed[0]
            raise UserError(
                f"{where}: the labels of {len(changed)} scans have changed since, first that of {first!r} from "
                f"{before[first]} to {after[first]}; restore {experiment.label_key(test=test)}, or {remedy}"
            )


def take_over(job: Job, baseline: RunFolder, folder: RunFolder) -> None:
    """Copy a job that another sweep has finished, where this one has not begun it."""
    theirs, mine = baseline.job(job.name), folder.job(job.name).path
    if mine.exists() or not theirs.scores.exists():
        return
    logging.info("%s: taken over from %s", job.name, baseline.path)
    with atomic_folder(mine) as copy:
        shutil.copytree(theirs.path, copy, dirs_exist_ok=True)
