"""New scans through a finetuned model: NIfTI in, NIfTI masks on the original grid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from self_supervised_3d_tasks import inference, plots, registry, training
from self_supervised_3d_tasks.config import load_experiment
from self_supervised_3d_tasks.data import layouts, readers
from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import check_case
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.experiment import FinetuneExperiment
from self_supervised_3d_tasks.run_folder import read_json

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Predictor:
    """A finetuned model with the preprocessing that it was trained with."""

    name: str
    experiment: FinetuneExperiment
    model: Any

    @classmethod
    def load(cls, run: Path, *, job: str | None = None, overrides: Sequence[str] = ()) -> Predictor:
        """Load a model of a finetuning run.

        Args:
            run: Run folder of ``finetune.py``.
            job: Folder name under ``jobs/``. Default: among the jobs with most labels the one with the lowest
                validation loss.
            overrides: ``key=value`` items for the run's experiment, for example ``overlap=0.25``.

        Raises:
            UserError: Not the run folder of a finetuning, no such finished job, or a damaged model file.
        """
        if not (run / "jobs").is_dir():
            raise UserError(f"{run}: not the run folder of a finetuning; give the folder that finetune.py printed")
        experiment = load_experiment("finetune", run / "config.json", overrides)
        if registry.layouts()[experiment.dataset_name].suffixes == (".npy",):
            logging.warning(
                "%s: trained on .npy arrays, whose axes have no directions. A scan is turned to RAS axes before it is "
                "predicted: check that the arrays were stored in that order.",
                run,
            )
        if experiment.label_map:
            logging.info("masks hold classes, not the labels they were made from: label_map %s", experiment.label_map)
        name = job or _best_job(run)
        if not (run / "jobs" / name / "model.keras").exists():
            finished = sorted(path.parent.name for path in run.glob("jobs/*/model.keras"))
            raise UserError(f"--job: {run / 'jobs' / name} holds no model.keras.{nearest(name, finished)}")
        return cls(name, experiment, training.load_model(run / "jobs" / name / "model.keras"))

    def predict_path(
        self, source: Path, target: Path, *, overlay: bool = False, resume: bool = False
    ) -> Iterator[Path]:
        """Predict a scan into a file, or every scan of a folder into a folder.

        Args:
            source: NIfTI file, or a folder of them.
            target: File name (``.nii`` or ``.nii.gz``) or folder for a file; folder for a folder.
            overlay: Also write ``<name>.png``, the mask drawn on the scan.
            resume: Leave out scans whose mask exists already.

        Yields:
            The path of each mask, once it is complete.

        Raises:
            UserError: An input cannot be read, or an output exists already.
        """
        preprocessing = Preprocessing(**self.experiment.preprocessing_options())
        jobs = self.plan(source, target, resume=resume)
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
                picture = path.with_name(readers.stem_of(path) + ".png")
                plots.overlay(
                    picture,
                    volume.array,
                    mask,
                    title=case.name,
                    spacing=volume.spacing,
                    names=self.experiment.label_names,
                )
            yield path

    def plan(self, source: Path, target: Path, *, resume: bool = False) -> list[tuple[Case, Path]]:
        """Return each scan with the path of its mask; headers are checked, no voxel is read.

        Raises:
            UserError: A header cannot be read or does not fit the model, or an output exists already.
        """
        jobs = self._outputs(source, target)
        existing = [path for _, path in jobs if path.exists()]
        if existing and not resume:
            raise UserError(f"{existing[0]}: exists already; choose another OUTPUT, or go on behind it with --resume")
        jobs = [(case, path) for case, path in jobs if path not in existing]
        preprocessing = Preprocessing(**self.experiment.preprocessing_options())
        for case, _ in jobs:
            check_case(case, preprocessing, num_classes=None)
        return jobs

    def _outputs(self, source: Path, target: Path) -> list[tuple[Case, Path]]:
        if source.is_dir():
            cases = layouts.find_cases(
                "nifti", source, labelled=False, channel_suffixes=self.experiment.channel_suffixes
            )
            return [(case, target / f"{case.name}.nii.gz") for case in cases]
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if readers.suffix_of(source) not in NIFTI:
            raise UserError(f"{source}: expected a NIfTI file (.nii or .nii.gz)")
        case = Case(name=readers.stem_of(source), image=source, mask=None, subject=readers.stem_of(source))
        named = readers.suffix_of(target) in NIFTI and not target.is_dir()
        return [(case, target if named else target / f"{readers.stem_of(source)}.nii.gz")]


def _best_job(run: Path) -> str:
    """Return the job with most labels and, among those, the lowest validation loss."""
    jobs = []
    for path in run.glob("jobs/*/scores.json"):
        percent = float(path.parent.name.split("_")[0])
        jobs.append((-percent, read_json(path)["best_val_loss"], path.parent.name))
    if not jobs:
        raise UserError(f"{run}: no job has finished; run finetune.py with --resume")
    return min(jobs)[2]
