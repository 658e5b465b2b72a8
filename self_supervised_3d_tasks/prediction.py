"""New scans through a finetuned model: masks on the grids of the scans, or a table of classes or findings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.formats import archives, npy
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.downstream.base import DownstreamTask
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment import build, pretrained
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.atomic import read_json
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.tables import read_table, write_table

_EVERY_FILE = "(.+)"  # is a subject of its own, which needs no warning: nothing is split here


@dataclass(frozen=True)
class Predictor(ABC):
    """A finetuned model with the preprocessing that it was trained with."""

    name: str
    experiment: FinetuneExperiment
    model: Any

    @staticmethod
    def load(run: Path, *, job: str | None = None, overrides: Sequence[str] = ()) -> Predictor:
        """Load a model of a finetuning run.

        Args:
            run: Run folder of ``finetune.py``.
            job: Folder name under ``jobs/``. Default: among the jobs with most labels the one with the lowest
                validation loss.
            overrides: ``key=value`` items for the run's experiment, for example ``overlap=0.25``.

        Raises:
            UserError: Not the run folder of a finetuning, no such finished job, or a damaged model file.
        """
        folder = RunFolder(run)
        if not folder.jobs.is_dir():
            raise UserError(f"{run}: not the run folder of a finetuning; give the folder that finetune.py printed")
        experiment = load_experiment("finetune", folder.config, overrides)
        pretrained.warn_of_preparation(experiment, str(run))
        name = job or _best_job(run)
        if not folder.job(name).model.exists():
            finished = sorted(path.parent.name for path in folder.jobs.glob(f"*/{RunFolder.model}"))
            raise UserError(f"--job: {folder.job(name).path} holds no {RunFolder.model}.{nearest(name, finished)}")
        model = load_model(folder.job(name).model)
        predictor = MaskPredictor if experiment.task == "segmentation" else TablePredictor
        return predictor(name, experiment, model)

    @property
    def task(self) -> DownstreamTask:
        """What the outputs of the model stand for."""
        return task_of(self.experiment)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that the model takes: those of the layout that it was trained on."""
        return self.experiment.layout.suffixes

    @abstractmethod
    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Predict a scan, or every scan of a folder; yield the path of each written file, once it is complete.

        Args:
            source: File, or a folder of them, or part of an archive.
            target: What to write.
            overlay: Also write pictures, for masks only.
            resume: Leave out scans that were predicted already.

        Raises:
            UserError: An input cannot be read, or an output exists already.
        """

    @abstractmethod
    def plan(self, source: Path, target: Path, *, resume: bool = False) -> list[tuple[Case, Path]]:
        """Return each scan with the file for its prediction; headers are checked, no voxel is read.

        Raises:
            UserError: A header cannot be read or does not fit the model, or an output exists already.
        """

    def _cases(self, source: Path) -> list[Case]:
        """Return the case of one file, or those of a folder or archive, without masks that lie beside their scans."""
        if source.is_dir() or self.experiment.layout.labels == "archive":
            return find_cases(
                self.experiment.dataset_name,
                source,
                suffixes=self.suffixes,
                label_stem=self.experiment.label_stem,
                subject_pattern=_EVERY_FILE,
                channel_suffixes=self.experiment.channel_suffixes,
            )
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if formats.suffix_of(source) not in self.suffixes:
            raise UserError(f"{source}: expected an image like those it was trained on ({', '.join(self.suffixes)})")
        return [Case(name=formats.stem_of(source), image=source, mask=None, subject=formats.stem_of(source))]


class MaskPredictor(Predictor):
    """Scans in, masks on the original grid out: a file into a file or folder, a folder into a folder.

    Each mask has the format of its scan, and that of a photograph is a PNG file.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of the layout; a model of arrays takes every volume format."""
        suffixes = super().suffixes
        return formats.volume_suffixes() if suffixes == npy.SUFFIXES else suffixes

    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Write one mask per scan, with ``overlay`` also a picture of it on the scan.

        The picture is ``<name>.png``, or ``<name>_overlay.png`` where the mask has that name.
        """
        jobs = self.plan(source, target, resume=resume)
        if overlay:
            self._check_pictures(source, target)
        self._say_what_masks_hold([case for case, _ in jobs])
        for case, path in jobs:
            volume = formats.read_channels(case.images, self.experiment.rank)
            mask = self.task.predict(self.model, volume)
            path.parent.mkdir(parents=True, exist_ok=True)
            formats.write_mask(path, mask, reference=volume.path)
            if overlay:
                self.task.draw(_picture(path), volume, mask, case.name)
            yield path

    def plan(self, source: Path, target: Path, *, resume: bool = False) -> list[tuple[Case, Path]]:
        """Return each scan with the path of its mask."""
        jobs = self._outputs(source, target)
        for case, path in jobs:
            if path.exists() and any(path.samefile(image) for image in case.images):
                raise UserError(f"{path}: is the scan itself; choose another OUTPUT for its mask")
        existing = [path for _, path in jobs if path.exists()]
        if existing and not resume:
            raise UserError(f"{existing[0]}: exists already; choose another OUTPUT, or go on behind it with --resume")
        jobs = [(case, path) for case, path in jobs if path not in existing]
        build.check_headers(self.experiment, [case for case, _ in jobs])
        return jobs

    def _check_pictures(self, source: Path, target: Path) -> None:
        masks = {path for _, path in self._outputs(source, target)}
        if taken := sorted({_picture(path) for path in masks} & masks):
            raise UserError(f"--overlay: {taken[0]} is a mask, so that no picture can have that name; rename its scan")

    def _say_what_masks_hold(self, cases: Sequence[Case]) -> None:
        headers = (formats.read_header(case.image, self.experiment.rank) for case in cases)
        if super().suffixes == npy.SUFFIXES and any(header.affine is not None for header in headers):
            logging.warning(
                "trained on .npy arrays, whose axes have no directions. A scan is turned to RAS axes before it is "
                "predicted: check that the arrays were stored in that order."
            )
        if self.experiment.label_map:
            logging.info(
                "masks hold classes, not the labels they were made from: label_map %s", self.experiment.label_map
            )

    def _outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        cases = self._cases(source)
        given = formats.suffix_of(target)
        if source.is_dir() or target.is_dir() or not given:
            return [(case, target / f"{case.name}{formats.of(case.image).MASK_SUFFIXES[0]}") for case in cases]
        (case,) = cases
        allowed = formats.of(case.image).MASK_SUFFIXES
        if given not in allowed:
            raise UserError(f"{target}: the mask of {case.image.name} is a {' or '.join(allowed)} file; change OUTPUT")
        return [(case, target)]


