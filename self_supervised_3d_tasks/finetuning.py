"""One training of a downstream sweep: a label fraction, a mode and a repetition → a model and its scores.

A finished job holds ``scores.json``, which is written last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks import inference, lazy, losses, metrics, plots, training, transfer
from self_supervised_3d_tasks.data import pipeline, readers
from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.readers import Volume
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store import VolumeStore, check_case
from self_supervised_3d_tasks.experiment import FinetuneExperiment
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.results import ScoreRow
from self_supervised_3d_tasks.run_folder import read_json, write_json

keras = lazy.load("keras")


@dataclass(frozen=True)
class Job:
    """One training of the sweep."""

    percent: float
    mode: str
    repetition: int
    epochs: int
    split: Split

    @property
    def name(self) -> str:
        """Folder name, for example ``005_initialized_2``; sorts by fraction."""
        return f"{self.percent:03g}_{self.mode}_{self.repetition}"


def steps_per_epoch(experiment: FinetuneExperiment, job: Job) -> int:
    """Return the number of steps in an epoch: every crop once, unless the experiment says otherwise."""
    crops = len(job.split.train) * experiment.crops_per_scan
    return experiment.steps_per_epoch or math.ceil(crops / experiment.batch_size)


def training_metrics(experiment: FinetuneExperiment) -> list[Callable]:
    """Return the metrics that are logged while training; `UserError` for an unknown name."""
    return [metric for name in experiment.metrics for metric in metrics.get(name, num_classes=experiment.num_classes)]


def run_job(
    experiment: FinetuneExperiment, job: Job, store: VolumeStore, test: Sequence[Case], folder: Path
) -> list[ScoreRow]:
    """Train one model, keep its best weights as ``model.keras`` and score it on the test cases.

    Args:
        experiment: The sweep's settings.
        job: Which fraction, mode and repetition.
        store: Prepared training and validation scans of all jobs.
        test: Test cases.
        folder: The job's folder; an interrupted training in it is continued.

    Returns:
        One row per test case and score.
    """
    # The repetition is the seed of all modes alike: they start from the same decoder and see the same batches.
    seed = experiment.seed + job.repetition
    keras.utils.clear_session()
    training.set_determinism(seed, experiment.deterministic)
    logging.info("%s: training", job.name)
    encoder, model = experiment.make_model(seed=seed)
    if job.mode != "random":
        report = transfer.load_encoder(
            encoder,
            Path(experiment.model_checkpoint).expanduser(),
            channel_map=experiment.channel_map,
            allow_partial=experiment.allow_partial_load,
        )
        logging.info("%s", report)
    train_store, validation_store = store.subset(job.split.train), store.subset(job.split.validation)
    clock = pipeline.WaitClock()

    def stream(store: VolumeStore, *, first_step: int, training: bool):
        return pipeline.segmentation_dataset(
            store,
            batch_size=experiment.batch_size,
            crop_shape=experiment.crop_shape,
            crops_per_scan=experiment.crops_per_scan,
            foreground_fraction=experiment.foreground_fraction,
            augment=augment.augment_segmentation if experiment.augment and training else None,
            seed=seed,
            first_step=first_step,
            training=training,
        )

    history = training.fit(
        model,
        phases=_phases(experiment, job, encoder),
        train=lambda first_step: clock.attach(stream(train_store, first_step=first_step, training=True)),
        validation=stream(validation_store, first_step=0, training=False),
        steps_per_epoch=steps_per_epoch(experiment, job),
        folder=folder,
        resume=(folder / "state.json").exists(),
        save_every=experiment.save_checkpoint_every_n_epochs,
        clock=clock,
        samples_per_step=experiment.batch_size,
        tensorboard=experiment.tensorboard,
    )
    training.restore_best(model, folder)
    training.save_model(model, folder / "model.keras")
    plots.loss_curves(folder / "loss.png", history)
    rows = _score(experiment, job, model, test, picture=folder / "first_test_case.png")
    _write_scores(folder, rows, best=min(row["val_loss"] for row in history))
    return rows


def _phases(experiment: FinetuneExperiment, job: Job, encoder: keras.Model) -> list[training.Phase]:
    """Return the training phases of a mode; each compiles anew, so Adam's moments start afresh as upstream."""

    def prepare(*, trainable: bool):
        def compile_model(model: keras.Model) -> None:
            encoder.trainable = trainable
            model.compile(
                optimizer=training.make_optimizer(
                    experiment.lr, clipnorm=experiment.clipnorm, clipvalue=experiment.clipvalue
                ),
                loss=losses.get(
                    experiment.loss, num_classes=experiment.num_classes, class_weights=experiment.class_weights
                ),
                metrics=training_metrics(experiment),
            )

        return compile_model

    if job.mode == "frozen":
        return [training.Phase(job.epochs, prepare(trainable=False))]
    if job.mode == "random" or not experiment.epochs_warmup:
        return [training.Phase(job.epochs, prepare(trainable=True))]
    return [
        training.Phase(experiment.epochs_warmup, prepare(trainable=False)),
        training.Phase(job.epochs - experiment.epochs_warmup, prepare(trainable=True)),
    ]


def _score(
    experiment: FinetuneExperiment, job: Job, model: keras.Model, test: Sequence[Case], *, picture: Path
) -> list[ScoreRow]:
    """Score every test case on its own grid, and draw the first one beside its reference."""
    preprocessing = Preprocessing(**experiment.preprocessing_options())
    predict = inference.predictor(model)
    rows = []
    for case in test:
        volume, truth = read_labelled(case, preprocessing, experiment.num_classes)
        mask = inference.predict_case(
            predict, volume, preprocessing, num_classes=experiment.num_classes, overlap=experiment.overlap
        )
        if case is test[0]:
            plots.overlay(
                picture,
                volume.array,
                mask,
                title=f"{case.name}, {job.name}",
                spacing=volume.spacing,
                truth=truth,
                names=experiment.label_names,
                canonical=volume.affine is not None,
            )
        for name in metrics.expand(experiment.scores, experiment.num_classes):
            value = metrics.score(name, truth, mask, experiment.num_classes)
            rows.append(ScoreRow(job.percent, job.mode, job.repetition, case.name, name, value))
    return rows


def read_labelled(case: Case, preprocessing: Preprocessing, num_classes: int) -> tuple[Volume, np.ndarray]:
    """Return a scan and its labels ``(*spatial)``, both on the scan's own grid.

    Raises:
        UserError: A file cannot be read or does not fit the experiment, or the grids differ.
    """
    check_case(case, preprocessing, num_classes=num_classes)
    volume = readers.read_channels(case.images, preprocessing.rank)
    return volume, preprocessing.labels(readers.read_mask(case.mask, preprocessing.rank), num_classes)


def finished_rows(job: Job, folder: Path) -> list[ScoreRow]:
    """Return the rows of a finished job, or an empty list."""
    path = folder / "scores.json"
    if not path.exists():
        return []
    return [
        ScoreRow(job.percent, job.mode, job.repetition, case, metric, np.nan if value is None else value)
        for case, metric, value in read_json(path)["scores"]
    ]


def _write_scores(folder: Path, rows: Sequence[ScoreRow], *, best: float) -> None:
    # JSON has no NaN: null marks a class that is absent from the case.
    scores = [[row.case, row.metric, None if np.isnan(row.value) else row.value] for row in rows]
    write_json(folder / "scores.json", {"best_val_loss": best, "scores": scores})
