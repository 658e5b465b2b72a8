"""Keys of a finetuning that contradict each other: one message each, which names them and a way out."""

from collections.abc import Iterator

from self_supervised_3d_tasks.data.preprocessing import MAX_CLASSES
from self_supervised_3d_tasks.errors import nearest
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.losses.classification import CLASSIFICATION_LOSSES

# Keys that have a meaning for labels of whole scans only, or for masks only.
_OF_TABLES = ("csv_file", "csv_file_test", "image_column", "label_column", "subject_column", "suffix")
_OF_CLASSIFICATION = (*_OF_TABLES, "multilabel", "sample_classes_uniform")
_OF_SEGMENTATION = ("label_dir_train", "label_dir_test", "label_stem", "foreground_fraction", "augment_swap_labels")


def mistakes(experiment: FinetuneExperiment) -> Iterator[str]:
    """Yield a message for each contradiction; those behind the first can follow from it."""
    if getattr(experiment, "encoder_weights", None):
        yield "encoder_weights: for pretraining only; here model_checkpoint gives the weights; remove the key"
    network = f"prediction_architecture {experiment.prediction_name!r}"
    yield from _of_labels(experiment, experiment.layout.labels, network)
    if experiment.task == "segmentation":
        yield from _of_segmentation(experiment, network)
    else:
        yield from _of_tables(experiment, experiment.layout.labels, network)
        if experiment.task == "findings":
            yield from _of_findings(experiment)
        yield from _of_classification(experiment, network)
    yield from _of_sweep(experiment)
    yield from _of_training(experiment)
    lengths = {"class_weights": experiment.num_classes, "class_names": experiment.num_classes}
    for key, expected in (lengths | {"channel_map": experiment.number_channels}).items():
        values = getattr(experiment, key)
        if values is not None and len(values) != expected:
            yield f"{key}: expected {expected} entries, received {len(values)}"


def _of_labels(experiment: FinetuneExperiment, labels: str, network: str) -> Iterator[str]:
    """The labels that the folder can have must be those that the network predicts."""
    name, keys = experiment.dataset_name, "prediction_architecture, dataset_name"
    if labels == "none":
        yield f'dataset_name: {name!r} has no labels, it is for pretraining only; use a layout with labels, as "images"'
    if experiment.task == "classification" and labels == "masks":
        yield f'{keys}: {network} gives a class per scan, but {name!r} has masks; use "unet", or "images" and a table'
    kinds = {"table": "a table of labels", "findings": "a table of findings", "archive": "one label per scan"}
    if experiment.task == "segmentation" and labels in kinds:
        yield f'{keys}: {network} gives a mask, but {name!r} has {kinds[labels]}; use a head, as "simple_multiclass"'


def _of_segmentation(experiment: FinetuneExperiment, decoder: str) -> Iterator[str]:
    if experiment.num_classes > MAX_CLASSES:
        yield f"num_classes: masks have at most {MAX_CLASSES} classes, received {experiment.num_classes}; reduce it"
    if given := _given(experiment, _OF_CLASSIFICATION):
        yield f'{given}: for a class per scan, but {decoder} learns from masks; remove, or use "simple_multiclass"'
    if experiment.layout.labels == "index" and (given := _given(experiment, ("label_dir_train", "label_dir_test"))):
        yield f"{given}: the masks of {experiment.dataset_name!r} are in its column mask; remove them"
    if experiment.pool_bins > 1 or experiment.global_pooling != "avg":
        yield f"global_pooling, pool_bins: for a class per scan, but {decoder} gives a mask; remove them"
    if experiment.augment_zoom_only:
        yield f"augment_zoom_only: for images without masks, but {decoder} learns from masks; use augment"


def _of_tables(experiment: FinetuneExperiment, labels: str, head: str) -> Iterator[str]:
    """Labels of whole scans stand in a table, and those of test scans in a folder of their own in a second one."""
    if labels in ("archive", "index"):
        if given := _given(experiment, _OF_TABLES):
            yield f"{given}: the labels of {experiment.dataset_name!r} are in the {labels}; remove them"
        return
    if experiment.csv_file is None:
        masks = ', or use a decoder such as "unet" for masks' if labels == "any" else ""
        yield f"csv_file: {head} learns from a table of labels of whole scans; name its file{masks}"
    if experiment.subject_column and experiment.subject_pattern:
        yield "subject_column, subject_pattern: both say whose a scan is; keep one of them"
    if experiment.data_dir_test and not experiment.csv_file_test:
        yield "csv_file_test: the scans of data_dir_test need a table of their own; name its file"


