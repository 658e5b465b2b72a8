"""Keys of an experiment that contradict each other: one message each, which names them and a way out."""

from __future__ import annotations

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import finetuning_checks
from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment, TrainExperiment


def check(experiment: Experiment) -> None:
    """Raise `UserError` for keys that contradict each other."""
    _check_both(experiment)
    _check_optimizer(experiment)
    if isinstance(experiment, FinetuneExperiment):
        finetuning_checks.check(experiment)
    elif isinstance(experiment, TrainExperiment):
        _check_pretraining(experiment)


def _check_both(experiment: Experiment) -> None:
    rank = layouts.get(experiment.dataset_name).rank
    if rank and experiment.rank != rank:
        raise UserError(
            f"data_is_3D, dataset_name: the scans of {experiment.dataset_name!r} are {rank}D; remove data_is_3D or use "
            "another layout"
        )
    if experiment.channel_suffixes and layouts.get(experiment.dataset_name).labels == "archive":
        raise UserError(
            f"channel_suffixes: the channels of {experiment.dataset_name!r} are the last axis of the archive's arrays; "
            "remove the key"
        )
    if isinstance(experiment.data_dim, list) and len(experiment.data_dim) != experiment.rank:
        raise UserError(
            f"data_dim: {experiment.data_dim} has {len(experiment.data_dim)} axes, but the data are {experiment.rank}D"
        )
    window = experiment.intensity_window
    if window and window[0] >= window[1]:
        raise UserError(f"intensity_window: low must be below high, received {list(window)}")
    if experiment.patches_per_scan > 1 and experiment.fitting != "crop":
        raise UserError(
            f"patches_per_scan: only crops can be drawn {experiment.patches_per_scan} times per scan; set "
            'volume_fitting to "crop" or remove the key'
        )
    if experiment.clipnorm and experiment.clipvalue:
        raise UserError("clipnorm, clipvalue: only one of them can be in force; remove one")
    if experiment.augment and experiment.augment_zoom_only:
        raise UserError("augment, augment_zoom_only: augment zooms too; keep one of them")


def _check_optimizer(experiment: Experiment) -> None:
    """A key that the optimizer does not look at would silently do nothing."""
    momentum, form = experiment.momentum, experiment.weight_decay_form
    if (momentum is not None) != (experiment.optimizer == "sgd"):
        raise UserError(
            f'momentum, optimizer: "sgd" has one (0.9 by default) and "adam" takes none; received momentum {momentum} '
            f'with "{experiment.optimizer}"; change the optimizer or remove momentum'
        )
    if (form is not None) != (experiment.weight_decay > 0):
        raise UserError(
            f"weight_decay_form, weight_decay: a weight_decay above 0 has a form, and 0 has none; received {form} with "
            f"{experiment.weight_decay:g}; set weight_decay or remove weight_decay_form"
        )


def _check_pretraining(experiment: TrainExperiment) -> None:
    """Raise `UserError` for keys that the pretext task cannot go with."""
    _check_background(experiment)


def _check_background(experiment: TrainExperiment) -> None:
    """Crops alone can be drawn again, and a level at the end of the range tells no voxel from another."""
    level, share = experiment.background_level, experiment.background_share
    if level is None and share is None:
        return
    if level is None or share is None:
        missing = "background_level" if level is None else "background_share"
        raise UserError(f"background_level, background_share: {missing} is missing; set both keys, or neither")
    if experiment.fitting != "crop":
        raise UserError(
            f'background_level: only random crops can be drawn again, not scans fitted by "{experiment.fitting}"; set '
            'volume_fitting to "crop" or remove the key'
        )
    window = experiment.intensity_window
    low, high = window or (0, 1)
    if not low < level < high:
        why = f"intensity_window [{low:g}, {high:g}]" if window else "[0, 1], the range without intensity_window"
        raise UserError(f"background_level: {level:g} tells no voxel from another; use a value inside {why}")
    if share[0] > share[1]:
        raise UserError(f"background_share: least must not be above most, received {list(share)}")
