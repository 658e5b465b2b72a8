"""Keys of an experiment that contradict each other: one message each, which names them and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import logging

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment import finding_checks, registry

if TYPE_CHECKING:
    from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment, TrainExperiment

CLASSIFICATION_LOSSES = ("categorical_crossentropy", "weighted_categorical_crossentropy", "binary_crossentropy")
# Keys that have a meaning for labels of whole scans only, or for masks only.
_OF_TABLES = ("csv_file", "csv_file_test", "image_column", "label_column", "subject_column", "suffix")
_OF_CLASSIFICATION = (*_OF_TABLES, "multilabel", "sample_classes_uniform")
_OF_SEGMENTATION = ("label_dir_train", "label_dir_test", "label_stem", "foreground_fraction")


def layout(name: str) -> Any:
    """Return the folder layout called ``name``.

    Raises:
        UserError: No such layout.
    """
    layouts = registry.layouts()
    if name not in layouts:
        raise UserError(
            f"dataset_name: {name!r} is not a known layout ({', '.join(sorted(layouts))})." + nearest(name, layouts)
        )
    return layouts[name]


def check(experiment: Experiment) -> None:
    """Raise `UserError` for contradictions among the keys of both commands."""
    rank = layout(experiment.dataset_name).rank
    if rank and experiment.rank != rank:
        raise UserError(
            f"data_is_3D, dataset_name: the scans of {experiment.dataset_name!r} are {rank}D; remove data_is_3D or use "
            "another layout"
        )
    if experiment.channel_suffixes and layout(experiment.dataset_name).labels == "archive":
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
    _check_optimizer(experiment)


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


def check_pretraining(experiment: TrainExperiment) -> None:
    """Raise `UserError` for keys that the pretext task cannot go with."""
    algorithm = registry.algorithm(registry.canonical("algorithm", experiment.algorithm, "algorithm"))
    if experiment.augment and not algorithm.keeps_labels_under_flips:
        raise UserError(
            f"augment: two flips are a half turn, which changes the answer that {experiment.algorithm!r} asks for; use "
            "augment_zoom_only"
        )
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


def check_finetuning(experiment: FinetuneExperiment) -> None:
    """Raise `UserError` for contradictions among the keys of a downstream task."""
    if getattr(experiment, "encoder_weights", None):
        raise UserError(
            "encoder_weights: for pretraining only; finetuning compares model_checkpoint with training from scratch, "
            "which these weights would change; remove the key"
        )
    _check_labels(experiment)
    if experiment.task == "segmentation":
        _check_segmentation(experiment)
    else:
        _check_classification(experiment)
    _check_sweep(experiment)
    _check_lengths(experiment)


def _check_labels(experiment: FinetuneExperiment) -> None:
    """The labels that the folder can have must be those that the network predicts."""
    name, labels = experiment.dataset_name, layout(experiment.dataset_name).labels
    network = f"prediction_architecture {experiment.prediction_name!r}"
    if labels == "none":
        raise UserError(
            f"dataset_name: {name!r} has no labels and is for pretraining only; finetune on a layout with masks or a "
            'table, such as "images"'
        )
    if experiment.task == "classification" and labels == "masks":
        raise UserError(
            f"prediction_architecture, dataset_name: {network} gives a class per scan, but the labels of {name!r} are "
            'masks; use a decoder such as "unet", or a layout that takes a table, such as "images" or "nifti"'
        )
    if experiment.task == "segmentation" and labels in ("table", "findings", "archive"):
        kind = "one label per scan" if labels == "archive" else f"a table of {labels.replace('table', 'labels')}"
        raise UserError(
            f"prediction_architecture, dataset_name: {network} gives a mask, but {name!r} has {kind}; use a head such "
            'as "simple_multiclass"'
        )


def _check_classification(experiment: FinetuneExperiment) -> None:
    head = f"prediction_architecture {experiment.prediction_name!r}"
    if layout(experiment.dataset_name).labels != "archive":
        _check_table(experiment, head)
    elif given := _given(experiment, _OF_TABLES):
        raise UserError(f"{given}: the labels of {experiment.dataset_name!r} are in the archive; remove them")
    if experiment.fitting == "crop":
        raise UserError(f'volume_fitting: {head} needs the whole scan; use "resize" or "exact" instead of "crop"')
    if given := _given(experiment, _OF_SEGMENTATION):
        raise UserError(f"{given}: for masks only, but {head} learns from labels of whole scans; remove them")
    if experiment.task == "findings":
        finding_checks.check(experiment)
    if experiment.multilabel and experiment.loss != "binary_crossentropy":
        raise UserError(
            f"loss, multilabel: ordered classes are independent yes-or-no outputs; use binary_crossentropy, received "
            f"{experiment.loss!r}"
        )
    if experiment.pool_bins > 1 and experiment.global_pooling != "avg":
        raise UserError(
            f'pool_bins, global_pooling: bins are averaged over; use "global_pooling": "avg" instead of '
            f'"{experiment.global_pooling}", or remove pool_bins'
        )
    _warn_of_constant_means(experiment)
    if experiment.loss not in CLASSIFICATION_LOSSES:
        raise UserError(
            f"loss: {head} needs one of {', '.join(CLASSIFICATION_LOSSES)}, received {experiment.loss!r}."
            + nearest(experiment.loss, CLASSIFICATION_LOSSES)
        )


def _check_table(experiment: FinetuneExperiment, head: str) -> None:
    """Labels of whole scans stand in a table, and those of test scans in a folder of their own in a second one."""
    if experiment.csv_file is None:
        masks = layout(experiment.dataset_name).labels == "any"
        raise UserError(
            f"csv_file: {head} learns from a table of labels of whole scans; name its file"
            + (', or use a decoder such as "unet" for masks' if masks else "")
        )
    if experiment.subject_column and experiment.subject_pattern:
        raise UserError("subject_column, subject_pattern: both say whose a scan is; keep one of them")
    if experiment.data_dir_test and not experiment.csv_file_test:
        raise UserError("csv_file_test: the scans of data_dir_test need a table of their own; name its file")


def _warn_of_constant_means(experiment: FinetuneExperiment) -> None:
    """Group normalization ends a block of the U-Net: the mean over the map, summed over a group, is a constant."""
    keys = ("normalization", "pooling", "global_pooling")
    normalization, pooling, global_pooling = (getattr(experiment, key, None) for key in keys)
    if experiment.encoder_name == "unet" and normalization == "group" and pooling != "max" and global_pooling == "avg":
        logging.warning(
            "normalization, global_pooling: the average of a map that was just group-normalized tells little (nothing "
            'with one channel per group); use "global_pooling": "max", or "normalization": "batch"'
        )


def _check_segmentation(experiment: FinetuneExperiment) -> None:
    decoder = f"prediction_architecture {experiment.prediction_name!r}"
    if given := _given(experiment, _OF_CLASSIFICATION):
        raise UserError(
            f"{given}: for a class per scan, but {decoder} learns from masks; remove them, or use a head such as "
            '"simple_multiclass"'
        )
    if experiment.pool_bins > 1 or experiment.global_pooling != "avg":
        raise UserError(f"global_pooling, pool_bins: for a class per scan, but {decoder} gives a mask; remove them")
    if experiment.augment_zoom_only:
        raise UserError(f"augment_zoom_only: for images without masks, but {decoder} learns from masks; use augment")


def _check_sweep(experiment: FinetuneExperiment) -> None:
    if experiment.do_cross_val and experiment.repetitions < 2:
        raise UserError(
            f"do_cross_val, repetitions: repetitions is the number of folds, at least 2; received "
            f"{experiment.repetitions}"
        )
    if experiment.do_cross_val and experiment.has_test_set:
        given = _given(experiment, ("data_dir_test", "csv_file_test"))
        raise UserError(f"do_cross_val, {given}: every fold is the test set once; remove do_cross_val or the test set")
    if experiment.epochs_initialized and experiment.epochs_warmup >= experiment.epochs_initialized:
        raise UserError(
            f"epochs_warmup: {experiment.epochs_warmup} must be below epochs_initialized "
            f"({experiment.epochs_initialized}), which includes the warm-up"
        )
    if len(set(experiment.exp_splits)) < len(experiment.exp_splits):
        raise UserError(f"exp_splits: each fraction once, received {experiment.exp_splits}")
    if not experiment.modes():
        raise UserError("epochs_initialized, epochs_random, epochs_frozen: at least one must be above 0")
    needs = [mode for mode, _ in experiment.modes() if mode != "random"]
    if needs and experiment.model_checkpoint is None:
        raise UserError(f"model_checkpoint: needed by {' and '.join(needs)}; give the run folder of a pretraining")
    if experiment.transfer == "encoder_decoder" and experiment.prediction_name != "unet":
        raise UserError(
            f'transfer, prediction_architecture: "encoder_decoder" loads a decoder of unet, which '
            f'{experiment.prediction_name!r} is not; use "unet", or remove transfer'
        )


def _check_lengths(experiment: FinetuneExperiment) -> None:
    for key, noun, expected in (
        ("class_weights", "numbers", experiment.num_classes),
        ("class_names", "names", experiment.num_classes),
        ("channel_map", "entries", experiment.number_channels),
    ):
        values = getattr(experiment, key)
        if values is not None and len(values) != expected:
            raise UserError(f"{key}: expected {expected} {noun}, received {len(values)}")


def _given(experiment: FinetuneExperiment, keys: tuple[str, ...]) -> str:
    """Return the keys among ``keys`` that are set, as a list for a message."""
    return ", ".join(key for key in keys if getattr(experiment, key) not in (None, False, 0.0))
