"""A task on random scans, as `train.py` lays it out: model, compiled, and the stream of its batches."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import networks
from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.source import Position
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.models.rematerialization import rematerialize
from self_supervised_3d_tasks.training.optimizers import make_optimizer

VOLUMES = 4
BATCHES = 4  # of different scans


def shape(rank: int, side: int) -> tuple[int, ...]:
    """Return ``(*spatial, 1)`` of a scan: ``side`` voxels per axis, or a picture with about as many pixels in all."""
    edge = side if rank == 3 else 16 * round(side**1.5 / 16)
    return (*[edge] * rank, 1)


@dataclass(frozen=True)
class Setup:
    """A task that can be trained.

    Attributes:
        algorithm: The task with its default options.
        scans: Scans in a batch: as many as give the encoder the voxels of four whole ones.
        stream: Gives the endless batches from the first one on.
        make_model: Gives a new compiled model, of the global precision.
    """

    algorithm: Algorithm
    scans: int
    stream: Callable[[], tf.data.Dataset]
    make_model: Callable[[], keras.Model]


@contextlib.contextmanager
def task(name: str, *, rank: int, side: int, filters: int, remat: bool = False) -> Iterator[Setup]:
    """Yield a task on random scans, whose files are deleted afterwards.

    Args:
        name: The task.
        rank: 2 for pictures, 3 for volumes.
        side: Voxels per axis of a volume, see `shape`.
        filters: Filters of the first level of a U-Net with three more.
        remat: Whether maps inside the encoder are computed again for the gradients.
    """
    algorithm = registry.algorithm(name)(shape(rank, side))
    scans = round(VOLUMES * np.prod(algorithm.input_shape) / networks.encoded_voxels(algorithm))
    scans = max(scans, algorithm.sampling.min_batch)

    def make_model() -> keras.Model:
        keras.utils.set_random_seed(0)
        encoder = registry.encoder("unet")(algorithm.encoder_shape, enc_filters=filters, num_layers=3, seed=0)
        if remat:
            rematerialize(encoder, encoder)
        model = algorithm.make_model(encoder, seed=1)
        model.compile(optimizer=make_optimizer(1e-3), loss=algorithm.loss, metrics=algorithm.metrics())
        return model

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for index in range(BATCHES * scans):
            np.save(Path(folder) / f"scan_{index:03d}.npy", rng.random(algorithm.input_shape, dtype="float32"))
        preprocessing = Preprocessing(algorithm.spatial_shape, 1, volume_fitting="exact")
        store = VolumeStore(find_cases("npy", folder), preprocessing)

        def stream() -> tf.data.Dataset:
            return pipeline.pretraining_dataset(
                store,
                make_example=algorithm.make_example,
                batch_size=scans,
                position=Position(seed=0),
                sampling=algorithm.sampling,
            )

        yield Setup(algorithm, scans, stream, make_model)
