"""What an experiment's keys build: the pretext task, the encoder, the downstream model, and the store of scans."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import read_header
from self_supervised_3d_tasks.data.preparing.spacing import median_spacing, warn_of_grids
from self_supervised_3d_tasks.data.store.bad_files import MAX_REPORTED, BadFiles
from self_supervised_3d_tasks.data.store.filling import OrError
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment, TrainExperiment
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.models.rematerialization import rematerialize
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.shapes import Model
from self_supervised_3d_tasks.training import optimizers, schedules

NUM_SAMPLE = 8  # scans of each part that a dry run reads


def options_for(experiment: Experiment, consumer: Callable) -> dict[str, Any]:
    """Return the values of the keys that ``consumer`` declares as keyword-only parameters."""
    keys = type(experiment).model_fields
    return {name: getattr(experiment, name) for name in registry.options(consumer) if name in keys}


def make_algorithm(experiment: Experiment) -> Any:
    """Return the pretext task, built with its own keys."""
    algorithm = registry.algorithm(experiment.algorithm)
    return algorithm(experiment.input_shape, **options_for(experiment, algorithm))


def make_encoder(experiment: Experiment, input_shape: tuple[int, ...], *, seed: int) -> Model:
    """Return the encoder for inputs ``(*spatial, channels)``, which need not be those of the experiment."""
    encoder = registry.encoder(experiment.encoder_name)
    return encoder(input_shape, **options_for(experiment, encoder), seed=seed)


def make_model(experiment: FinetuneExperiment, *, seed: int) -> tuple[Model, Model]:
    """Return ``(encoder, model)``, randomly initialised.

    The model gives logits ``(batch, *spatial, num_classes)`` of masks, or ``(batch, num_classes)`` of whole scans.
    """
    encoder = make_encoder(experiment, experiment.input_shape, seed=seed)
    network = registry.prediction_network(experiment.prediction_architecture)
    options = options_for(experiment, network)
    if experiment.task == "segmentation":
        model = network(encoder, num_classes=experiment.num_classes, **options, seed=seed + 10_000)
    else:
        head = functools.partial(network, **options)
        pooling = {"global_pooling": experiment.global_pooling, "pool_bins": experiment.pool_bins}
        model = heads.classifier(encoder, head, experiment.num_classes, **pooling, seed=seed + 10_000)
    if experiment.remat:
        rematerialize(model, encoder)
    return encoder, model


def steps_per_epoch(experiment: Experiment, crops: int, crops_per_step: int) -> int:
    """Return the steps of an epoch, by default so many updates that every crop is met once, the last one filled up."""
    accumulated = experiment.gradient_accumulation_steps
    return experiment.steps_per_epoch or accumulated * math.ceil(crops / (crops_per_step * accumulated))


def make_optimizer(experiment: Experiment, *, total_steps: int) -> Any:
    """Return the Keras optimizer of a training, or of a phase of it, of so many steps."""
    options = options_for(experiment, optimizers.make_optimizer)
    return optimizers.make_optimizer(experiment.lr, total_steps=total_steps, **options)


def learning_rates(experiment: Experiment, phases: Sequence[int]) -> list[np.ndarray]:
    """Return the learning rate of each step of each phase, of which the numbers of steps are given."""
    options = options_for(experiment, schedules.make_schedule)
    made = [schedules.make_schedule(experiment.lr, total_steps=steps, **options) for steps in phases]
    return [schedules.learning_rates(schedule, steps) for schedule, steps in zip(made, phases, strict=True)]


def check_warmup(experiment: Experiment, phases: Sequence[int]) -> None:
    """Raise `UserError` where the learning rate would still rise at the end of a phase.

    Args:
        experiment: The settings.
        phases: Number of steps of each phase; those of 0 are left out.
    """
    updates = min((steps // experiment.gradient_accumulation_steps for steps in phases if steps), default=None)
    if updates is not None and experiment.lr_warmup_steps >= updates:
        raise UserError(
            f"lr_warmup_steps: {experiment.lr_warmup_steps} must be below the number of updates, of which the "
            f"{'training' if len(phases) == 1 else 'shortest phase'} has {updates}; reduce it, or train longer"
        )


def make_store(
    experiment: Experiment, cases: Sequence[Case], *, num_classes: int | None = None, part: str = ""
) -> VolumeStore:
    """Read and prepare scans, and with ``num_classes`` their masks, which hold labels below it.

    Args:
        experiment: Says how.
        cases: The scans.
        num_classes: See above.
        part: The part of a split that they are, for messages.

    Raises:
        UserError: A scan cannot be used, and the experiment does not say that such scans are skipped; or the scaling of
            intensities leaves nothing of all of them.
    """
    store = VolumeStore(
        cases,
        experiment.preprocessing,
        num_classes=num_classes,
        cache=experiment.cache_kind,
        cache_dir=experiment.cache_folder,
        on_bad_file=experiment.on_bad_file,
        part=part,
    )
    store.check_contrast()
    return store


def settle_spacing(experiment: Experiment, cases: Sequence[Case]) -> Experiment:
    """Return the experiment with the median voxel size of these scans where ``target_spacing`` is "median".

    Raises:
        UserError: No scan says how large its voxels are.
    """
    if experiment.target_spacing != "median":
        return experiment
    headers = []
    for case in cases:
        with contextlib.suppress(UserError):  # a scan that cannot be read is told when all of them are checked
            headers.append(read_header(case.image, experiment.rank))
    return experiment.model_copy(update={"target_spacing": list(median_spacing(headers))})


def check_headers(experiment: Experiment, cases: Sequence[Case]) -> None:
    """Raise `UserError` for the first scan whose header does not fit the experiment; no voxel is read."""
    headers = [check_case(case, experiment.preprocessing, num_classes=None) for case in cases]
    warn_of_grids(headers, experiment.preprocessing)


def usable(
    experiment: Experiment, cases: Sequence[Case], check: Callable[[Case], Header], part: str = ""
) -> list[Header]:
    """Return the headers of the scans that a run would begin with; no voxel is read.

    Args:
        experiment: Says whether bad scans are skipped.
        cases: The scans.
        check: Gives the header of a scan, or raises `UserError`.
        part: The part of a split that they are, for messages.

    Raises:
        UserError: Scans cannot be used, and they are not skipped, or none is left.
    """
    bad = BadFiles(skip=experiment.on_bad_file == "skip", part=part)
    return list(bad.good(cases, map(OrError(check), cases), max_errors=MAX_REPORTED).values())


def sample(cases: Sequence[Case]) -> list[Case]:
    """Return a few scans, evenly spread, that tell before a run what it would make of them."""
    return list(cases[:: max(1, math.ceil(len(cases) / NUM_SAMPLE))])


def image_augmentation(experiment: Experiment) -> Callable | None:
    """Return how training images without masks are changed, ``(image, seed)`` to an image; None: they are not."""
    rules = experiment.augment_rules
    return functools.partial(augment.augment_image, rules=rules) if rules else None


def check_geometry(experiment: Experiment) -> None:
    """Raise `UserError` for shapes that the task, or the encoder under it, cannot take; loads no library."""
    if isinstance(experiment, TrainExperiment):
        algorithm, name, fitting = make_algorithm(experiment), experiment.algorithm, experiment.fitting
        rules = experiment.augment_rules
        if rules and rules.can_turn(experiment.rank) and not algorithm.sampling.flips_keep_labels:
            raise UserError(
                f"augment: {name} asks for turns, and two flips are a half turn; use augment_zoom_only, or one axis in "
                "augment_flip_axes and augment_degrees below 45"
            )
        if algorithm.sampling.crop_centres is not None and fitting != "crop":
            raise UserError(f'volume_fitting: {name} cuts sub-volumes of data_dim; use "crop" instead of "{fitting}"')
        decoder = isinstance(algorithm, RestoringAlgorithm)
        shapes = algorithm.encoder_shapes if decoder else [algorithm.encoder_shape]
    else:
        shapes, decoder = [experiment.input_shape], experiment.task == "segmentation"
    check = registry.encoder_check(experiment.encoder_name)
    for shape in shapes:
        check(shape, **options_for(experiment, check), decoder=decoder)
