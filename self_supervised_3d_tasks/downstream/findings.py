"""Finetuning on any number of findings per scan: a sigmoid each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots, scores
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.labels.findings import as_text
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.downstream.predictions import Columns
from self_supervised_3d_tasks.downstream.whole_scans import WholeScanTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.scores import findings as finding_scores
from self_supervised_3d_tasks.scores.base import Predictions


@dataclass(frozen=True)
class FindingsTask(WholeScanTask):
    """Any number of findings per scan, each a yes-or-no output of its own."""

    ANSWER: ClassVar[str] = "findings of whole scans"
    UNDEFINED: ClassVar[str] = (
        "finding of all or none of the test cases, which has no AUROC and does not count in mean_auroc"
    )
    loss_names: ClassVar[Sequence[str]] = ("binary_crossentropy",)

    @property
    def outputs(self) -> list[str]:
        """Names of the findings."""
        return self.experiment.class_names

    @property
    def columns(self) -> Columns:
        """One output per finding."""
        return Columns("findings", self.outputs, labels=[f"truth_{finding}" for finding in self.outputs])

    def curves(self) -> list[str]:
        """Return the scores that are named one by one; `plot` shows those of all findings together."""
        named = [name for name in self.experiment.scores if name != finding_scores.EACH]
        return list(scores.find("findings", named, self.outputs))

    def recorded_labels(self, cases: Sequence[Case]) -> dict[str, str]:
        """Return the findings of each case, as a table names them, by its name."""
        return {case.name: as_text(case.label, self.outputs) for case in cases}

    def check_cases(self, cases: Sequence[Case]) -> None:
        """Warn of findings that no scan has; raise `UserError` where that are all of them."""
        counts = np.sum([case.label for case in cases], axis=0)
        missing = [finding for finding, count in zip(self.outputs, counts, strict=True) if not count]
        if len(missing) == len(self.outputs):
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
                missing = ", ".join(np.array(self.outputs)[~scored])
                lines.append(f"{where}: {missing}; {scored.sum()} of {len(scored)} findings are averaged")
        if lines:
            logging.warning(
                "findings that all or none of the test scans have get no AUROC, and %s leaves them out:\n  %s",
                finding_scores.MEAN,
                "\n  ".join(lines),
            )

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return the findings ``(n, num_findings)`` float32: 1 where a scan has one, else 0."""
        return labels.astype(np.float32)

    def decode(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the findings that are likelier than not, 0 or 1, and their probabilities, ``(n, num_findings)``."""
        return (outputs > 0.5).astype(int), outputs

    def predictions_of(self, labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
        """Return the predictions of a ``predictions.csv``, whose labels are the true findings."""
        return Predictions(labels, *self.decode(probabilities))

    def plot(self, folder: Path, jobs: Mapping[tuple[float, str], Sequence[RunFolder]]) -> None:
        """Draw the area of every finding, one picture per label fraction."""
        unit = "folds" if self.experiment.do_cross_val else "repetitions"
        for percent in dict.fromkeys(percent for percent, _ in jobs):
            areas = {
                mode: np.array([finding_scores.areas(self.predictions(job)) for job in folders])
                for (fraction, mode), folders in jobs.items()
                if fraction == percent
            }
            plots.finding_areas(
                folder / f"findings_{percent:g}_percent.png",
                areas,
                self.outputs,
                title=f"{percent:g} % of the labels, mean and single {unit}",
            )
