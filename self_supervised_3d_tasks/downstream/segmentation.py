"""Finetuning on masks: a class per voxel, every test case scored on its own grid."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from self_supervised_3d_tasks import inference, plots
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.source import Crops, Position
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
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
        check_case(case, self.preprocessing, num_classes=self.experiment.num_classes)

    def read(self, cases: Sequence[Case]) -> VolumeStore:
        """Read and prepare the scans and masks of a sweep."""
        return self._read(cases, num_classes=self.experiment.num_classes)

    def check_splits(self, named: Mapping[str, Split], store: VolumeStore) -> None:
        """Read every test case once."""
        super().check_splits(named, store)
        preprocessing = self.preprocessing
        for case in dict.fromkeys(case for split in named.values() for case in split.test):
            volume, _ = read_labelled(case, preprocessing, self.experiment.num_classes)
            preprocessing.image(volume)

    def dataset(self, store: VolumeStore, position: Position) -> Any:
        """Return batches of scans or crops and their masks."""
        experiment, rules = self.experiment, self.experiment.augment_rules
        return pipeline.segmentation_dataset(
            store,
            batch_size=experiment.batch_size,
            crops=Crops(
                experiment.crop_shape, experiment.crops_per_scan, foreground_fraction=experiment.foreground_fraction
            ),
            augment=functools.partial(augment.augment_segmentation, rules=rules) if rules else None,
            position=position,
        )

    def score(
        self, model: keras.Model, cases: Sequence[Case], store: VolumeStore, folder: RunFolder
    ) -> list[CaseScore]:
        """Score every test case on its own grid, and draw the first one beside its reference."""
        experiment, preprocessing, scores = self.experiment, self.preprocessing, self.scores()
        predict = inference.predictor(model)
        rows = []
        for case in cases:
            volume, truth = read_labelled(case, preprocessing, experiment.num_classes)
            mask = inference.predict_case(
                predict, volume, preprocessing, num_classes=experiment.num_classes, overlap=experiment.overlap
            )
            if case is cases[0]:
                plots.overlay(
                    folder.first_test_case,
                    volume.array,
                    mask,
                    title=f"{case.name}, {folder.path.name}",
                    spacing=volume.spacing,
                    truth=truth,
                    names=experiment.label_names,
                    canonical=volume.affine is not None,
                )
            found = Predictions(truth, mask)
            rows += [CaseScore(case.name, name, score(found)) for name, score in scores.items()]
        return rows


def read_labelled(case: Case, preprocessing: Preprocessing, num_classes: int) -> tuple[Volume, np.ndarray]:
    """Return a scan and its labels ``(*spatial)``, both on the scan's own grid.

    Raises:
        UserError: A file cannot be read or does not fit the experiment, or the grids differ.
    """
    check_case(case, preprocessing, num_classes=num_classes)
    volume = formats.read_channels(case.images, preprocessing.rank)
    return volume, preprocessing.labels(formats.read_mask(case.mask, preprocessing.rank), num_classes)