def _of_classification(experiment: FinetuneExperiment, head: str) -> Iterator[str]:
    loss, pooling = experiment.loss, experiment.global_pooling
    if experiment.fitting == "crop":
        yield f'volume_fitting: {head} needs the whole scan; use "resize" or "exact" instead of "crop"'
    if given := _given(experiment, _OF_SEGMENTATION):
        yield f"{given}: for masks only, but {head} learns from labels of whole scans; remove them"
    if experiment.multilabel and loss != "binary_crossentropy":
        yield f"loss, multilabel: ordered classes are yes-or-no outputs; use binary_crossentropy, received {loss!r}"
    if experiment.pool_bins > 1 and pooling != "avg":
        yield f'pool_bins, global_pooling: bins are averaged; use "avg" instead of "{pooling}", or remove pool_bins'
    if (
        experiment.prediction_name != "softmax"
        and experiment.batch_size < 3
        and getattr(experiment, "normalization", None) == "batch"
    ):
        yield (
            f"batch_size, normalization: {head} would normalize a batch of {experiment.batch_size}, which leaves "
            'hardly anything; use "normalization": "group", or a batch_size of 3 or more'
        )
    if loss not in CLASSIFICATION_LOSSES:
        known = ", ".join(CLASSIFICATION_LOSSES)
        yield f"loss: {head} needs one of {known}, received {loss!r}.{nearest(loss, CLASSIFICATION_LOSSES)}"


def _of_findings(experiment: FinetuneExperiment) -> Iterator[str]:
    """Some keys mean something for classes only, and some names cannot be findings."""
    name, findings = f"dataset_name {experiment.dataset_name!r}", experiment.class_names or []
    if experiment.multilabel:
        yield f"multilabel: means ordered classes, of which a scan has one, but {name} has findings; remove the key"
    if experiment.sample_classes_uniform:
        yield f"sample_classes_uniform: a scan of {name} can have several findings; remove the key"
    if experiment.label_map:
        yield f"label_map: turns labels into classes, but {name} has findings, which have names; set class_names"
    yield from _of_names(findings, name)
    if experiment.num_classes != len(findings):
        received = f"class_names has {len(findings)} findings, received num_classes {experiment.num_classes}"
        yield f"num_classes, class_names: every finding is an output; {received}; remove num_classes"
    if experiment.loss != "binary_crossentropy":
        yield f"loss: findings are yes-or-no outputs; use binary_crossentropy, received {experiment.loss!r}"


def _of_names(findings: list[str], name: str) -> Iterator[str]:
    if len(findings) < 2:
        yield f'class_names: two findings or more are needed, received {findings}; for one, use "images" and a table'
    if len({"".join(filter(str.isalnum, finding)).lower() for finding in findings}) < len(findings):
        yield f"class_names: expected different names, received {', '.join(findings)}"
    for finding in findings:
        if not any(map(str.isalnum, finding)) or finding != finding.strip() or "|" in finding:
            yield f'class_names: {finding!r} cannot stand in a table where "|" separates findings; rename it'
        if finding == "No Finding":
            yield 'class_names: "No Finding" is what a scan without any of the others has; remove it'


def _of_sweep(experiment: FinetuneExperiment) -> Iterator[str]:
    if experiment.do_cross_val and experiment.repetitions < 2:
        yield f"do_cross_val, repetitions: expected at least 2 folds, received repetitions {experiment.repetitions}"
    if experiment.do_cross_val and (given := _given(experiment, ("data_dir_test", "csv_file_test"))):
        yield f"do_cross_val, {given}: every fold is the test set once; remove do_cross_val or the test set"
    if len(set(experiment.exp_splits)) < len(experiment.exp_splits):
        yield f"exp_splits: each fraction once, received {experiment.exp_splits}"


def _of_training(experiment: FinetuneExperiment) -> Iterator[str]:
    epochs, warmup = experiment.epochs_initialized, experiment.epochs_warmup
    if epochs and warmup >= epochs:
        yield f"epochs_warmup: {warmup} must be below epochs_initialized ({epochs}), which includes the warm-up"
    if not experiment.modes():
        yield "epochs_initialized, epochs_random, epochs_frozen: at least one must be above 0"
    needs = " and ".join(mode for mode, _ in experiment.modes() if mode != "random")
    if needs and experiment.model_checkpoint is None:
        yield f"model_checkpoint: needed by {needs}; give the run folder of a pretraining"
    decoder = experiment.prediction_name
    if experiment.transfer == "encoder_decoder" and decoder != "unet":
        yield f'transfer, prediction_architecture: only "unet" is loaded, not {decoder!r}; use it, or remove transfer'


def _given(experiment: FinetuneExperiment, keys: tuple[str, ...]) -> str:
    """Return the keys among ``keys`` that are set, as a list for a message."""
    return ", ".join(key for key in keys if getattr(experiment, key) not in (None, False, 0.0))
