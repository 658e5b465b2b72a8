"""``predictions.csv`` of a classification job: what the model said of each test case."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.run_folder import atomic_write

COLUMNS = ("case", "subject", "truth", "prediction")
FILE_NAME = "predictions.csv"


@dataclass(frozen=True)
class CasePredictions:
    """Predictions of some cases, in one order.

    Attributes:
        names: Of the cases.
        subjects: Of the cases: those of one subject are not independent.
        truth: Classes ``(n,)``.
        prediction: Predicted classes ``(n,)``.
        probabilities: ``(n, num_classes)``.
    """

    names: list[str]
    subjects: list[str]
    truth: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Case], prediction: np.ndarray, probabilities: np.ndarray) -> CasePredictions:
        """Return the predictions of labelled cases."""
        truth = np.array([case.label for case in cases])
        return cls([case.name for case in cases], [case.subject for case in cases], truth, prediction, probabilities)

    def write(self, path: Path) -> None:
        """Write a table: case, subject, truth, prediction and one column ``probability_<class>`` per class."""
        classes = [f"probability_{label}" for label in range(self.probabilities.shape[-1])]
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*COLUMNS, *classes])
            columns = (self.names, self.subjects, self.truth, self.prediction, self.probabilities)
            for name, subject, truth, prediction, values in zip(*columns, strict=True):
                # All digits: rounded, different probabilities could become ties, and the scores other scores.
                writer.writerow([name, subject, truth, prediction, *map(float, values)])

    @classmethod
    def read(cls, path: Path) -> CasePredictions:
        """Read what `write` wrote.

        Raises:
            UserError: The file is not such a table.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                header, *lines = list(csv.reader(file))
            if tuple(header[:4]) != COLUMNS:
                raise ValueError(f"its columns are {','.join(header)}")
            names, subjects, truth, prediction, *probabilities = zip(*lines, strict=True)
            return cls(
                list(names),
                list(subjects),
                np.array(truth, int),
                np.array(prediction, int),
                np.array(probabilities, float).T,
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: expected the predictions of a classification job ({error}); delete the job's scores.json and "
                "resume to score it again"
            ) from error
