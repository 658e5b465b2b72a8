"""What the tasks on whole scans share: a network answers with some numbers per scan, and a test set is scored as one.

`classification` asks for one class, `findings` for any number of findings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from self_supervised_3d_tasks import inference
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.source import Position
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.downstream.predictions import Columns, read_predictions, write_predictions
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.scores.base import Predictions
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET


@dataclass(frozen=True)
class WholeScanTask(DownstreamTask):
    """A task whose label belongs to the scan. Test cases are stored: with cross-validation they train other jobs.

    Attributes:
        ANSWER: What the model gives, for messages.
    """

    ANSWER: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """What tables call the outputs of the network."""

    @abstractmethod
    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return the targets of the network, of as many rows as there are labels.

        Args:
            labels: Classes ``(n,)``, or findings ``(n, num_findings)``, 0 or 1.
        """

    @abstractmethod
    def decode(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is predicted, of the form of the labels, and probabilities ``(n, num_outputs)``.

        Args:
            outputs: Activated outputs ``(n, num_outputs)``, in [0, 1].
        """

    @abstractmethod
    def predictions_of(self, labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
        """Return the predictions of a ``predictions.csv``, whose labels are ``(n, len(columns.labels))``."""

    def answers_of(self, prediction: np.ndarray) -> list[list[str]]:
        """Return the cells of each image for `Columns.answers`: none where the probabilities are the answer."""
        return [[]] * len(prediction)

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training, validation and test cases: each is decoded once, whatever its part in each fold."""
        return [*split.train, *split.validation, *split.test]

    def recorded_labels(self, cases: Sequence[Case]) -> dict[str, int | str]:
        """Return the class of each case by its name."""
        return {case.name: case.label for case in cases}

    def dataset(self, store: VolumeStore, position: Position) -> Any:
        """Return batches of whole scans and their labels."""
        return pipeline.whole_scan_dataset(
            store,
            self.encode(np.array([case.label for case in store.cases])),
            batch_size=self.experiment.batch_size,
            augment=build.image_augmentation(self.experiment),
            position=position,
        )

    def predictor(self, model: keras.Model) -> inference.Predict:
        """Return the function from a batch of prepared images to activated outputs ``(batch, num_outputs)``.

        Args:
            model: It gives logits.
        """
        # The loss says what the logits are: of a sigmoid each, or of one softmax.
        activate = keras.ops.sigmoid if self.experiment.loss == "binary_crossentropy" else keras.ops.softmax

        def predict(batch: np.ndarray) -> np.ndarray:
            return keras.ops.convert_to_numpy(activate(keras.ops.cast(model.predict_on_batch(batch), "float32")))

        return predict

    def activated(self, predict: inference.Predict, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return the activated outputs for some images, ``(n, num_outputs)``.

        Args:
            predict: From `predictor`, or several averaged.
            images: Prepared images ``(*spatial, channels)``, at least one; they are read one batch at a time.
        """
        return np.concatenate(list(inference.predict_in_batches(predict, images, self.experiment.batch_size)))

    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, job: RunFolder) -> list[CaseScore]:
        """Score the test cases as one set, and keep what was predicted for each as ``predictions.csv``."""
        part = store.subset(cases)
        prediction, probabilities = self.decode(
            self.activated(self.predictor(model), (part.image(index) for index in range(len(part))))
        )
        found = Predictions(np.array([case.label for case in part.cases]), prediction, probabilities)
        names = [(case.name, case.subject) for case in part.cases]
        # The prediction is kept where the table has a column for it; else it is read off the probabilities.
        labels = np.column_stack([found.truth, found.prediction])[:, : len(self.columns.labels)]
        write_predictions(job.predictions, self.columns, names, labels, probabilities)
        return self.set_scores(found)

    def set_scores(self, found: Predictions) -> list[CaseScore]:
        """Return the scores of all cases of a set together."""
        return [CaseScore(WHOLE_SET, name, score(found)) for name, score in self.scores().items()]

    def check_job(self, job: RunFolder) -> None:
        """Raise `UserError` where ``predictions.csv`` of a job cannot be read again."""
        self.predictions(job)

    def predictions(self, job: RunFolder) -> Predictions:
        """Return what `score` kept in the folder of a job."""
        return self.predictions_of(*read_predictions(job.predictions, self.columns))
