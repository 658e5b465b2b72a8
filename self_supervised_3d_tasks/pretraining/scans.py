"""The scans of a pretraining: how they are found and read, and how crops of them are drawn."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import centres
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.background import Background
from self_supervised_3d_tasks.data.stream.repeated_examples import keep_crop
from self_supervised_3d_tasks.data.stream.source import ONE_SCAN, Crops, Position
from self_supervised_3d_tasks.experiment.keys import TrainExperiment
from self_supervised_3d_tasks.ops import augment
from self_supervised_3d_tasks.ops.sampling import Sampling


def find_scans(experiment: TrainExperiment, folder: str) -> list[Case]:
    """Return the scans of a folder that is laid out as the experiment says."""
    return find_cases(
        experiment.dataset_name,
        folder,
        subject_pattern=experiment.subject_pattern,
        channel_suffixes=experiment.channel_suffixes,
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
        experiment, rules = self.experiment, self.experiment.augment_rules
        return self._stream(
            self.algorithm.make_example,
            Position(experiment.seed, first_step, training),
            crops_per_scan=experiment.crops_per_scan,
            batch_size=batch_size,
            sampling=self.algorithm.sampling,
            augment=functools.partial(augment.augment_image, rules=rules) if rules else None,
        )

    def single_examples(self) -> Any:
        """Return a `tf.data.Dataset` of one example of every scan, not augmented, in batches of one."""
        position = Position(self.experiment.seed, training=False)
        sampling = Sampling(companions=self.algorithm.sampling.companions)
        return self._stream(self.algorithm.make_example, position, sampling=sampling)

    def images_for_analysis(self, *, per_scan: int, seed: int) -> Any:
        """Return a `tf.data.Dataset` of one image ``(1, *spatial, channels)`` and its seed ``(1, 2)`` at a time.

        Every scan comes in turn, ``per_scan`` times if it is cropped; not augmented, the same for the same seed.
        """
        return self._stream(keep_crop, Position(seed, training=False), crops_per_scan=per_scan)

    def _stream(
        self,
        make_example: Callable[..., Any],
        position: Position,
        *,
        crops_per_scan: int = 1,
        batch_size: int = 1,
        sampling: Sampling = ONE_SCAN,
        augment: Callable[..., Any] | None = None,
    ) -> Any:
        """Return a stream whose crops are drawn the same way for training, validation, pictures and analyses."""
        level, window = self.experiment.background_level, self.experiment.intensity_window
        background = None if level is None else Background.in_window(level, self.experiment.background_share, window)
        return pipeline.pretraining_dataset(
            self.store,
            make_example=make_example,
            batch_size=batch_size,
            position=position,
            crops=Crops(self.experiment.crop_shape, crops_per_scan, self.centres, background),
            sampling=sampling,
            augment=augment,
        )


def read_scans(experiment: TrainExperiment, algorithm: Algorithm, cases: Sequence[Case]) -> Scans:
    """Read and prepare scans.

    Raises:
        UserError: A scan cannot be used, and the experiment does not say that such scans are skipped.
    """
    store = VolumeStore(
        cases,
        Preprocessing(**experiment.preprocessing_options()),
        cache=experiment.cache,
        cache_dir=experiment.cache_folder,
        on_bad_file=experiment.on_bad_file,
    )
    finder, found = algorithm.sampling.crop_centres, None
    if finder is not None:
        store, found = centres.find(store, finder, experiment.cache_folder, skip=experiment.on_bad_file == "skip")
    return Scans(experiment, algorithm, store, found)
