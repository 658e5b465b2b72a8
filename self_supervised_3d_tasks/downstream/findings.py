"""Finetuning on any number of findings per scan: a sigmoid each, scored on all test cases of a job together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks import finding_scores, metrics, plots
from self_supervised_3d_tasks.data import pipeline
from self_supervised_3d_tasks.data.finding_tables import as_text
from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store import VolumeStore
from self_supervised_3d_tasks.downstream import whole_scans
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.downstream.finding_predictions import FILE_NAME, FindingPredictions
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.results import WHOLE_SET

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FindingsTask(DownstreamTask):
    """See `DownstreamTask`. Test cases are stored: with cross-validation they train other jobs."""

    @property
    def mask_classes(self) -> None:
        """No masks are read."""
        return None

    @property
    def findings(self) -> list[str]:
        """Names of the outputs."""
        return self.experiment.class_names

    def metrics(self) -> list[Callable]:
        """Return the metrics of `metrics.get_for_findings`."""
        return [metric for name in self.experiment.metrics for metric in metrics.get_for_findings(name)]

    def scores(self) -> list[str]:
        """Return the scores of `finding_scores.expand`."""
        return finding_scores.expand(self.experiment.scores, self.findings)

    def curves(self) -> list[str]:
        """Return the scores that are named one by one; `plot` shows those of all findings together."""
        named = [name for name in self.experiment.scores if name != finding_scores.EACH]
        return finding_scores.expand(named, self.findings)

    @property
    def loss_names(self) -> Sequence[str]:
        """The loss of independent outputs."""
        return ("binary_crossentropy",)

    def recorded_label(self, case: Case) -> str:
        """Return the findings of a case as a table names them."""
        return as_text(case.label, self.findings)

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training, validation and test cases: each is decoded once, whatever its part in each fold."""
        return [*split.train, *split.validation, *split.test]

    def check_cases(self, cases: Sequence[Case]) -> None:
        """Warn of findings that no scan has; raise `UserError` where that are all of them."""
        counts = np.sum([case.label for case in cases], axis=0)
        missing = [finding for finding, count in zip(self.findings, counts, strict=True) if not count]
        if len(missing) == len(self.findings):
            raise UserError(
                f"csv_file, label_column: {self.experiment.csv_file} has no finding for any of the {len(cases)} scans, "
                "expected some. Check label_column and the scans in the folder."
            )
        if missing:
            logging.warning(
                "%s: no scan has %s; nothing is learned of it, and its score stays empty.",
                self.experiment.csv_file,
                " or ".join(missing),
            )

    def dataset(self, store: VolumeStore, *, seed: int, first_step: int, training: bool) -> Any:
        """Return batches of whole scans and their findings."""
        return pipeline.findings_dataset(
            store,
            batch_size=self.experiment.batch_size,
            num_findings=self.experiment.num_classes,
            augment=whole_scans.augmentation(self.experiment, training=training),
            seed=seed,
            first_step=first_step,
            training=training,
        )

    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, folder: Path) -> list[CaseScore]:
        """Score the test cases as one set, and keep what was predicted for each as ``predictions.csv``."""
        part = store.subset(cases)
        images = (part.image(index) for index in range(len(part)))
        probabilities = whole_scans.outputs(model, images, self.experiment)
        found = FindingPredictions.of(part.cases, probabilities, self.findings)
        found.write(folder / FILE_NAME)
        values = finding_scores.score(self.experiment.scores, found.truth, found.probabilities, self.findings)
        return [CaseScore(WHOLE_SET, name, value) for name, value in values.items()]

    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[Path]]) -> None:
        """Draw the area of every finding, one picture per label fraction."""
        unit = "folds" if self.experiment.do_cross_val else "repetitions"
        for percent in dict.fromkeys(percent for percent, _ in jobs):
            areas = {
                mode: np.array([self._areas(job) for job in folders])
                for (fraction, mode), folders in jobs.items()
                if fraction == percent
            }
            plots.finding_areas(
                folder / f"findings_{percent:g}_percent.png",
                areas,
                self.findings,
                title=f"{percent:g} % of the labels, mean and single {unit}",
            )

    def _areas(self, job: Path) -> np.ndarray:
        found = FindingPredictions.read(job / FILE_NAME, self.findings)
        return finding_scores.areas(found.truth, found.probabilities)
