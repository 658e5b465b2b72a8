"""Finetuning on any number of findings per scan: a sigmoid each."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.labels.findings import as_text
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.downstream.predictions import CasePredictions, Columns
from self_supervised_3d_tasks.downstream.whole_scans import WholeScanTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import findings as finding_scores
from self_supervised_3d_tasks.scores import metrics


@dataclass(frozen=True)
class FindingsTask(WholeScanTask):
    """See `WholeScanTask`."""

    ANSWER: ClassVar[str] = "findings of whole scans"

    @property
    def findings(self) -> list[str]:
        """Names of the outputs."""
        return self.experiment.class_names

    @property
    def columns(self) -> Columns:
        """One output per finding."""
        return Columns(tuple(self.findings), exclusive=False)

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
                "%s: no scan has %s; nothing is learned of it.", self.experiment.csv_file, " or ".join(missing)
            )

    def check_splits(self, named: Mapping[str, Split], store: VolumeStore) -> None:
        """Warn of the test sets in which some findings have no score, so that their mean is over fewer of them."""
        super().check_splits(named, store)
        usable, names = set(store.cases), defaultdict(list)
        for name, split in named.items():
            names[frozenset(usable.intersection(split.test))].append(name)
        lines = []
        for cases in names:
            scored = finding_scores.scored(np.array([case.label for case in cases]))
            if not scored.all():
                where = "; ".join(names[cases]) if len(names) > 1 else "every split"
                missing = ", ".join(np.array(self.findings)[~scored])
                lines.append(f"{where}: {missing}; {scored.sum()} of {len(scored)} findings are averaged")
        if lines:
            logging.warning(
                "findings that all or none of the test scans have get no AUROC, and %s leaves them out:\n  %s",
                finding_scores.MEAN,
                "\n  ".join(lines),
            )

    @property
    def make_dataset(self) -> Callable:
        """Whole scans and their findings."""
        return functools.partial(pipeline.findings_dataset, num_findings=self.experiment.num_classes)

    def decode(self, outputs: np.ndarray) -> tuple[None, np.ndarray]:
        """Return the probabilities ``(n, num_findings)``; no class is predicted."""
        return None, outputs

    def evaluate(self, found: CasePredictions) -> dict[str, float]:
        """Return the scores of `finding_scores.score`."""
        return finding_scores.score(self.experiment.scores, found.truth, found.probabilities, self.findings)

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
        found = self.predictions(job)
        return finding_scores.areas(found.truth, found.probabilities)
