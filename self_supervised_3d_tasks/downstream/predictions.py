"""The tables of predictions of whole scans: ``predictions.csv`` of a job, and what ``predict.py`` writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import read_table, write_table


@dataclass(frozen=True)
class Columns:
    """What tables call the answers of a network, which has one probability per output.

    Attributes:
        kind: What the outputs are, for messages: "classes" or "findings".
        outputs: Names of the outputs.
        labels: Columns of whole numbers in ``predictions.csv``: what is true, and what is predicted if that is not
            read off the probabilities.
        answers: Columns of ``predict.py``'s table between the image and the probabilities.
    """

    kind: str
    outputs: Sequence[str]
    labels: Sequence[str]
    answers: Sequence[str] = ()

    @property
    def probabilities(self) -> list[str]:
        """Columns of probabilities."""
        return [f"probability_{output}" for output in self.outputs]

    @property
    def of_images(self) -> list[str]:
        """All columns of ``predict.py``'s table."""
        return ["image", *self.answers, *self.probabilities]

    @property
    def of_cases(self) -> list[str]:
        """All columns of ``predictions.csv``."""
        return ["case", "subject", *self.labels, *self.probabilities]


def write_predictions(
    path: Path, columns: Columns, cases: Sequence[tuple[str, str]], labels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Write ``predictions.csv``.

    Args:
        path: File to write.
        columns: What it calls its columns.
        cases: Name and subject of each case: those of one subject are not independent.
        labels: Whole numbers ``(n, len(columns.labels))``.
        probabilities: ``(n, num_outputs)``, written with all digits: rounded, different ones could become ties, and the
            scores other scores.
    """
    lines = zip(cases, labels, probabilities, strict=True)
    rows = ([*case, *map(int, whole), *map(float, values)] for case, whole, values in lines)
    write_table(path, columns.of_cases, rows)


def read_predictions(path: Path, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the probabilities of what `write_predictions` wrote with these columns.

    Raises:
        UserError: The file is not such a table.
    """
    remedy = (
        f"these are not the predictions of a job on the {columns.kind} {', '.join(columns.outputs)}; finetune.py with "
        "--resume makes it again"
    )
    cells = [row[2:] for row in read_table(path, columns.of_cases, remedy)]
    count = len(columns.labels)
    try:
        labels = np.array([row[:count] for row in cells], int)
        probabilities = np.array([row[count:] for row in cells], float)
        if not len(labels):
            raise ValueError("there is no row")
    except ValueError as error:
        raise UserError(f"{path}: expected rows of numbers, received other values ({error}); {remedy}") from error
    return labels, probabilities
