"""New scans through a finetuned model: NIfTI in, NIfTI masks on the original grid out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks import inference, plots, training
from self_supervised_3d_tasks.config import FinetuneExperiment, load_experiment
from self_supervised_3d_tasks.data import layouts, readers
from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.errors import UserError, nearest

SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Predictor:
    """A finetuned model with the preprocessing that it was trained with."""

    name: str
    experiment: FinetuneExperiment
    model: Any

    @classmethod
    def load(cls, run: Path, *, job: str | None = None, overlap: float | None = None) -> Predictor:
        """Load a model of a finetuning run.

        Args:
            run: Run folder of ``finetune.py``.
            job: Folder name under ``jobs/``. Default: among the jobs with most labels the one with the lowest
                validation loss.
            overlap: Overlap of the sliding windows; default: the run's.

        Raises:
            UserError: Not the run folder of a finetuning, no such finished job, or a damaged model file.
        """
        if not (run / "jobs").is_dir():
            raise UserError(f"{run}: not the run folder of a finetuning; give the folder that finetune.py printed")
        overrides = [] if overlap is None else [f"overlap={overlap}"]
        experiment = load_experiment("finetune", run / "config.json", overrides)
        name = job or _best_job(run)
        if not (run / "jobs" / name / "model.keras").exists():
            finished = sorted(path.parent.name for path in run.glob("jobs/*/model.keras"))
            raise UserError(f"--job: {run / 'jobs' / name} holds no model.keras.{nearest(name, finished)}")
        return cls(name, experiment, training.load_model(run / "jobs" / name / "model.keras"))

    def predict_path(self, source: Path, target: Path, *, overlay: bool = False) -> Iterator[Path]:
        """Predict a scan into a file, or every scan of a folder into a folder.

        Args:
            source: NIfTI file, or a folder of them.
            target: File name (``.nii`` or ``.nii.gz``) or folder for a file; folder for a folder.
            overlay: Also write ``<name>.png``, the mask drawn on the scan.

        Yields:
            The path of each mask, once it is complete.

        Raises:
            UserError: An input cannot be read, or an output exists already.
        """
        jobs = self._outputs(source, target)
        existing = [str(path) for _, path in jobs if path.exists()]
        if existing:
            raise UserError(f"{existing[0]}: exists already; move it away or choose another OUTPUT")
        preprocessing = Preprocessing(**self.experiment.preprocessing_options())
        predict = inference.predictor(self.model)
        for case, path in jobs:
            volume = readers.read_channels(case.images, self.experiment.rank)
            mask = inference.predict_case(
                predict,
                volume,
                preprocessing,
                num_classes=self.experiment.num_classes,
                overlap=self.experiment.overlap,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            readers.write_mask(path, mask, reference=volume.path)
            if overlay:
                picture = path.with_name(_stem(path) + ".png")
                plots.overlay(
                    picture,
                    volume.array,
                    mask,
                    title=case.name,
                    spacing=volume.spacing,
                    names=self.experiment.label_names,
                )
            yield path

    def _outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        if source.is_dir():
            cases = layouts.find_cases(
                "nifti", source, labelled=False, channel_suffixes=self.experiment.channel_suffixes
            )
            return [(case, target / f"{case.name}.nii.gz") for case in cases]
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if not source.name.endswith(SUFFIXES):
            raise UserError(f"{source}: expected a NIfTI file (.nii or .nii.gz)")
        case = Case(name=_stem(source), image=source, mask=None, subject=_stem(source))
        named = target.name.endswith(SUFFIXES) and not target.is_dir()
        return [(case, target if named else target / f"{_stem(source)}.nii.gz")]


def _best_job(run: Path) -> str:
    """Return the job with most labels and, among those, the lowest validation loss."""
    jobs = []
    for path in run.glob("jobs/*/scores.json"):
        percent = float(path.parent.name.split("_")[0])
        jobs.append((-percent, json.loads(path.read_text())["best_val_loss"], path.parent.name))
    if not jobs:
        raise UserError(f"{run}: no job has finished; run finetune.py with --resume")
    return min(jobs)[2]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
