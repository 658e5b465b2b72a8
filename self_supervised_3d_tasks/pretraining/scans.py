"""The scans of a pretraining: how they are found and read, and how crops of them are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.algorithms.kinds import TurningAlgorithm
from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.store import centres
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.background import Background
from self_supervised_3d_tasks.data.stream.repeated_examples import keep_crop
from self_supervised_3d_tasks.data.stream.source import Crops, Position
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.keys import TrainExperiment
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.pretraining.axes import check_boxes
from self_supervised_3d_tasks.training.distribution import processes


def find_scans(experiment: TrainExperiment, folder: str) -> list[Case]:
    """Return the scans of a folder that is laid out as the experiment says."""
    return find_cases(
        experiment.dataset_name,
        folder,
        label_stem=experiment.label_stem,
        subject_pattern=experiment.subject_pattern,
        channel_suffixes=experiment.channel_suffixes,
        channel_columns=experiment.channel_columns,
    )


@dataclass(frozen=True)
class Scans:
    """The usable scans of one part of the split, prepared for a pretext task.

    Attributes:
        experiment: The experiment, whose keys say how crops are drawn.
        algorithm: The pretext task.
        store: The scans.
        centres: For each scan the voxels that crops are centred on, ``(number, rank)``; None: crops come from anywhere.
    """

    experiment: TrainExperiment
    algorithm: Algorithm
    store: VolumeStore
    centres: list[np.ndarray] | None

    @property
    def names(self) -> list[str]:
        """The names of the usable scans."""
        return [case.name for case in self.store.cases]

    def batches(self, batch_size: int, *, first_step: int = 0, training: bool) -> Any:
        """Return a `tf.data.Dataset` of the batches ``(inputs, targets)`` that the task is trained on, or validated on.

        Args:
            batch_size: Number of scans (crops) in a batch.
            first_step: Number of the first batch.
            training: True: endless, shuffled and augmented. False: one pass, the same every time.
        """
        return pipeline.pretraining_dataset(
            self.store,
            make_example=self.algorithm.make_example,
            batch_size=batch_size,
            position=Position(self.experiment.seed, first_step, training, processes.share()),
            crops=self._crops(self.experiment.crops_per_scan),
            sampling=self.algorithm.sampling,
            augment=build.image_augmentation(self.experiment),
        )

    def single_examples(self) -> Any:
        """Return a `tf.data.Dataset` of one example of every scan, not augmented, in batches of one."""
        return pipeline.pretraining_dataset(
            self.store,
            make_example=self.algorithm.make_example,
            batch_size=1,
            position=Position(self.experiment.seed, training=False),
            crops=self._crops(1),
            sampling=Sampling(companions=self.algorithm.sampling.companions),
        )

    def images_for_analysis(self, *, per_scan: int, seed: int) -> Any:
        """Return a `tf.data.Dataset` of one image ``(1, *spatial, channels)`` and its seed ``(1, 2)`` at a time.

        Every scan comes in turn, ``per_scan`` times if it is cropped; not augmented, the same for the same seed.
        """
        position, crops = Position(seed, training=False), self._crops(per_scan)
        return pipeline.pretraining_dataset(
            self.store, make_example=keep_crop, batch_size=1, position=position, crops=crops
        )

    def _crops(self, per_scan: int) -> Crops:
        """Return how crops are drawn: the same way for training, validation, pictures and analyses."""
        level, window = self.experiment.background_level, self.experiment.intensity_window
        background = None if level is None else Background.in_window(level, self.experiment.background_share, window)
        return Crops(self.experiment.crop_shape, per_scan, self.centres, background)


def read_scans(experiment: TrainExperiment, algorithm: Algorithm, cases: Sequence[Case], part: str = "") -> Scans:
    """Read and prepare scans.

    Args:
        experiment: Says how they are prepared.
        algorithm: May look for where crops are centred.
        cases: The scans.
        part: The part of the split that they are, for messages.

    Raises:
        UserError: A scan cannot be used, and the experiment does not say that such scans are skipped; or what is left
            of a scan is padded in a way that solves the task.
    """
    store = build.make_store(experiment, cases, part=part)
    if isinstance(algorithm, TurningAlgorithm) and experiment.foreground_crop != "none":
        check_boxes(algorithm, store)
    finder, found = algorithm.sampling.crop_centres, None
    if finder is not None:
        store, found = centres.find(store, finder, experiment.cache_folder, skip=experiment.on_bad_file == "skip")
    return Scans(experiment, algorithm, store, found)
