"""What predicting masks and predicting tables have in common."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case, Labels, find_cases
from self_supervised_3d_tasks.data.folders import index
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.prediction.failures import Failures
from self_supervised_3d_tasks.prediction.members import Group, Member, grouped

_EVERY_FILE = "(.+)"  # is a subject of its own, which needs no warning: nothing is split here


@dataclass(frozen=True)
class Plan:
    """What will be predicted.

    Attributes:
        jobs: Each scan with the file for its prediction.
        failures: Scans whose headers do not fit, to which those are added that fail later.
    """

    jobs: list[tuple[Case, Path]]
    failures: Failures


@dataclass(frozen=True)
class Predictor(ABC):
    """Finetuned models, each with the preprocessing that it was trained with, whose probabilities are averaged.

    Attributes:
        members: The models; the keys of the first one say what files scans are.
        mirror: Axes over whose flips every model is averaged.
    """

    members: Sequence[Member]
    mirror: Sequence[int] = ()

    @property
    def experiment(self) -> FinetuneExperiment:
        """Keys of the first model."""
        return self.members[0].experiment

    @property
    def task(self) -> DownstreamTask:
        """What the outputs of the models stand for."""
        return task_of(self.experiment)

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The models that see a scan in the same way."""
        return grouped(self.members, self.mirror)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that the models take: of every volume format, or those of the layout of photographs."""
        own, volumes = self.experiment.layout.suffixes, formats.volume_suffixes()
        return volumes if self.experiment.rank == 3 or set(own) <= set(volumes) else own

    def describe(self) -> str:
        """Return one line that says which models predict, and why."""
        of_runs: dict[Path, list[Member]] = {}
        for member in self.members:
            of_runs.setdefault(member.run, []).append(member)
        texts = [f"{', '.join(each.name for each in group)} ({group[0].reason})" for group in of_runs.values()]
        if len(of_runs) > 1:
            texts = [f"{run.name}: {text}" for run, text in zip(of_runs, texts, strict=True)]
        return f"model{'s' * (len(self.members) > 1)}: {'; '.join(texts)}"

    @abstractmethod
    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Predict a scan, or every scan of a folder; yield the path of each written file, once it is complete.

        Args:
            source: File, or a folder of them, or part of an archive.
            target: What to write.
            overlay: Also write pictures, for masks only.
            probabilities: Also write the probabilities of all classes, for masks only.
            resume: Leave out scans of which everything that is asked for exists.

        Raises:
            UserError: The only input cannot be read or does not fit, or an output exists already.
            ScansFailed: Some scans of several; the others are written.
        """

    @abstractmethod
    def outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        """Return each scan with the file for its prediction, whether that exists or not."""

    @abstractmethod
    def plan(
        self, source: Path, target: Path, *, overlay: bool = False, probabilities: bool = False, resume: bool = False
    ) -> Plan:
        """Return what will be predicted; headers are checked, no voxel is read.

        Args:
            source: As for `predict_path`.
            target: What will be written.
            overlay: Pictures too.
            probabilities: Files of probabilities too.
            resume: Leave out scans of which everything that is asked for exists.

        Raises:
            UserError: The only header cannot be read or does not fit the models, or an output exists already.
        """

    @abstractmethod
    def scores(self, cases: Sequence[Case], source: Path, target: Path, failures: Failures) -> list[CaseScore]:
        """Return the scores of what was predicted for some scans; those without a prediction are left out.

        Args:
            cases: Scans of ``source`` with what is true of them.
            source: What was predicted.
            target: Where the predictions are.
            failures: Takes up the scans whose masks cannot be compared.
        """

    def place(self, source: Path, target: Path) -> Path:
        """Return the folder in which everything is written."""
        return target.parent

    def is_many(self, source: Path) -> bool:
        """Return whether an input is a folder of scans, an index, or part of an archive; a series of slices is not."""
        if source.is_dir():
            return formats.scans_in(source) != [source]
        return is_index(source) or self.experiment.layout.labels == "archive"

    def cases(self, source: Path, target: Path, labels: Labels | None = None) -> list[Case]:
        """Return the case of one scan, or those of a folder, index or archive, without masks beside their scans.

        Args:
            source: The input.
            target: The output, which may lie in the input of before.
            labels: What every case of several must have.
        """
        experiment = self.experiment
        if is_index(source):
            return find_cases("index", source, labels, channel_columns=experiment.channel_columns)
        if self.is_many(source):
            if experiment.channel_columns and len(experiment.channel_columns) > 1:
                raise UserError(
                    f"{source}: the model takes the channels {', '.join(experiment.channel_columns)} as an index names "
                    f"them; make one, and give it as INPUT: python prepare.py index {source} --output index.csv"
                )
            return find_cases(
                experiment.dataset_name,
                source,
                labels,
                suffixes=None if experiment.layout.labels == "archive" else self.suffixes,
                label_stem=experiment.label_stem,
                subject_pattern=_EVERY_FILE,
                channel_suffixes=experiment.channel_suffixes,
                predictions=target,
            )
        if formats.is_series(source):
            return [Case(name=source.name, image=source, mask=None, subject=source.name)]
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if formats.suffix_of(source) not in self.suffixes:
            raise UserError(f"{source}: expected an image like those it was trained on ({', '.join(self.suffixes)})")
        return [Case(name=formats.stem_of(source), image=source, mask=None, subject=formats.stem_of(source))]

    def check_numbers(self, probabilities: np.ndarray) -> None:
        """Raise `UserError` where a probability is none, which the likeliest class would hide."""
        if not np.isfinite(probabilities).all():
            models = ", ".join(str(member.path) for member in self.members)
            raise UserError(
                f"{models}: gives NaN instead of probabilities, because a number on the way became too large; check "
                "the values of the scan, or predict with another job (--job)"
            )

    def checked(self, jobs: Iterable[tuple[Case, Path]], source: Path) -> Plan:
        """Return the plan of those jobs whose headers fit every model."""
        fitting, failures = [], Failures(self.is_many(source))
        for case, path in jobs:
            with failures.of(case):
                for group in self.groups:
                    build.check_headers(group.experiment, [case])
                fitting.append((case, path))
        return Plan(fitting, failures)


def is_index(source: Path) -> bool:
    """Return whether an input is a CSV file with a row per scan."""
    return source.suffix.lower() == index.SUFFIX and source.is_file()
