"""Finetuning on masks: a class per voxel, every test case scored on its own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from self_supervised_3d_tasks import inference, plots
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.source import Crops, Position
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.scores.base import Predictions


@dataclass(frozen=True)
class SegmentationTask(DownstreamTask):
    """A class per voxel. Test cases are not stored: their scores need the grid of the file."""

    UNDEFINED: ClassVar[str] = "class absent from truth and prediction"

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training and validation cases."""
        return [*split.train, *split.validation]

    def check_header(self, case: Case) -> None:
        """Raise `UserError` if the header of a scan or of its mask does not fit; no voxel is read."""
        check_case(case, self.experiment.preprocessing, num_classes=self.experiment.num_classes)

    def read(self, cases: Sequence[Case]) -> VolumeStore:
        """Read and prepare the scans and masks of a sweep."""
        return build.make_store(self.experiment, cases, num_classes=self.experiment.num_classes)

    def check_splits(self, named: Mapping[str, Split], store: VolumeStore) -> None:
        """Read every test case once."""
        super().check_splits(named, store)
        for case in dict.fromkeys(case for split in named.values() for case in split.test):
            volume, _ = self._read_labelled(case)
            self.experiment.preprocessing.image(volume)

    def dataset(self, store: VolumeStore, position: Position) -> Any:
        """Return batches of scans or crops and their masks."""
        experiment = self.experiment
        return pipeline.segmentation_dataset(
            store,
            batch_size=experiment.batch_size,
            crops=Crops(
                experiment.crop_shape, experiment.crops_per_scan, foreground_fraction=experiment.foreground_fraction
            ),
            augment=augment.augment_segmentation if experiment.augment and position.training else None,
            position=position,
        )

    def predict(self, model: keras.Model, volume: Volume) -> np.ndarray:
        """Return the mask ``(*spatial)`` uint8 of a scan on its own grid.

        Args:
            model: It gives logits.
            volume: The scan as it was read.
        """
        experiment = self.experiment
        options = {"num_classes": experiment.num_classes, "overlap": experiment.overlap}
        return inference.predict_case(model, volume, experiment.preprocessing, **options)

    def draw(self, path: Path, volume: Volume, mask: np.ndarray, title: str, truth: np.ndarray | None = None) -> None:
        """Draw a mask on its scan, beside the reference where there is one."""
        plots.overlay(
            path,
            volume.array,
            mask,
            title=title,
            spacing=volume.spacing,
            truth=truth,
            names=self.experiment.label_names,
            canonical=volume.affine is not None,
        )

    def score(self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, job: RunFolder) -> list[CaseScore]:
        """Score every test case on its own grid, and draw the first one beside its reference."""
        scores, rows = self.scores(), []
        for case in cases:
            volume, truth = self._read_labelled(case)
            mask = self.predict(model, volume)
            if case is cases[0]:
                self.draw(job.first_test_case, volume, mask, f"{case.name}, {job.path.name}", truth)
            found = Predictions(truth, mask)
            rows += [CaseScore(case.name, name, score(found)) for name, score in scores.items()]
        return rows

    def _read_labelled(self, case: Case) -> tuple[Volume, np.ndarray]:
        """Return a scan and its labels ``(*spatial)``, both on the scan's own grid.

        Raises:
            UserError: A file cannot be read or does not fit the experiment, or the grids differ.
        """
        self.check_header(case)
        experiment = self.experiment
        volume = formats.read_channels(case.images, experiment.rank)
        mask = formats.read_mask(case.mask, experiment.rank)
        return volume, experiment.preprocessing.labels(mask, experiment.num_classes)
