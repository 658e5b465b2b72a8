"""One training of a downstream sweep: a label fraction, a mode and a repetition → a model and its scores.

A finished job holds ``scores.json``, which is written last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots, training, transfer
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream.source import Position
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.files.run_files import JobScores
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET, ScoreRow


@dataclass(frozen=True)
class Job:
    """One training of the sweep.

    Attributes:
        percent: Label fraction in percent of the training share, in (0, 100].
        mode: "frozen", "initialized" or "random".
        repetition: Number of the repetition or fold, from 0.
        epochs: Epochs of the training, warm-up included.
        split: The cases of its parts.
    """

    percent: float
    mode: str
    repetition: int
    epochs: int
    split: Split

    @property
    def name(self) -> str:
        """Folder name, for example ``005_initialized_2``; sorts by fraction."""
        return f"{self.percent:03g}_{self.mode}_{self.repetition}"

    def seed(self, seed: int) -> int:
        """Return the seed of the job, in [0, 2**31): the same in all modes, and another for any other pair of numbers.

        A sum of both would give seed 0 the trainings of seed 1 again, one repetition later.

        Args:
            seed: The experiment's seed, at least 0.
        """
        return int(np.random.SeedSequence(seed, spawn_key=(self.repetition,)).generate_state(1)[0] >> 1)

    def rows(self, scores: Sequence[CaseScore]) -> list[ScoreRow]:
        """Return scores of this job as rows of the tables."""
        subjects = {case.name: case.subject for case in self.split.test} | {WHOLE_SET: WHOLE_SET}
        key = self.percent, self.mode, self.repetition
        return [ScoreRow(*key, subjects[score.case], *score) for score in scores]


def steps_per_epoch(experiment: FinetuneExperiment, job: Job) -> int:
    """Return the number of steps in an epoch: every crop once, unless the experiment says otherwise."""
    crops = len(task_of(experiment).training_cases(job.split)) * experiment.crops_per_scan
    return build.steps_per_epoch(experiment, crops, experiment.batch_size)


def epochs_of_phases(experiment: FinetuneExperiment, job: Job) -> list[int]:
    """Return the epochs of a job's phases: with a frozen encoder before all of it, or one phase alone."""
    if job.mode != "initialized" or not experiment.epochs_warmup:
        return [job.epochs]
    return [experiment.epochs_warmup, job.epochs - experiment.epochs_warmup]


@training.own_graphs()
def run_job(experiment: FinetuneExperiment, job: Job, store: VolumeStore, folder: RunFolder) -> None:
    """Train one model, keep its best weights as ``model.keras`` and score it on the test cases.

    Args:
        experiment: The sweep's settings.
        job: Which fraction, mode and repetition.
        store: Prepared scans of all jobs.
        folder: The job's folder; an interrupted training in it is continued.
    """
    # All modes have one seed: they start from the same decoder and see the same batches.
    seed = job.seed(experiment.seed)
    training.set_determinism(seed, experiment.deterministic)
    distribution = training.start_distribution(experiment.distribution)
    distribution.check_batch(experiment.batch_size)  # this machine need not be the one that planned the sweep
    with distribution.scope():
        encoder, model = build.make_model(experiment, seed=seed)
    sizes = encoder.count_params(), model.count_params()
    logging.info("%s: training %d parameters, %d of them in the encoder", job.name, *reversed(sizes))
    if job.mode != "random":
        load_pretrained(experiment, encoder, model)
    task = task_of(experiment)
    train_store, validation_store = store.subset(task.training_cases(job.split)), store.subset(job.split.validation)
    data = training.TrainingData(
        train=lambda first: task.dataset(train_store, Position(seed, first, share=training.processes.share())),
        validation=task.dataset(validation_store, Position(seed, training=False)),
        steps_per_epoch=steps_per_epoch(experiment, job),
        samples_per_step=experiment.batch_size,
    )
    phases = [epochs * data.steps_per_epoch for epochs in epochs_of_phases(experiment, job)]
    plots.learning_rate(folder.path / "learning_rate.png", build.learning_rates(experiment, phases))
    history = training.fit(
        model,
        data=data,
        phases=_phases(task, job, encoder, distribution),
        folder=folder,
        save_every=experiment.save_checkpoint_every_n_epochs,
        patience=experiment.early_stopping_patience,
        callbacks=training.tensorboard_callbacks(folder) if experiment.tensorboard else [],
        distribution=distribution,
    )
    model = distribution.on_one_device(model)
    warn_of_standstill(job.name, history)
    kept = training.restore_best(model, folder)
    logging.info("%s: trained; now epoch %d is scored on %d test scans", job.name, kept, len(job.split.test))
    save_model(model, folder.model)
    plots.loss_curves(folder.loss, history)
    best = min(row["val_loss"] for row in history if math.isfinite(row["val_loss"]))
    write_scores(folder, best, task.score(model, job.split.test, store, folder))


