"""Keys of an experiment that contradict each other: one message each, which names them and a way out."""

from collections.abc import Iterator

from self_supervised_3d_tasks.algorithms.kinds import ScheduledAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import augmentation_checks, finetuning_checks, registry
from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment, TrainExperiment

_OF_FOLDERS = ("channel_suffixes", "label_stem")  # keys that say which files of a folder are what


def check(experiment: Experiment) -> None:
    """Raise `UserError` for the first contradiction among the keys, and warn of keys that go badly together."""
    finetuning = isinstance(experiment, FinetuneExperiment)
    own = finetuning_checks.mistakes if finetuning else _mistakes_of_pretraining
    finders = (_mistakes, _mistakes_of_preparation, _mistakes_of_files, _mistakes_of_optimizer, _mistakes_of_engine)
    for find in (*finders, _mistakes_of_distribution, augmentation_checks.mistakes, own):
        for mistake in find(experiment):
            raise UserError(mistake)
    if finetuning:
        augmentation_checks.warn(experiment)


def _mistakes(experiment: Experiment) -> Iterator[str]:
    layout, name = experiment.layout, experiment.dataset_name
    if layout.rank and experiment.rank != layout.rank:
        yield f"data_is_3D: the scans of dataset_name {name!r} are {layout.rank}D; remove the key or use another layout"
    if experiment.patches_per_scan > 1 and experiment.fitting != "crop":
        yield 'patches_per_scan: only crops can be drawn several times; set volume_fitting to "crop", or 1'
    if experiment.clipnorm and experiment.clipvalue:
        yield "clipnorm, clipvalue: only one of them can be in force; remove one"


def _mistakes_of_preparation(experiment: Experiment) -> Iterator[str]:
    size, window = experiment.data_dim, experiment.intensity_window
    if isinstance(size, list) and len(size) != experiment.rank:
        yield f"data_dim: {size} has {len(size)} axes, but the data are {experiment.rank}D; give one length per axis"
    spacing = experiment.target_spacing
    if isinstance(spacing, list) and len(spacing) != experiment.rank:
        yield f"target_spacing: {spacing} has {len(spacing)} axes, but the data are {experiment.rank}D; one per axis"
    if spacing and experiment.fitting != "crop":
        yield f'target_spacing, volume_fitting: "{experiment.fitting}" scans keep no spacing; use "crop", or remove one'
    if window and window[0] >= window[1]:
        yield f"intensity_window: low must be below high, received {list(window)}"
    if (experiment.intensity_scaling == "window") != bool(window):
        yield (
            f"intensity_scaling, intensity_window: {experiment.intensity_scaling!r} "
            + ("has no use for a window; remove one of the two" if window else "needs a window; give intensity_window")
        )
    if experiment.foreground_crop != "none" and experiment.fitting == "exact":
        yield 'foreground_crop, volume_fitting: "exact" scans have their size already; use "resize" or "crop"'


def _mistakes_of_files(experiment: Experiment) -> Iterator[str]:
    """A layout has its own keys for which files are scans, channels and masks."""
    labels, name = experiment.layout.labels, experiment.dataset_name
    if experiment.channel_suffixes and labels == "archive":
        yield f"channel_suffixes: the channels of {name!r} are the last axis of the archive's arrays; remove the key"
    if labels == "index" and (given := [key for key in _OF_FOLDERS if getattr(experiment, key) is not None]):
        yield f"{', '.join(given)}: {name!r} names the files itself; remove, and choose channels by channel_columns"
    if experiment.channel_columns and labels != "index":
        yield f"channel_columns: columns of an index, but dataset_name is {name!r}; use channel_suffixes, or an index"


