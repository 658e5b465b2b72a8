"""Finetuning on masks: a class per voxel, every test case scored on its own grid."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from self_supervised_3d_tasks.data.volumes import Header, Volume
from self_supervised_3d_tasks.downstream.base import CaseScore, DownstreamTask
from self_supervised_3d_tasks.downstream.ceiling import ceiling, ceiling_line
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.scores.base import Predictions


@dataclass(frozen=True)
class SegmentationTask(DownstreamTask):
    """A class per voxel. Scans are read once for all jobs; test masks are scored on their own grid."""

    UNDEFINED: ClassVar[str] = "not defined"

    def stored_cases(self, split: Split) -> list[Case]:
        """Return training, validation and test cases: each is decoded once, whatever its part in each job."""
        return [*split.train, *split.validation, *split.test]

    def check_header(self, case: Case) -> Header:
        """Return the header of a scan; `UserError` if it, or that of its mask, does not fit. No voxel is read."""
        return check_case(case, self.experiment.preprocessing, num_classes=self.experiment.num_classes)

    def read(self, cases: Sequence[Case]) -> VolumeStore:
        """Read and prepare the scans and masks of a sweep."""
        return build.make_store(self.experiment, cases, num_classes=self.experiment.num_classes)

    def prospects(self, cases: Sequence[Case]) -> list[str]:
        """Return the Dice that the preparation leaves to a perfect network."""
        return [ceiling_line(ceiling(self.experiment, cases), self.experiment.label_names)]

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """Return which foreground classes no test mask has: each of their scores tells false positives only."""
        absent = sorted(set(range(1, self.experiment.num_classes)).difference(self.occurring(cases)))
        return [f"in no test mask: class {', '.join(map(str, absent))}"] if absent else []

    def occurring(self, cases: Iterable[Case]) -> list[int]:
        """Return the foreground classes in the masks of some cases, sorted; each mask is read once for all jobs."""
        return sorted(set().union(*map(self._classes, cases)) - {0})

    def _classes(self, case: Case) -> frozenset[int]:
        """Return the classes in the mask of a case; `UserError` as `Preprocessing.labels`."""
        experiment, state = self.experiment, case.mask.stat()
        label_map = tuple(experiment.preprocessing.label_map.items())
        return _classes_in_file(
            *(case.mask, experiment.rank, experiment.num_classes, label_map, state.st_size, state.st_mtime_ns)
        )

    def classes_in(self, store: VolumeStore) -> dict[Case, set[int]]:
        """Return the classes in the mask of each case of a store; `UserError` where all masks are of one class."""
        classes = {case: store.classes(index) for index, case in enumerate(store.cases)}
        if len(found := set().union(*classes.values())) == 1:
            raise UserError(
                f"{store.cases[0].mask.parent}, label_map: all {len(classes)} masks for training and validation hold "
                f"class {found.pop()} alone, expected two classes or more. Check the masks and label_map."
            )
        return classes

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

    def predictor(self, model: keras.Model) -> inference.Predict:
        """Return the function from a batch of prepared images to class probabilities."""
        return inference.predictor(model)

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
        """Score every test case that can be used on its own grid, and draw the first one beside its reference."""
        experiment, test, rows = self.experiment, store.subset(cases), []
        occurring, predict = self.occurring(test.cases), self.predictor(model)
        options = {"num_classes": experiment.num_classes, "overlap": experiment.overlap}
        for index, case in enumerate(test.cases):
            mask = formats.read_mask(case.mask, experiment.rank)
            truth = experiment.preprocessing.labels(mask, experiment.num_classes)
            placement = test.placement(index, truth.shape)
            scan = inference.PreparedScan(experiment.preprocessing, test.image(index), placement)
            found = inference.labels_of(scan.predict(predict, **options), scan.shape)
            if index == 0:
                volume = formats.read_channels(case.images, experiment.rank)
                self.draw(job.first_test_case, volume, found, f"{case.name}, {job.path.name}", truth)
            rows += self.case_scores(case, truth, found, occurring, mask.spacing)
        return rows

    def case_scores(
        self, case: Case, truth: np.ndarray, mask: np.ndarray, occurring: Sequence[int], spacing: tuple[float, ...]
    ) -> list[CaseScore]:
        """Return the scores of one case.

        Args:
            case: The case.
            truth: Its labels ``(*spatial)``.
            mask: The predicted ones.
            occurring: The foreground classes in the truth of any case.
            spacing: Voxel size in mm.
        """
        found = Predictions(truth, mask, occurring=occurring, spacing=spacing)
        return [CaseScore(case.name, name, score(found)) for name, score in self.scores().items()]


def classes_of(labels: np.ndarray) -> set[int]:
    """Return the classes that occur in a mask ``(*spatial)`` of whole numbers from 0."""
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist())


@functools.cache
def _classes_in_file(
    path: Path, rank: int, num_classes: int, label_map: tuple[tuple[int, int], ...], *state: int
) -> frozenset[int]:
    """Return the classes in a mask; ``state`` tells a file that is written anew."""
    relabelled = Preprocessing((0,) * rank, 1, label_map=dict(label_map))
    return frozenset(classes_of(relabelled.labels(formats.read_mask(path, rank), num_classes)))
