"""Pretraining: unlabelled scans and a pretext task → an encoder."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots, training
from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm, ScheduledAlgorithm, SelectiveAlgorithm
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis.collapse import CollapseMonitor
from self_supervised_3d_tasks.analysis.monitor import RestorationMonitor
from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import centres
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.background import Background
from self_supervised_3d_tasks.data.stream.repeated_examples import keep_crop
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import TrainExperiment
from self_supervised_3d_tasks.files.run_folder import RunFolder, environment
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models.encoders import keras_applications
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.pretraining import scores as pretext_scores
from self_supervised_3d_tasks.training import batch_statistics, optimizers
from self_supervised_3d_tasks.training.callbacks import add_columns, tensorboard_callbacks

__all__ = ["Plan", "Scans", "build_model", "plan", "read_scans", "run", "wholes"]

NUM_PREVIEWS = 3
NUM_EXAMPLES = 16  # that a task may object to
NUM_STATISTICS = 50  # training batches that running statistics are recomputed over


@dataclass(frozen=True)
class Plan:
    """What a pretraining run will do, known before any voxel is read."""

    experiment: TrainExperiment
    algorithm: Algorithm
    train: list[Case]
    validation: list[Case]
    scans_per_step: int
    steps_per_epoch: int

    def check_headers(self) -> None:
        """Raise `UserError` for the first scan whose header does not fit the experiment; no voxel is read."""
        preprocessing = Preprocessing(**self.experiment.preprocessing_options())
        for case in (*self.train, *self.validation):
            check_case(case, preprocessing, num_classes=None)

    def describe(self) -> str:
        """Return the plan as text; builds the model to count its parameters."""
        model = build_model(self.experiment, self.algorithm)
        encoder = model.get_layer("encoder")
        examples = self.scans_per_step * self.algorithm.sampling.examples_per_scan
        return "\n".join(
            [
                f"pretext task     {self.experiment.algorithm}, input {self.experiment.input_shape}, "
                f"encoder sees {self.algorithm.encoder_shape}",
                f"scans            {len(self.train)} train, {len(self.validation)} validation "
                f"from {self.experiment.data_dir}",
                f"parameters       {model.count_params():,} model, {encoder.count_params():,} encoder",
                f"batch            {self.scans_per_step} scans = {examples} examples per step "
                f"(batch_size {self.experiment.batch_size})",
                f"steps            {self.steps_per_epoch} per epoch, {self.experiment.epochs} epochs",
            ]
        )


def plan(experiment: TrainExperiment) -> Plan:
    """List and split the scans and size the steps.

    Raises:
        UserError: The folder or ``encoder_weights`` is missing, there are too few subjects to split, or too few scans
            meet in a batch or in a part of the split for a task that compares scans.
    """
    if weights := getattr(experiment, "encoder_weights", None):
        keras_applications.check_weight_file(weights)
    cases = find_cases(
        experiment.dataset_name,
        experiment.data_dir,
        labelled=False,
        subject_pattern=experiment.subject_pattern,
        channel_suffixes=experiment.channel_suffixes,
    )
    parts = splits.pretraining_split(cases, experiment.train_val_split, experiment.seed)
    algorithm = build.make_algorithm(experiment)
    scans_per_step = math.ceil(experiment.batch_size / algorithm.sampling.examples_per_scan)
    _check_other_scans(algorithm, parts, scans_per_step, experiment.crops_per_scan)
    crops = len(parts["train"]) * experiment.crops_per_scan
    return Plan(
        experiment=experiment,
        algorithm=algorithm,
        train=parts["train"],
        validation=parts["validation"],
        scans_per_step=scans_per_step,
        steps_per_epoch=experiment.steps_per_epoch or math.ceil(crops / scans_per_step),
    )


def run(plan: Plan, folder: RunFolder) -> None:
    """Train the pretext model and leave what transfers in the run folder, of the epoch that the task keeps.

    Args:
        plan: The run's plan.
        folder: A new run folder, or an unfinished one, which is continued after its last finished epoch.

    Raises:
        UserError: A scan cannot be used (its file is named), or a checkpoint is damaged.
        TrainingDiverged: The loss or a weight became NaN or infinite.
    """
    experiment, algorithm = plan.experiment, plan.algorithm
    train, validation = read_scans(plan, plan.train), read_scans(plan, plan.validation)
    names = {"train": train.names, "validation": validation.names}
    folder.pin_json(RunFolder.split, names | {"skipped": train.store.skipped + validation.store.skipped})
    if settings := algorithm.settings():
        folder.pin_json(RunFolder.task, settings)
    folder.write_json(RunFolder.environment, environment(seed=experiment.seed))
    training.set_determinism(experiment.seed, experiment.deterministic)
    training.set_precision(experiment.mixed_precision)
    logging.info("\n%s", plan.describe())

    def stream(scans: Scans, *, first_step: int, training: bool):
        return pipeline.pretraining_dataset(
            scans.store,
            **_crops(experiment, scans),
            make_example=algorithm.make_example,
            make_batch=algorithm.sampling.make_batch,
            batch_size=plan.scans_per_step,
            crops_per_scan=experiment.crops_per_scan,
            augment=_augmentation(experiment),
            companions=algorithm.sampling.companions,
            min_batch=algorithm.sampling.min_batch,
            distinct_scans=algorithm.sampling.distinct_scans,
            seed=experiment.seed,
            first_step=first_step,
            training=training,
        )

    _look_at_examples(plan, train, folder.plots / "pretext.png")
    model = build_model(experiment, algorithm)
    batches = stream(validation, first_step=0, training=False)
    data = training.TrainingData(
        train=lambda first_step: stream(train, first_step=first_step, training=True),
        validation=batches,
        steps_per_epoch=plan.steps_per_epoch,
        samples_per_step=plan.scans_per_step,
    )
    history = training.fit(
        model,
        data=data,
        phases=[_phase(plan)],
        folder=folder.path,
        monitor=None if isinstance(algorithm, ScheduledAlgorithm) else "val_loss",
        save_every=experiment.save_checkpoint_every_n_epochs,
        callbacks=_callbacks(plan, model, validation, batches, folder.path),
    )
    kept = training.restore_best(model, folder.path)
    _write_models(plan, model, functools.partial(stream, train, first_step=0, training=True), folder.path)
    plots.loss_curves(folder.plots / "loss.png", history)
    chance = algorithm.chance(plan.scans_per_step), _validation_chance(plan, len(validation.names))
    scores = pretext_scores.of_history(history, kept, *chance)
    pretext_scores.write(folder.pretext_scores, scores)
    logging.info("\n%s", pretext_scores.table(scores))


def build_model(experiment: TrainExperiment, algorithm: Algorithm) -> keras.Model:
    """Return the pretext model; its layer ``"encoder"`` is what transfers."""
    encoder = build.make_encoder(experiment, algorithm.encoder_shape, seed=experiment.seed)
    return algorithm.make_model(encoder, seed=experiment.seed + 10_000)


def _write_models(plan: Plan, model: keras.Model, batches: Callable[[], Any], folder: Path) -> None:
    """Write ``encoder.keras``, and ``encoder_decoder.keras`` where the task has a decoder.

    Running statistics that mix inputs of several sizes are recomputed first, from what the decoder works on.
    """
    algorithm = plan.algorithm
    restorer = algorithm.restorer(model) if isinstance(algorithm, RestoringAlgorithm) else None
    if restorer is not None and len(algorithm.encoder_shapes) > 1:
        number = min(plan.steps_per_epoch, NUM_STATISTICS)
        seen = (algorithm.restorations(*batch)[0] for batch in batches().take(number))
        images = (keras.ops.reshape(views, (-1, *views.shape[2:])) for views in seen)
        if passes := batch_statistics.recompute(restorer, images):
            logging.info("running statistics of batch normalization: recomputed over %d training batches", passes)
    training.save_model(model.get_layer("encoder"), RunFolder(folder).encoder)
    if restorer is not None:
        training.save_model(restorer, RunFolder(folder).encoder_decoder)


def _phase(plan: Plan) -> training.Phase:
    """Return the one phase of a pretraining."""
    experiment, algorithm = plan.experiment, plan.algorithm

    def prepare(model: keras.Model) -> None:
        optimizer = optimizers.make_optimizer(
            experiment.lr,
            total_steps=experiment.epochs * plan.steps_per_epoch,
            **build.options_for(experiment, optimizers.make_optimizer),
        )
        model.compile(optimizer=optimizer, loss=algorithm.loss, metrics=algorithm.metrics())

    return training.Phase(experiment.epochs, prepare)


def _callbacks(plan: Plan, model: keras.Model, scans: Scans, batches: Any, folder: Path) -> list:
    """Return what changes in the course of the training, and what looks at the model after an epoch."""
    algorithm, experiment = plan.algorithm, plan.experiment
    callbacks = algorithm.callbacks(model, experiment.epochs) if isinstance(algorithm, ScheduledAlgorithm) else []
    if isinstance(algorithm, ComparingAlgorithm):
        monitor = CollapseMonitor(model, algorithm.codes(model), batches, history=training.read_history(folder))
        callbacks.append(add_columns(monitor))
    if isinstance(algorithm, RestoringAlgorithm):
        monitor = RestorationMonitor(
            algorithm,
            algorithm.restorer(model),
            wholes=wholes(plan, scans, per_scan=experiment.crops_per_scan, seed=experiment.seed),
            scans=scans.names,
            scans_per_epoch=plan.steps_per_epoch * plan.scans_per_step,
            batch_size=plan.scans_per_step,
            picture_every=experiment.restoration_picture_every_n_epochs,
            folder=RunFolder(folder).plots,
        )
        callbacks.append(add_columns(monitor))
    return callbacks + (tensorboard_callbacks(folder) if experiment.tensorboard else [])


def _augmentation(experiment: TrainExperiment) -> Callable | None:
    """Return what happens to a training scan before the task sees it."""
    if not (experiment.augment or experiment.augment_zoom_only):
        return None
    return functools.partial(augment.augment_image, zoom_only=experiment.augment_zoom_only)


def _crops(experiment: TrainExperiment, scans: Scans) -> dict[str, Any]:
    """Return how crops are drawn, the same for training, validation, pictures and analyses: options of the pipeline."""
    level, window = experiment.background_level, experiment.intensity_window
    background = None if level is None else Background.in_window(level, experiment.background_share, window)
    return {"crop_shape": experiment.crop_shape, "centres": scans.centres, "background": background}


def _check_other_scans(
    algorithm: Algorithm, parts: dict[str, list[Case]], scans_per_step: int, crops_per_scan: int
) -> None:
    """Raise `UserError` where an example would look for other scans and find none."""
    sampling = algorithm.sampling
    if scans_per_step < sampling.min_batch:
        raise UserError(
            f"batch_size: {algorithm.name} compares the scans of a batch and needs at least {sampling.min_batch} per "
            f"step, received {scans_per_step}; raise batch_size (exemplar: or draw the negatives from the dataset)"
        )
    if sampling.distinct_scans and scans_per_step > len(parts["train"]):
        raise UserError(
            f"batch_size: {algorithm.name} compares the scans of a batch, but {scans_per_step} scans per step of "
            f"{len(parts['train'])} training scans would pair a scan with itself; reduce batch_size or add scans"
        )
    scans = max(sampling.min_batch if sampling.distinct_scans else 1, sampling.companions + 1)
    for part, cases in parts.items():
        if len(cases) < scans:
            raise UserError(
                f"train_val_split: {algorithm.name} compares scans and needs at least {scans} in each part of the "
                f"split, but {part} has {len(cases)}; add scans or change train_val_split"
            )
        if len(cases) * crops_per_scan < sampling.min_batch:
            raise UserError(
                f"train_val_split, patches_per_scan: {algorithm.name} needs at least {sampling.min_batch} scans or "
                f"crops in each part of the split, but {part} has {len(cases) * crops_per_scan}; add some, or change "
                "train_val_split"
            )


@dataclass(frozen=True)
class Scans:
    """The scans of one part of the split, and what crops of them are centred on."""

    store: VolumeStore
    centres: list[np.ndarray] | None

    @property
    def names(self) -> list[str]:
        """Of the usable scans."""
        return [case.name for case in self.store.cases]


def read_scans(plan: Plan, cases: list[Case]) -> Scans:
    """Read and prepare scans."""
    experiment, finder = plan.experiment, plan.algorithm.sampling.crop_centres
    store = VolumeStore(
        cases,
        Preprocessing(**experiment.preprocessing_options()),
        cache=experiment.cache,
        cache_dir=experiment.cache_folder,
        on_bad_file=experiment.on_bad_file,
    )
    if finder is None:
        return Scans(store, None)
    return Scans(*centres.find(store, finder, experiment.cache_folder, skip=experiment.on_bad_file == "skip"))


def wholes(plan: Plan, scans: Scans, *, per_scan: int, seed: int) -> Any:
    """Return a dataset of one image ``(1, *spatial, channels)`` and its seed ``(1, 2)`` at a time, for `analysis`.

    Every scan in turn, ``per_scan`` times if it is cropped; not augmented, the same for the same seed.
    """
    return pipeline.pretraining_dataset(
        scans.store,
        **_crops(plan.experiment, scans),
        make_example=keep_crop,
        batch_size=1,
        crops_per_scan=per_scan,
        seed=seed,
        training=False,
    )


def _look_at_examples(plan: Plan, scans: Scans, path: Path) -> None:
    """Draw what the task makes of the first scans, and warn of what speaks against training on them."""
    dataset = pipeline.pretraining_dataset(
        scans.store,
        **_crops(plan.experiment, scans),
        make_example=plan.algorithm.make_example,
        batch_size=1,
        companions=plan.algorithm.sampling.companions,
        seed=plan.experiment.seed,
        training=False,
    )
    previews, seen = [], []
    for batch in dataset.take(NUM_EXAMPLES):
        inputs, targets = keras.tree.map_structure(lambda leaf: leaf.numpy()[0], batch)
        seen.append(targets)
        # The inputs of the others are not kept: at full size they are gigabytes.
        if len(previews) < NUM_PREVIEWS:
            previews.append(plan.algorithm.describe(inputs, targets))
    plots.pretext_preview(path, previews)
    if isinstance(plan.algorithm, SelectiveAlgorithm):
        for warning in plan.algorithm.warnings(seen):
            logging.warning("%s", warning)


def _validation_chance(plan: Plan, num_scans: int) -> dict[str, float]:
    """Return the chance level of the metrics over the validation batches, of which the last may be smaller."""
    algorithm, batch = plan.algorithm, plan.scans_per_step
    items = num_scans * (1 if algorithm.sampling.distinct_scans else plan.experiment.crops_per_scan)
    whole, rest = divmod(items, batch)
    sizes = [batch] * whole + [rest] * (rest >= algorithm.sampling.min_batch)
    levels = [algorithm.chance(size) for size in sizes]
    return {
        name: float(np.average([level[name] for level in levels], weights=sizes)) for name in algorithm.chance(batch)
    }
