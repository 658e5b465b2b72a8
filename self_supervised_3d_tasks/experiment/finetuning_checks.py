"""Keys of a finetuning that contradict each other: one message each, which names them and a way out."""

from __future__ import annotations

from absl import logging

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment

CLASSIFICATION_LOSSES = ("categorical_crossentropy", "weighted_categorical_crossentropy", "binary_crossentropy")
# Keys that have a meaning for labels of whole scans only, or for masks only.
_OF_TABLES = ("csv_file", "csv_file_test", "image_column", "label_column", "subject_column", "suffix")
_OF_CLASSIFICATION = (*_OF_TABLES, "multilabel", "sample_classes_uniform")
_OF_SEGMENTATION = ("label_dir_train", "label_dir_test", "label_stem", "foreground_fraction")


def check(experiment: FinetuneExperiment) -> None:
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
    name, labels = experiment.dataset_name, layouts.get(experiment.dataset_name).labels
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
    if layouts.get(experiment.dataset_name).labels != "archive":
        _check_table(experiment, head)
    elif given := _given(experiment, _OF_TABLES):
        raise UserError(f"{given}: the labels of {experiment.dataset_name!r} are in the archive; remove them")
    if experiment.fitting == "crop":
        raise UserError(f'volume_fitting: {head} needs the whole scan; use "resize" or "exact" instead of "crop"')
    if given := _given(experiment, _OF_SEGMENTATION):
        raise UserError(f"{given}: for masks only, but {head} learns from labels of whole scans; remove them")
    if experiment.task == "findings":
        _check_findings(experiment)
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
        masks = layouts.get(experiment.dataset_name).labels == "any"
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


def _check_findings(experiment: FinetuneExperiment) -> None:
    """Raise `UserError` for keys that mean something for classes only, and for names that cannot be findings."""
    name = f"dataset_name {experiment.dataset_name!r}"
    if experiment.multilabel:
        raise UserError(
            f"multilabel: means ordered classes, of which a scan has one; {name} already gives every finding a "
            "yes-or-no output of its own; remove the key"
        )
    if experiment.sample_classes_uniform:
        raise UserError(f"sample_classes_uniform: a scan of {name} can have several findings; remove the key")
    if experiment.label_map:
        raise UserError(
            f"label_map: turns labels into classes, but {name} has findings, which have names; set class_names"
        )
    _check_names_of_findings(experiment.class_names or [], name)
    if experiment.num_classes != len(experiment.class_names):
        raise UserError(
            f"num_classes, class_names: {name} has one output per finding, of which class_names has "
            f"{len(experiment.class_names)}, received num_classes {experiment.num_classes}; remove num_classes"
        )
    if experiment.loss != "binary_crossentropy":
        raise UserError(
            f"loss: findings are independent yes-or-no outputs; use binary_crossentropy, received {experiment.loss!r}"
        )


def _check_names_of_findings(findings: list[str], name: str) -> None:
    if len(findings) < 2:
        raise UserError(
            f"class_names: {name} needs the names of two findings or more, received {findings}; for one of them use "
            '"images" with a table of classes 0 and 1'
        )
    if len({"".join(filter(str.isalnum, finding)).lower() for finding in findings}) < len(findings):
        raise UserError(f"class_names: expected different names, received {', '.join(findings)}")
    for finding in findings:
        if not any(map(str.isalnum, finding)) or finding != finding.strip() or "|" in finding:
            raise UserError(
                f'class_names: {finding!r} cannot stand in a table of findings, where "|" and spaces around a name '
                "separate; rename it"
            )
        if finding == "No Finding":
            raise UserError('class_names: "No Finding" is what a scan without any of the others has; remove it')
