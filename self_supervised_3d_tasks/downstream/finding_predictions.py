"""``predictions.csv`` of a job on findings: what the model said of each test case."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.run_folder import atomic_write

FILE_NAME = "predictions.csv"
_COLUMNS = ("case", "subject")


@dataclass(frozen=True)
class FindingPredictions:
    """Predictions of some cases, in one order.

    Attributes:
        findings: Names of the findings.
        names: Of the cases.
        subjects: Of the cases: those of one subject are not independent.
        truth: 0 or 1, ``(n, num_findings)``.
        probabilities: ``(n, num_findings)``, which do not sum to 1.
    """

    findings: list[str]
    names: list[str]
    subjects: list[str]
    truth: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Case], probabilities: np.ndarray, findings: Sequence[str]) -> FindingPredictions:
        """Return the predictions of labelled cases."""
        truth = np.array([case.label for case in cases])
        return cls(
            list(findings), [case.name for case in cases], [case.subject for case in cases], truth, probabilities
        )

    def write(self, path: Path) -> None:
        """Write a table: case, subject, then ``truth_<finding>`` of all findings, then ``probability_<finding>``."""
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_header(self.findings))
            columns = (self.names, self.subjects, self.truth, self.probabilities)
            for name, subject, truth, values in zip(*columns, strict=True):
                # All digits: rounded, different probabilities could become ties, and the areas other areas.
                writer.writerow([name, subject, *map(int, truth), *map(float, values)])

    @classmethod
    def read(cls, path: Path, findings: Sequence[str]) -> FindingPredictions:
        """Read what `write` wrote of these findings.

        Raises:
            UserError: The file is not such a table.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                header, *lines = list(csv.reader(file))
            if header != _header(findings):
                raise ValueError(f"its columns are {','.join(header)}")
            if any(len(line) != len(header) for line in lines):
                raise ValueError("a line is too short or too long")
            names, subjects, *columns = zip(*lines, strict=True)
            truth, probabilities = np.array(columns[: len(findings)], int), np.array(columns[len(findings) :], float)
            return cls(list(findings), list(names), list(subjects), truth.T, probabilities.T)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: expected the predictions of a job on {', '.join(findings)} ({error}); delete the job's "
                "scores.json and resume to score it again"
            ) from error


def _header(findings: Sequence[str]) -> list[str]:
    return [*_COLUMNS, *(f"{kind}_{finding}" for kind in ("truth", "probability") for finding in findings)]
