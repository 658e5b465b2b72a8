"""Pretraining: unlabelled scans and a pretext task → an encoder."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from absl import logging

from self_supervised_3d_tasks import plots, training
from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm, ScheduledAlgorithm, SelectiveAlgorithm
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis.collapse import CollapseMonitor
from self_supervised_3d_tasks.analysis.restoration import RestorationMonitor
from self_supervised_3d_tasks.data.seen import record_scans
from self_supervised_3d_tasks.experiment import build, geometry
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.files.run_files import PretrainingSplit, SeenScans, Task
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.pretraining import scores as pretext_scores
from self_supervised_3d_tasks.pretraining.plan import Plan, plan
from self_supervised_3d_tasks.pretraining.scans import Scans, read_scans
from self_supervised_3d_tasks.training import batch_statistics
from self_supervised_3d_tasks.training.callbacks import add_columns

__all__ = ["Plan", "lacking", "plan", "run"]

NUM_PREVIEWS = 3
NUM_EXAMPLES = 16  # that a task may object to
NUM_STATISTICS = 50  # training batches that running statistics are recomputed over


def run(plan: Plan, folder: RunFolder) -> None:
    """Train the pretext model and leave what transfers in the run folder, of the epoch that the task keeps.

    Args:
        plan: What is to be done.
        folder: A new run folder, or an unfinished one, which is continued after its last finished epoch.

    Raises:
        UserError: A scan cannot be used (its file is named), or a checkpoint is damaged.
        TrainingDiverged: The loss or a weight became NaN or infinite.
    """
    experiment, algorithm = plan.experiment, plan.algorithm
    plan.check_devices()
    train, validation = (read_scans(experiment, algorithm, cases, part) for part, cases in plan.parts.items())
    names = {"train": train.names, "validation": validation.names}
    skipped = train.store.skipped + validation.store.skipped
    folder.pin(RunFolder.split, names | {"skipped": skipped}, PretrainingSplit)
    folder.write_json(RunFolder.geometry, geometry.record(experiment, train.store.headers + validation.store.headers))
    folder.pin(RunFolder.seen, record_scans({"train": train.store, "validation": validation.store}), SeenScans)
    if settings := algorithm.settings():
        folder.pin(RunFolder.task, settings, Task)
    folder.record_environment(seed=experiment.seed)
    plan.check_network()
    training.set_determinism(experiment.seed, experiment.deterministic)
    training.set_precision(experiment.mixed_precision)
    distribution = training.start_distribution(experiment.distribution)
    with distribution.scope():
        model = plan.build_model()
    logging.info("\n%s", plan.describe(model))
    _look_at_examples(train, folder.plots / "pretext.png")

    data = training.TrainingData(
        train=lambda first_step: train.batches(plan.scans_per_step, first_step=first_step, training=True),
        validation=validation.batches(plan.scans_per_step, training=False),
        steps_per_epoch=plan.steps_per_epoch,
        samples_per_step=plan.scans_per_step,
    )
    rates = build.learning_rates(experiment, [experiment.epochs * plan.steps_per_epoch])
    plots.learning_rate(folder.plots / "learning_rate.png", rates)
    history = training.fit(
        model,
        data=data,
        phases=[_phase(plan, distribution)],
        folder=folder,
        monitor=None if isinstance(algorithm, ScheduledAlgorithm) else "val_loss",
        save_every=experiment.save_checkpoint_every_n_epochs,
        patience=experiment.early_stopping_patience,
        callbacks=_callbacks(plan, model, validation, data.validation, folder),
        distribution=distribution,
    )
    model = distribution.on_one_device(model)
    kept = training.restore_best(model, folder)
    logging.info("trained; now the encoder of epoch %d, scores and pictures are written", kept)
    _write_models(plan, model, train, folder)
    plots.loss_curves(folder.plots / "loss.png", history)
    _write_scores(plan, validation, history, kept, folder)


def lacking(plan: Plan, folder: RunFolder) -> list[Path]:
    """Return what a finished run must hold, does not, and can be made again from its training."""
    if not folder.state.exists():
        return []
    decoder = [folder.encoder_decoder] if isinstance(plan.algorithm, RestoringAlgorithm) else []
    return [path for path in (folder.encoder, *decoder, folder.pretext_scores) if not path.exists()]


def _look_at_examples(scans: Scans, path: Path) -> None:
    """Draw what the task makes of the first scans, and warn of what speaks against training on them."""
    previews, seen = [], []
    for batch in scans.single_examples().take(NUM_EXAMPLES):
        inputs, targets = keras.tree.map_structure(lambda leaf: leaf.numpy()[0], batch)
        seen.append(targets)
        # The inputs of the others are not kept: at full size they are gigabytes.
        if len(previews) < NUM_PREVIEWS:
            previews.append(scans.algorithm.describe(inputs, targets))
    plots.pretext_preview(path, previews)
    if isinstance(scans.algorithm, SelectiveAlgorithm):
        for warning in scans.algorithm.warnings(seen, _strict_targets(scans) if scans.algorithm.is_lenient else []):
            logging.warning("%s", warning)


def _strict_targets(scans: Scans) -> list[Any]:
    """Return the targets of the first scans where none counts by its outline."""
    strict = dataclasses.replace(scans, algorithm=scans.algorithm.strict())
    return [targets.numpy()[0] for _, targets in strict.single_examples().take(NUM_EXAMPLES)]


def _phase(plan: Plan, distribution: training.Distribution) -> training.Phase:
    """Return the one phase of a pretraining."""
    experiment, algorithm = plan.experiment, plan.algorithm
    total_steps = experiment.epochs * plan.steps_per_epoch
    make_optimizer = functools.partial(build.make_optimizer, experiment, total_steps=total_steps)

    def prepare(model: keras.Model) -> None:
        options = {"loss": algorithm.loss, "metrics": algorithm.metrics(), "jit_compile": experiment.jit_compile}
        distribution.compile(model, make_optimizer, **options)

    return training.Phase(experiment.epochs, prepare)


def _callbacks(plan: Plan, model: keras.Model, scans: Scans, batches: Any, folder: RunFolder) -> list:
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
            images=scans.images_for_analysis(per_scan=experiment.crops_per_scan, seed=experiment.seed),
            scans=scans.names,
            scans_per_epoch=plan.steps_per_epoch * plan.scans_per_step,
            batch_size=plan.scans_per_step,
            picture_every=experiment.restoration_picture_every_n_epochs,
            folder=folder.plots,
        )
        callbacks.append(add_columns(monitor))
    return callbacks + (training.tensorboard_callbacks(folder) if experiment.tensorboard else [])


def _write_scores(plan: Plan, validation: Scans, history: list[dict[str, float]], kept: int, folder: RunFolder) -> None:
    """Write what the kept epoch reached beside what chance would, and warn of what was not learned."""
    algorithm = plan.algorithm
    crops = len(validation.names) * (1 if algorithm.sampling.distinct_scans else plan.experiment.crops_per_scan)
    chance = pretext_scores.validation_chance(algorithm, crops, plan.scans_per_step)
    scores = pretext_scores.of_epoch(history, kept, algorithm.chance(plan.scans_per_step), chance)
    pretext_scores.write(folder.pretext_scores, scores)
    logging.info("\n%s", pretext_scores.table(scores))
    for warning in pretext_scores.standstill(scores):
        logging.warning("%s", warning)


def _write_models(plan: Plan, model: keras.Model, scans: Scans, folder: RunFolder) -> None:
    """Write ``encoder.keras``, and ``encoder_decoder.keras`` where the task has a decoder.

    Running statistics that mix inputs of several sizes are recomputed first, from what the decoder works on.
    """
    algorithm = plan.algorithm
    restorer = algorithm.restorer(model) if isinstance(algorithm, RestoringAlgorithm) else None
    if restorer is not None and len(algorithm.encoder_shapes) > 1:
        number = min(plan.steps_per_epoch, NUM_STATISTICS)
        batches = scans.batches(plan.scans_per_step, training=True).take(number)
        seen = (algorithm.restorations(*batch)[0] for batch in batches)
        images = (keras.ops.reshape(views, (-1, *views.shape[2:])) for views in seen)
        if passes := batch_statistics.recompute(restorer, images):
            logging.info("running statistics of batch normalization: recomputed over %d training batches", passes)
    save_model(model.get_layer("encoder"), folder.encoder)
    if restorer is not None:
        save_model(restorer, folder.encoder_decoder)
