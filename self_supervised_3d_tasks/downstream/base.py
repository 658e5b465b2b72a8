"""What a downstream task brings to the sweep: its examples, its metrics and the scoring of its test cases.

The trainer, the modes, the splits and the tables are the same for all of them: see `finetuning` and `evaluation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.lazy import keras


class CaseScore(NamedTuple):
    """One score of one test case, or of the whole test set (`results.WHOLE_SET`)."""

    case: str
    metric: str
    value: float


@dataclass(frozen=True)
class DownstreamTask(ABC):
    """A kind of label: what finetuning does differently for it.

    Attributes:
        experiment: The sweep's settings.
    """

    experiment: FinetuneExperiment

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to every scan."""
        return Preprocessing(**self.experiment.preprocessing_options())

    @property
    @abstractmethod
    def mask_classes(self) -> int | None:
        """Classes of the masks that are read with the scans, None without masks."""

    def check(self) -> None:
        """Raise `UserError` for a key that does not fit the task; loads no Keras and reads no file."""
        self.loss()
        self.metrics()
        self.scores()

    def loss(self) -> Callable:
        """Return the loss, ``(y_true, y_pred) -> (batch,)``; `UserError` for an unknown name."""
        experiment = self.experiment
        return losses.get(
            experiment.loss,
            class_weights=experiment.class_weights,
            choices=self.loss_names,
        )

    @property
    def loss_names(self) -> Sequence[str]:
        """Losses that the task can be trained with."""
        return tuple(losses.LOSSES)

    @abstractmethod
    def metrics(self) -> list[Callable]:
        """Return the metrics that are logged while training; `UserError` for an unknown name."""

    @abstractmethod
    def scores(self) -> list[str]:
        """Return the names of the scores, in the order of the tables; `UserError` for an unknown name."""

    def curves(self) -> list[str]:
        """Return the scores that are drawn over the label fractions."""
        return self.scores()

    def training_cases(self, split: Split) -> list[Case]:
        """Return the cases of an epoch; one that stands there twice is seen twice."""
        return split.train

    def recorded_label(self, case: Case) -> int | str | None:
        """Return the label of a case as the split of a run records it, None where it is a mask."""
        return case.label

    @abstractmethod
    def stored_cases(self, split: Split) -> list[Case]:
        """Return the cases that a job reads from the store."""

    @abstractmethod
    def check_cases(self, cases: Sequence[Case]) -> None:
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

    @abstractmethod
    def dataset(self, store: VolumeStore, *, seed: int, first_step: int, training: bool) -> Any:
        """Return a ``tf.data.Dataset`` of batches ``(image, label)``, see `pipeline`."""

    @abstractmethod
    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, folder: Path) -> list[CaseScore]:
        """Score a trained model on its test cases.

        Args:
            model: Gives logits.
            cases: Test cases.
            store: Holds the `stored_cases` of all jobs.
            folder: The job's folder, for pictures and predictions.
        """

    @abstractmethod
    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[Path]]) -> None:
        """Draw what the task shows of a finished sweep beside its scores.

        Args:
            folder: Where the pictures go.
            jobs: Per label fraction and mode the folders of its finished jobs.
        """