def _mistakes_of_optimizer(experiment: Experiment) -> Iterator[str]:
    """A key that the optimizer does not look at would silently do nothing."""
    momentum, form, decay = experiment.momentum, experiment.weight_decay_form, experiment.weight_decay
    if (momentum is not None) != (experiment.optimizer == "sgd"):
        received = f'momentum {momentum} with "{experiment.optimizer}"'
        yield f'momentum, optimizer: "sgd" has a momentum, "adam" and "adamw" none; received {received}; change one'
    if experiment.optimizer == "adamw" and (not decay or form == "coupled"):
        received = f"weight_decay {decay:g}, weight_decay_form {form}"
        yield f'optimizer: "adamw" has a decoupled weight decay; received {received}; remove them, or use "adam"'
    if (form is not None) != (decay > 0):
        received = f"received {form} with {decay:g}; set weight_decay or remove weight_decay_form"
        yield f"weight_decay_form, weight_decay: a decay above 0 has a form, and 0 has none; {received}"
    if (experiment.lr_power is not None) != (experiment.lr_schedule == "poly"):
        received = f'lr_power {experiment.lr_power} with "{experiment.lr_schedule}"'
        yield f'lr_power, lr_schedule: "poly" has a power, the others none; received {received}; change one of them'


def _mistakes_of_engine(experiment: Experiment) -> Iterator[str]:
    """Settings that would silently do nothing, or leave a gradient unused."""
    steps, accumulated = experiment.steps_per_epoch, experiment.gradient_accumulation_steps
    if steps and steps % accumulated:
        below, above = steps // accumulated * accumulated, -(-steps // accumulated) * accumulated
        use = f"{below} or {above}" if below else above
        yield (
            f"steps_per_epoch, gradient_accumulation_steps: an epoch of {steps} steps would end within an update of "
            f"{accumulated}; use {use} steps"
        )
    if experiment.deterministic and experiment.jit_compile is True:
        yield 'jit_compile, deterministic: XLA has no deterministic kernels; use jit_compile "auto", or remove one'


def _mistakes_of_distribution(experiment: Experiment) -> Iterator[str]:
    """What several devices would do wrongly without a word, or could not do."""
    kind, accumulated = experiment.distribution, experiment.gradient_accumulation_steps
    if kind != "none" and experiment.workers > 1 and experiment.executor == "local":
        yield (
            f'distribution, workers: "{kind}" trains on all devices of this machine, of which each of several workers '
            "has one of its own; set workers to 1, or remove distribution"
        )
    if kind != "mirrored":
        return
    if experiment.jit_compile is True:
        yield 'distribution, jit_compile: XLA compiles no step of "mirrored" devices; use jit_compile "auto"'
    if accumulated > 1:
        yield (
            f'distribution, gradient_accumulation_steps: "mirrored" devices cannot accumulate {accumulated} steps; '
            f"remove the key and use batch_size {experiment.batch_size * accumulated}, which the devices share"
        )
    if experiment.mixed_precision == "float16":
        yield (
            'distribution, mixed_precision: with "mirrored" an overflow is looked for on the first device alone, and '
            'those of the others would spoil the weights; use "bfloat16" or "none"'
        )


def _mistakes_of_pretraining(experiment: TrainExperiment) -> Iterator[str]:
    """A validation loss that changes its meaning says nothing of when to stop."""
    if experiment.early_stopping_patience and issubclass(registry.algorithm(experiment.algorithm), ScheduledAlgorithm):
        yield (
            f"early_stopping_patience: the loss of {experiment.algorithm} changes in the course of the training, so "
            "that epochs cannot be compared; remove it, and choose the number of epochs"
        )
    yield from _mistakes_of_background(experiment)


def _mistakes_of_background(experiment: TrainExperiment) -> Iterator[str]:
    """Crops alone can be drawn again, and a level at the end of the range tells no voxel from another."""
    level, share = experiment.background_level, experiment.background_share
    if level is None and share is None:
        return
    if level is None or share is None:
        missing = "background_level" if level is None else "background_share"
        yield f"background_level, background_share: {missing} is missing; set both keys, or neither"
    if experiment.fitting != "crop":
        yield f'background_level: only random crops are redrawn; set volume_fitting "crop", not "{experiment.fitting}"'
    low, high = experiment.intensity_window or (0, 1)
    if not low < level < high:
        limits = "intensity_window" if experiment.intensity_window else "the range without intensity_window,"
        yield f"background_level: {level:g} tells no voxel from another; use one inside {limits} [{low:g}, {high:g}]"
    if share[0] > share[1]:
        yield f"background_share: least must not be above most, received {list(share)}"