def warn_of_standstill(name: str, history: Sequence[Mapping[str, float]]) -> None:
    """Warn of a training that learned while its validation stood still, whose scores say nothing of the labels.

    Args:
        name: What the warning calls the training.
        history: One row per epoch with ``loss`` and ``val_loss``.
    """
    gain = history[0]["loss"] - history[-1]["loss"]
    validation = [row["val_loss"] for row in history]
    if len(history) > 2 and gain > 0.3 * abs(history[0]["loss"]) and validation[0] - min(validation) < 0.1 * gain:
        logging.warning(
            "%s: the loss of training fell from %.3f to %.3f, that of validation hardly below its first, %.3f: the "
            'scans were learned by heart (add scans, or "augment": true), or running statistics of a batch '
            'normalization lag behind ("normalization": "group" has none)',
            name,
            history[0]["loss"],
            history[-1]["loss"],
            validation[0],
        )


def load_pretrained(experiment: FinetuneExperiment, encoder: keras.Model, model: keras.Model) -> None:
    """Copy what ``transfer`` names from the pretrained model.

    Args:
        experiment: Names the pretrained model.
        encoder: Gets its weights.
        model: The whole network, whose decoder may get them too.

    Raises:
        UserError: They are missing, damaged or of other shapes.
    """
    source, allow_partial = experiment.model_checkpoint, experiment.allow_partial_load
    report = transfer.load_encoder(encoder, source, channel_map=experiment.channel_map, allow_partial=allow_partial)
    logging.info("%s", report)
    if experiment.transfer == "encoder_decoder":
        logging.info("%s", transfer.load_decoder(model, source, allow_partial=allow_partial))


def _phases(
    task: DownstreamTask, job: Job, encoder: keras.Model, distribution: training.Distribution
) -> list[training.Phase]:
    """Return the training phases of a mode; each compiles anew, so moments and schedule start afresh, as upstream's."""
    experiment = task.experiment

    def phase(epochs: int, *, trainable: bool) -> training.Phase:
        total_steps = epochs * steps_per_epoch(experiment, job)
        make_optimizer = functools.partial(build.make_optimizer, experiment, total_steps=total_steps)

        def compile_model(model: keras.Model) -> None:
            encoder.trainable = trainable
            options = {"loss": task.loss(), "metrics": task.metrics(), "jit_compile": experiment.jit_compile}
            distribution.compile(model, make_optimizer, **options)

        return training.Phase(epochs, compile_model)

    *warmup, epochs = epochs_of_phases(experiment, job)
    return [*(phase(count, trainable=False) for count in warmup), phase(epochs, trainable=job.mode != "frozen")]


def write_scores(folder: RunFolder, best_val_loss: float, scores: Sequence[CaseScore]) -> None:
    """Record the scores of a job, which has finished with it: one per test case, or of the whole test set."""
    # JSON has no NaN: null marks a score that is not defined, for example of a class that is absent from the case.
    values = [[case, metric, None if math.isnan(value) else value] for case, metric, value in scores]
    folder.write_json(RunFolder.scores, {"best_val_loss": best_val_loss, "scores": values})


def finished_rows(task: DownstreamTask, job: Job, folder: RunFolder) -> list[ScoreRow]:
    """Return the rows of a finished job, or an empty list; a job whose scores cannot be read counts as unfinished."""
    if not folder.scores.exists():
        return []
    try:
        found = folder.read(RunFolder.scores, JobScores).scores
        if not {case for case, _, _ in found} <= {WHOLE_SET, *(case.name for case in job.split.test)}:
            raise UserError(f"{folder.scores}: scores: expected those of the test scans of this run")
        task.check_job(folder)
    except UserError as error:
        logging.warning("%s is scored again: %s", job.name, error)
        return []
    return job.rows([CaseScore(case, name, math.nan if value is None else value) for case, name, value in found])
