"""Scores of what was predicted, where it is known what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from self_supervised_3d_tasks.data.cases import Case, Labels
from self_supervised_3d_tasks.data.labels.tables import Classes, LabelTable
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import number, write_table
from self_supervised_3d_tasks.prediction.base import Predictor, is_index
from self_supervised_3d_tasks.prediction.failures import Failures
from self_supervised_3d_tasks.scores.base import mean_of_defined


@dataclass(frozen=True)
class Scoring:
    """The scans of a folder with what is true of them, and where their scores go.

    Attributes:
        predictor: What predicts.
        source: The scans.
        target: The predictions.
        cases: The scans with their masks or labels.
        failures: Scans whose masks cannot be compared, once `write` has run.
    """

    predictor: Predictor
    source: Path
    target: Path
    cases: Sequence[Case]
    failures: Failures = field(default_factory=lambda: Failures(many=True, what="scored"))

    @classmethod
    def of(cls, predictor: Predictor, source: Path, target: Path, labels: Path, *, resume: bool = False) -> Scoring:
        """Return what is scored, before anything is predicted.

        Args:
            predictor: What predicts.
            source: Folder of scans, or part of an archive.
            target: Where the predictions go.
            labels: Folder of masks, or table of labels; of an archive its part, ``source``.
            resume: Replace scores of before.

        Raises:
            UserError: There is one scan alone, a mask or label is missing, or the file of scores exists already.
        """
        experiment = predictor.experiment
        if not predictor.is_many(source):
            raise UserError("--scores: scores are those of a folder of scans; give the folder as INPUT")
        archive, table = experiment.layout.labels == "archive", None
        if archive and labels != source:
            raise UserError(f"--scores: the labels of an archive lie in it; give {source} instead of {labels}")
        if is_index(source):
            if labels != source:
                raise UserError(f"--scores: the labels of an index stand in it; give {source} instead of {labels}")
            of_classes = Classes(experiment.num_classes, experiment.label_map)
            truth = Labels() if experiment.task == "segmentation" else Labels(classes=of_classes)
            return cls(predictor, source, target, predictor.cases(source, target, truth))._unwritten(resume)
        if experiment.task == "segmentation" and not labels.is_dir():
            raise UserError(f"--scores: {labels} is no folder; expected the folder of the masks of {source}")
        if experiment.task != "segmentation" and not archive:
            table = LabelTable(**experiment.model_copy(update={"csv_file": str(labels)}).label_table_options())
        classes = Classes(experiment.num_classes, experiment.label_map)
        found = predictor.cases(source, target, Labels(table, classes, labels))
        return cls(predictor, source, target, found)._unwritten(resume)

    def _unwritten(self, resume: bool) -> Scoring:
        """Return itself, unless its file is there already."""
        if self.path.exists() and not resume:
            raise UserError(f"{self.path}: exists already; choose another OUTPUT, or replace it with --resume")
        return self

    @property
    def path(self) -> Path:
        """``scores.csv`` in the folder of masks, or ``<name>_scores.csv`` beside the table ``<name>.csv``."""
        is_table = self.target.suffix.lower() == ".csv"
        return self.target.with_name(f"{self.target.stem}_scores.csv") if is_table else self.target / "scores.csv"

    def write(self) -> list[str]:
        """Write a row per case, or one of the whole set, and return the mean of each score as a line of text."""
        rows = self.predictor.scores(self.cases, self.source, self.target, self.failures)
        names = list(self.predictor.task.scores())
        values: dict[str, dict[str, float]] = {}
        for row in rows:
            values.setdefault(row.case, {})[row.metric] = row.value
        write_table(
            self.path,
            ["case", *names],
            ([case, *(number(scores[name]) for name in names)] for case, scores in values.items()),
        )
        is_per_case = self.predictor.experiment.task == "segmentation"
        of = f"{len(values)} of {len(self.cases)} scans" if is_per_case else "the set as a whole"
        return [f"{name} {mean_of_defined(scores[name] for scores in values.values()):.3f} ({of})" for name in names]