class TablePredictor(Predictor):
    """Scans or photographs in, one CSV file out: a line per image with its class, or its findings."""

    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Write the table at once, when all images are predicted; ``resume`` adds what it does not have yet."""
        if overlay:
            raise UserError(f"--overlay: this model gives {self.task.ANSWER}, so that there is no mask to draw")
        cases = [case for case, _ in self.plan(source, target, resume=resume)]
        if cases:
            volumes = (formats.read_channels(case.images, self.experiment.rank) for case in cases)
            images = map(self.experiment.preprocessing.image, volumes)
            prediction, probabilities = self.task.predict(self.model, images)
            lines = zip(map(_line_name, cases), self.task.answers_of(prediction), probabilities, strict=True)
            rows = [[name, *answer, *(f"{value:.6g}" for value in values)] for name, answer, values in lines]
            write_table(target, self.task.columns.of_images, [*self._rows(target), *rows])
        yield target

    def plan(self, source: Path, target: Path, *, resume: bool = False) -> list[tuple[Case, Path]]:
        """Return each image with the path of the table; with ``resume`` without those that the table has."""
        if target.is_dir() or target.suffix != ".csv":
            raise UserError(f"{target}: this model gives {self.task.ANSWER}; OUTPUT must be a file that ends in .csv")
        if target.exists() and not resume:
            raise UserError(f"{target}: exists already; choose another OUTPUT, or add to it with --resume")
        done = {row[0] for row in self._rows(target)}
        cases = [case for case in self._cases(source) if _line_name(case) not in done]
        build.check_headers(self.experiment, cases)
        return [(case, target) for case in cases]

    def _rows(self, target: Path) -> list[list[str]]:
        """Return the lines of a table that was begun, none of one that was not."""
        return read_table(target, self.task.columns.of_images, "choose another OUTPUT") if target.exists() else []


def _line_name(case: Case) -> str:
    """Return what a table calls a scan: its file, or in an archive its part and number."""
    return case.name if archives.is_scan(case.image) else case.image.name


def _picture(mask: Path) -> Path:
    """Return where a mask is drawn on its scan."""
    ending = "_overlay.png" if formats.suffix_of(mask) == ".png" else ".png"
    return mask.with_name(f"{formats.stem_of(mask)}{ending}")


def _best_job(run: Path) -> str:
    """Return the job with most labels and, among those, the lowest validation loss."""
    jobs = []
    for path in RunFolder(run).jobs.glob(f"*/{RunFolder.scores}"):
        percent = float(path.parent.name.split("_")[0])
        jobs.append((-percent, read_json(path)["best_val_loss"], path.parent.name))
    if not jobs:
        raise UserError(f"{run}: no job has finished; run finetune.py with --resume")
    return min(jobs)[2]
