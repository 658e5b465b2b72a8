"""Scans or photographs in, one CSV file out: a line per image with its class, or its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.downstream.base import CaseScore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.tables import read_table, write_table
from self_supervised_3d_tasks.prediction.base import Plan, Predictor
from self_supervised_3d_tasks.prediction.failures import Failures


class TablePredictor(Predictor):
    """A file, a folder or a part of an archive into one table."""

    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Write the table at once, when all images are predicted; ``resume`` adds what it does not have yet."""
        plan = self.plan(source, target, overlay=overlay, probabilities=probabilities, resume=resume)
        rows = list(self._new_rows([case for case, _ in plan.jobs], plan.failures))
        if rows:
            write_table(target, self.task.columns.of_images, [*self._rows(target), *rows])
        if target.exists():
            yield target
        plan.failures.tell()

    def plan(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Plan:
        """Return each image with the path of the table; with ``resume`` without those that the table has."""
        if overlay:
            raise UserError(f"--overlay: this model gives {self.task.ANSWER}, so that there is no mask to draw")
        if probabilities:
            raise UserError("--probabilities: the table has them in any case; leave it out")
        if target.is_dir() or target.suffix.lower() != ".csv":
            raise UserError(f"{target}: this model gives {self.task.ANSWER}; OUTPUT must be a file that ends in .csv")
        if target.exists() and not resume:
            raise UserError(f"{target}: exists already; choose another OUTPUT, or add to it with --resume")
        done = {row[0] for row in self._rows(target)}
        jobs = [(case, path) for case, path in self.outputs(source, target) if _line_name(case) not in done]
        return self.checked(jobs, source)

    def outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        """Return each image with the path of the table."""
        return [(case, target) for case in self.cases(source, target)]

    def scores(self, cases: Sequence[Case], source: Path, target: Path, failures: Failures) -> list[CaseScore]:
        """Score all lines together, as a test set."""
        columns = self.task.columns
        lines = {row[0]: row[1:] for row in self._rows(target)}
        scored = [case for case in cases if _line_name(case) in lines]
        if not scored:
            return []
        cells = [lines[_line_name(case)] for case in scored]
        count = len(columns.answers)
        try:
            probabilities = np.array([row[count:] for row in cells], float)
            prediction = np.array([row[: len(columns.labels) - 1 if count else 0] for row in cells], float).astype(int)
        except ValueError as error:
            raise UserError(f"{target}: expected rows of numbers, received other values ({error})") from error
        labels = np.column_stack([[case.label for case in scored], prediction])
        return self.task.set_scores(self.task.predictions_of(labels, probabilities))

    def _new_rows(self, cases: Sequence[Case], failures: Failures) -> Iterator[list[str]]:
        """Yield a line per image that can be read; images are read one batch at a time, and once for all models."""
        size = self.experiment.batch_size
        for batch in (cases[first : first + size] for first in range(0, len(cases), size)):
            read: list[Case] = []
            images: list[list[np.ndarray]] = [[] for _ in self.groups]
            for case in batch:
                with failures.of(case):
                    volume = formats.read_channels(case.images, self.experiment.rank)
                    prepared = [group.experiment.preprocessing.image(volume) for group in self.groups]
                    read.append(case)
                    for seen, image in zip(images, prepared, strict=True):
                        seen.append(image)
            if read:
                outputs = sum(
                    group.weight * self.task.activated(group.predict, seen)
                    for group, seen in zip(self.groups, images, strict=True)
                )
                prediction, probabilities = self.task.decode(outputs)
                rows = []
                for case, answer, values in zip(read, self.task.answers_of(prediction), probabilities, strict=True):
                    with failures.of(case):
                        self.check_numbers(values)
                        rows.append([_line_name(case), *answer, *(f"{value:.6g}" for value in values)])
                yield from rows

    def _rows(self, target: Path) -> list[list[str]]:
        """Return the lines of a table that was begun, none of one that was not."""
        return read_table(target, self.task.columns.of_images, "choose another OUTPUT") if target.exists() else []


def _line_name(case: Case) -> str:
    """Return what a table calls a scan: its file, or in an archive its part and number."""
    return case.name if archives.is_scan(case.image) else case.image.name
