"""What a downstream task brings to the sweep: its examples, its metrics and the scoring of its test cases.

The trainer, the modes, the splits and the tables are the same for all of them: see the folder `finetuning`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from self_supervised_3d_tasks import inference, losses, scores
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.data.stream.source import Position
from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.scores import logged
from self_supervised_3d_tasks.scores.base import Score


class CaseScore(NamedTuple):
    """One score of one test case, or of the whole test set (`scores.statistics.WHOLE_SET`)."""

    case: str
    metric: str
    value: float


@dataclass(frozen=True)
class DownstreamTask(ABC):
    """A kind of label: what finetuning does differently for it.

    Attributes:
        experiment: The sweep's settings.
        UNDEFINED: Why a score can be missing, for the note below the tables.
        loss_names: Names of the losses that the task can be trained with.
    """

    experiment: FinetuneExperiment
    UNDEFINED: ClassVar[str]
    loss_names: ClassVar[Sequence[str]] = tuple(losses.LOSSES)

    @property
    def outputs(self) -> list[str]:
        """Names of the network's outputs: the classes by number."""
        return list(map(str, range(self.experiment.num_classes)))

    def check(self) -> None:
        """Raise `UserError` for a key that does not fit the task; loads no Keras and reads no file."""
        self.loss()
        self.metrics()
        self.scores()

    def loss(self) -> Callable:
        """Return the loss, ``(y_true, y_pred) -> (batch,)``; `UserError` for an unknown name."""
        return losses.get(self.experiment.loss, class_weights=self.experiment.class_weights, choices=self.loss_names)

    def metrics(self) -> list[logged.Metric]:
        """Return the metrics that are logged while training; `UserError` for an unknown name."""
        experiment = self.experiment
        return logged.find(experiment.task, experiment.metrics, self.outputs, multilabel=experiment.multilabel)

    def scores(self) -> dict[str, Score]:
        """Return the scores by name, in the order of the tables; `UserError` for an unknown name."""
        return scores.find(self.experiment.task, self.experiment.scores, self.outputs)

    def curves(self) -> list[str]:
        """Return the names of the scores that are drawn over the label fractions."""
        return list(self.scores())

    def training_cases(self, split: Split) -> list[Case]:
        """Return the cases of an epoch; one that stands there twice is seen twice."""
        return split.train

    @abstractmethod
    def stored_cases(self, split: Split) -> list[Case]:
        """Return the cases that a job reads from the store."""

    def check_header(self, case: Case) -> Header:
        """Return the header of a scan; `UserError` if it does not fit. No voxel is read."""
        return check_case(case, self.experiment.preprocessing, num_classes=None)

    def read(self, cases: Sequence[Case]) -> VolumeStore:
        """Read and prepare the scans of a sweep."""
        return build.make_store(self.experiment, cases)

    def recorded_labels(self, cases: Sequence[Case]) -> dict[str, int | str]:
        """Return the label of each case by its name, as the split of a run records it; nothing of masks."""
        return {}

    def prospects(self, cases: Sequence[Case]) -> list[str]:
        """Return what limits the scores before anything is trained, a line each; may read some of the cases."""
        return []

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """Return what a reader of the tables must know of the test cases, a line each."""
        return []

    def classes_in(self, store: VolumeStore) -> dict[Case, set[int]]:
        """Return the classes of each case that only its voxels tell; nothing where a table has them."""
        return {}

    def check_cases(self, cases: Sequence[Case]) -> None:  # noqa: B027 (nothing is known of masks before they are read)
        """Raise `UserError` for labelled cases that nothing can be learned from; reads no voxel."""

    def check_splits(self, named: Mapping[str, Split], store: VolumeStore) -> None:
        """Raise `UserError` for a split that cannot be trained or scored: before hours of training, not after.

        Args:
            named: The splits of all jobs.
            store: Holds their `stored_cases`, without those that cannot be used.
        """
        usable = set(store.cases)
        for name, split in named.items():
            stored = set(self.stored_cases(split))
            for part in ("train", "validation", "test"):
                cases = stored.intersection(getattr(split, part))
                if cases and not cases & usable:
                    raise UserError(
                        f"{name}: none of its {len(cases)} {part} scans can be used, see the warnings above. Repair "
                        "them, or remove them, so that the others are split anew."
                    )

    def test_content(self, cases: Sequence[Case], store: VolumeStore) -> dict[Case, list[str]]:
        """Return a hash of each channel of the test cases that can be used, see `data.content`.

        Args:
            cases: Test cases.
            store: Holds the `stored_cases` of all jobs.
        """
        part = store.subset(cases)
        return {case: part.content(index) for index, case in enumerate(part.cases)}

    @abstractmethod
    def dataset(self, store: VolumeStore, position: Position) -> Any:
        """Return a ``tf.data.Dataset`` of batches ``(image, label)``; images are ``(batch, *spatial, channels)``."""

    @abstractmethod
    def predictor(self, model: keras.Model) -> inference.Predict:
        """Return the function from a batch of prepared images to probabilities, given a model of logits."""

    @abstractmethod
    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, job: RunFolder) -> list[CaseScore]:
        """Score a trained model on its test cases.

        Args:
            model: It gives logits.
            cases: Test cases.
            store: Holds the `stored_cases` of all jobs.
            job: The job's folder, for pictures and predictions.
        """

    def check_job(self, job: RunFolder) -> None:  # noqa: B027 (masks leave nothing behind that is read again)
        """Raise `UserError` where what `score` kept in the folder of a job cannot be read again."""

    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[RunFolder]]) -> None:  # noqa: B027
        """Draw what the task shows of a finished sweep beside its scores.

        Args:
            folder: Where the pictures go.
            jobs: Per label fraction and mode the folders of its finished jobs.
        """
