"""``predictions.csv`` of a job on whole scans: what the model said of each test case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import read_table, write_table


@dataclass(frozen=True)
class Columns:
    """What the outputs of a network stand for, and what tables call them.

    Attributes:
        outputs: Names of the classes, or of the findings.
        exclusive: A case is of one class; else it has any number of findings.
    """

    outputs: tuple[str, ...]
    exclusive: bool

    @property
    def labels(self) -> list[str]:
        """Columns of whole numbers: the true and the predicted class, or 0 or 1 for each finding."""
        return ["truth", "prediction"] if self.exclusive else [f"truth_{output}" for output in self.outputs]

    @property
    def probabilities(self) -> list[str]:
        """Columns of probabilities, one per output."""
        return [f"probability_{output}" for output in self.outputs]

    @property
    def header(self) -> list[str]:
        """All columns of ``predictions.csv``."""
        return ["case", "subject", *self.labels, *self.probabilities]


@dataclass(frozen=True)
class CasePredictions:
    """Predictions of some cases, in one order.

    Attributes:
        names: Of the cases.
        subjects: Of the cases: those of one subject are not independent.
        truth: Classes ``(n,)``; of findings 0 or 1, ``(n, num_findings)``.
        prediction: Predicted classes ``(n,)``; None of findings.
        probabilities: ``(n, num_classes)``; of findings ``(n, num_findings)``, which do not sum to 1.
    """

    names: list[str]
    subjects: list[str]
    truth: np.ndarray
    prediction: np.ndarray | None
    probabilities: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Case], prediction: np.ndarray | None, probabilities: np.ndarray) -> CasePredictions:
        """Return the predictions of labelled cases."""
        truth = np.array([case.label for case in cases])
        return cls([case.name for case in cases], [case.subject for case in cases], truth, prediction, probabilities)

    def write(self, path: Path, columns: Columns) -> None:
        """Write a table: case, subject, then the labels, then the probabilities."""
        labels = self.truth if self.prediction is None else np.stack([self.truth, self.prediction], axis=1)
        cases = zip(self.names, self.subjects, labels, self.probabilities, strict=True)
        # All digits: rounded, different probabilities could become ties, and the scores other scores.
        rows = ([name, subject, *map(int, whole), *map(float, values)] for name, subject, whole, values in cases)
        write_table(path, columns.header, rows)

    @classmethod
    def read(cls, path: Path, columns: Columns) -> CasePredictions:
        """Read what `write` wrote of these columns.

        Raises:
            UserError: The file is not such a table.
        """
        remedy = (
            f"these are not the predictions of a job on the {'classes' if columns.exclusive else 'findings'} "
            f"{', '.join(columns.outputs)}: delete the job's scores.json and resume to score it again"
        )
        lines = read_table(path, columns.header, remedy)
        try:
            names, subjects, *cells = zip(*lines, strict=True)
            labels = np.array(cells[: len(columns.labels)], int)
            probabilities = np.array(cells[len(columns.labels) :], float).T
        except ValueError as error:
            raise UserError(f"{path}: expected rows of numbers, received other values ({error}); {remedy}") from error
        truth, prediction = labels if columns.exclusive else (labels.T, None)
        return cls(list(names), list(subjects), truth, prediction, probabilities)
