"""What the tasks on whole scans share: a network answers with some numbers per scan, and a test set is scored as one.

`classification` asks for one class, `findings` for any number of findings.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from self_supervised_3d_tasks import inference
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.downstream.predictions import CasePredictions, Columns
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.scores.results import WHOLE_SET


@dataclass(frozen=True)
class WholeScanTask(DownstreamTask):
    """See `DownstreamTask`. Test cases are stored: with cross-validation they train other jobs.

    Attributes:
        ANSWER: What the model gives, for messages.
    """

    ANSWER: ClassVar[str]

    @property
    def mask_classes(self) -> None:
        """No masks are read."""
        return None

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """What the outputs of the network stand for."""

    @property
    @abstractmethod
    def make_dataset(self) -> Callable:
        """The function of `pipeline` that gives the scans of a store with their labels."""

    @abstractmethod
    def decode(self, outputs: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Return predicted classes ``(n,)``, or None, and probabilities ``(n, num_classes)``.

        Args:
            outputs: Activated outputs ``(n, num_classes)``, in [0, 1].
        """

    @abstractmethod
    def evaluate(self, found: CasePredictions) -> dict[str, float]:
        """Return the `scores` of a test set by name."""

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training, validation and test cases: each is decoded once, whatever its part in each fold."""
        return [*split.train, *split.validation, *split.test]

    def dataset(self, store: VolumeStore, *, seed: int, first_step: int, training: bool) -> Any:
        """Return batches of whole scans and their labels."""
        experiment, augmentation = self.experiment, None
        if training and (experiment.augment or experiment.augment_zoom_only):
            augmentation = functools.partial(augment.augment_image, zoom_only=experiment.augment_zoom_only)
        return self.make_dataset(
            store,
            batch_size=experiment.batch_size,
            augment=augmentation,
            position=pipeline.Position(seed, first_step, training),
        )

    def predict(self, model: keras.Model, images: Iterable[np.ndarray]) -> tuple[np.ndarray | None, np.ndarray]:
        """Return what `decode` makes of the outputs for some images.

        Args:
            model: Images to logits ``(batch, num_classes)``.
            images: Prepared images ``(*spatial, channels)``, at least one; they are read one batch at a time.
        """
        # The loss says what the logits are: of a sigmoid each, or of one softmax.
        activate = keras.ops.sigmoid if self.experiment.loss == "binary_crossentropy" else keras.ops.softmax
        outputs = []
        for logits in inference.predict_in_batches(model.predict_on_batch, images, self.experiment.batch_size):
            outputs.append(keras.ops.convert_to_numpy(activate(keras.ops.cast(logits, "float32"))))
        return self.decode(np.concatenate(outputs))

    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, folder: Path) -> list[CaseScore]:
        """Score the test cases as one set, and keep what was predicted for each as ``predictions.csv``."""
        part = store.subset(cases)
        found = CasePredictions.of(part.cases, *self.predict(model, (part.image(index) for index in range(len(part)))))
        found.write(RunFolder(folder).predictions, self.columns)
        return [CaseScore(WHOLE_SET, name, value) for name, value in self.evaluate(found).items()]

    def predictions(self, job: Path) -> CasePredictions:
        """Return what `score` kept in the folder of a job."""
        return CasePredictions.read(RunFolder(job).predictions, self.columns)
