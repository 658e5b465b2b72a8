"""Finetuning on one class per scan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.labels import ordinal
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.downstream.predictions import Columns
from self_supervised_3d_tasks.downstream.whole_scans import WholeScanTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.losses.classification import CLASSIFICATION_LOSSES
from self_supervised_3d_tasks.scores.base import Predictions, sklearn_metrics


@dataclass(frozen=True)
class ClassificationTask(WholeScanTask):
    """One of ``num_classes`` classes per scan; with ``multilabel`` they are ordered."""

    ANSWER: ClassVar[str] = "one class per scan"
    UNDEFINED: ClassVar[str] = "all test cases of one class"

    @property
    def columns(self) -> Columns:
        """One output per class, by number."""
        return Columns("classes", self.outputs, labels=("truth", "prediction"), answers=("class", "name"))

    @property
    def loss_names(self) -> Sequence[str]:
        """The losses of labels ``(batch,)``; of ordinal targets the one that takes those."""
        return ("binary_crossentropy",) if self.experiment.multilabel else CLASSIFICATION_LOSSES

    def training_cases(self, split: Split) -> list[Case]:
        """Return the training cases, with ``sample_classes_uniform`` repeated until the classes are even."""
        return splits.balanced(split.train) if self.experiment.sample_classes_uniform else split.train

    def check_cases(self, cases: Sequence[Case]) -> None:
        """Raise `UserError` where all scans are of one class."""
        if len({case.label for case in cases}) < 2:
            key = self.experiment.label_key()
            raise UserError(
                f"{key}, label_map: {getattr(self.experiment, key)} gives class {cases[0].label} to all of the "
                f"{len(cases)} scans, expected two classes or more. Check "
                f"{'label_column' if key == 'csv_file' else 'the labels'}, and what label_map makes of it."
            )

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return the classes ``(n,)`` int32, or cumulative targets ``(n, num_classes)`` float32 of ordered ones."""
        if self.experiment.multilabel:
            return ordinal.ordinal_encode(labels, self.experiment.num_classes)
        return labels.astype(np.int32)

    def decode(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted classes ``(n,)`` and the class probabilities ``(n, num_classes)``, which sum to 1."""
        outputs = np.asarray(outputs, np.float64)
        if self.experiment.multilabel:
            return ordinal.ordinal_decode(outputs), ordinal.ordinal_probabilities(outputs)
        total = outputs.sum(axis=-1, keepdims=True)  # not 1 where each class has a sigmoid of its own
        return np.argmax(outputs, axis=-1), outputs / np.maximum(total, np.finfo(np.float64).tiny)

    def predictions_of(self, labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
        """Return the predictions of a ``predictions.csv``, whose labels are the true and the predicted class."""
        return Predictions(*labels.T, probabilities)

    def answers_of(self, prediction: np.ndarray) -> list[list[str]]:
        """Return class and name of each image; the name is empty without ``class_names``."""
        return [[str(label), self.experiment.label_names.get(int(label), "")] for label in prediction]

    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[RunFolder]]) -> None:
        """Draw the confusion matrix of each label fraction and mode, pooled over folds or repetitions."""
        experiment = self.experiment
        labels = range(experiment.num_classes)
        unit = "fold" if experiment.do_cross_val else "repetition"
        for (percent, mode), folders in jobs.items():
            matrix = np.zeros((experiment.num_classes, experiment.num_classes), int)
            for job in folders:
                found = self.predictions(job)
                matrix += sklearn_metrics.confusion_matrix(found.truth, found.prediction, labels=labels)
            plots.confusion_matrix(
                folder / f"confusion_{mode}_{percent:g}_percent.png",
                matrix,
                title=f"{mode}, {percent:g} % of the labels, {len(folders)} {unit}{'s' * (len(folders) > 1)}",
                names=experiment.label_names,
            )
