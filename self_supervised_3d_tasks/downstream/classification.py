"""Finetuning on one class per scan: the test cases of a job are predicted together and scored as a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from self_supervised_3d_tasks import classification_scores, metrics, plots
from self_supervised_3d_tasks.data import pipeline, splits
from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store import VolumeStore
from self_supervised_3d_tasks.downstream import whole_scans
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.downstream.case_predictions import FILE_NAME, CasePredictions
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import FinetuneExperiment
from self_supervised_3d_tasks.experiment_checks import CLASSIFICATION_LOSSES
from self_supervised_3d_tasks.results import WHOLE_SET

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ClassificationTask(DownstreamTask):
    """See `DownstreamTask`. Test cases are stored: with cross-validation they train other jobs."""

    @property
    def mask_classes(self) -> None:
        """No masks are read."""
        return None

    def metrics(self) -> list[Callable]:
        """Return the metrics of `metrics.get_for_classification`."""
        experiment = self.experiment
        return [
            metric
            for name in experiment.metrics
            for metric in metrics.get_for_classification(name, multilabel=experiment.multilabel)
        ]

    def scores(self) -> list[str]:
        """Return the scores, keys of `classification_scores.SCORES`."""
        return classification_scores.check_names(self.experiment.scores)

    @property
    def loss_names(self) -> Sequence[str]:
        """The losses of labels ``(batch,)``; of ordinal targets the one that takes those."""
        return ("binary_crossentropy",) if self.experiment.multilabel else CLASSIFICATION_LOSSES

    def training_cases(self, split: Split) -> list[Case]:
        """Return the training cases, with ``sample_classes_uniform`` repeated until the classes are even."""
        return splits.balanced(split.train) if self.experiment.sample_classes_uniform else split.train

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training, validation and test cases: each is decoded once, whatever its part in each fold."""
        return [*split.train, *split.validation, *split.test]

    def check_cases(self, cases: Sequence[Case]) -> None:
        """Raise `UserError` where all scans are of one class."""
        if len({case.label for case in cases}) < 2:
            key = self.experiment.label_key()
            raise UserError(
                f"{key}, label_map: {getattr(self.experiment, key)} gives class {cases[0].label} to all of the "
                f"{len(cases)} scans, expected two classes or more. Check "
                f"{'label_column' if key == 'csv_file' else 'the labels'}, and what label_map makes of it."
            )

    def dataset(self, store: VolumeStore, *, seed: int, first_step: int, training: bool) -> Any:
        """Return batches of whole scans and their classes, or ordinal targets."""
        experiment = self.experiment
        return pipeline.classification_dataset(
            store,
            batch_size=experiment.batch_size,
            num_classes=experiment.num_classes,
            multilabel=experiment.multilabel,
            augment=whole_scans.augmentation(experiment, training=training),
            seed=seed,
            first_step=first_step,
            training=training,
        )

    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, folder: Path) -> list[CaseScore]:
        """Score the test cases as one set, and keep what was predicted for each as ``predictions.csv``."""
        experiment, part = self.experiment, store.subset(cases)
        images = (part.image(index) for index in range(len(part)))
        found = CasePredictions.of(part.cases, *predict_images(model, images, experiment))
        found.write(folder / FILE_NAME)
        return [
            CaseScore(
                WHOLE_SET,
                name,
                classification_scores.score(name, found.truth, found.probabilities, prediction=found.prediction),
            )
            for name in self.scores()
        ]

    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[Path]]) -> None:
        """Draw the confusion matrix of each label fraction and mode, pooled over folds or repetitions."""
        experiment = self.experiment
        unit = "fold" if experiment.do_cross_val else "repetition"
        for (percent, mode), folders in jobs.items():
            matrix = np.zeros((experiment.num_classes, experiment.num_classes), int)
            for job in folders:
                found = CasePredictions.read(job / FILE_NAME)
                matrix += classification_scores.confusion_matrix(found.truth, found.prediction, experiment.num_classes)
            plots.confusion_matrix(
                folder / f"confusion_{mode}_{percent:g}_percent.png",
                matrix,
                title=f"{mode}, {percent:g} % of the labels, {len(folders)} {unit}{'s' * (len(folders) > 1)}",
                names=experiment.label_names,
            )


def predict_images(
    model: keras.Model, images: Iterable[np.ndarray], experiment: FinetuneExperiment
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted classes ``(n,)`` and the class probabilities ``(n, num_classes)``.

    Arguments as in `whole_scans.outputs`.
    """
    outputs = whole_scans.outputs(model, images, experiment)
    return classification_scores.decode(outputs, multilabel=experiment.multilabel)
