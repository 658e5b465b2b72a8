"""How well images are restored, beside the mean image, and the analyses of a decoder after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from self_supervised_3d_tasks import inference, plots
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis.codes import contrastive_probe, similarities
from self_supervised_3d_tasks.data.stream.repeated_examples import repeated_examples
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.plots.restoration import Restoration
from self_supervised_3d_tasks.training.graphs import leave_uncompiled

Network = Callable[[np.ndarray], np.ndarray]

MAX_IMAGES, MAX_PARTS, MAX_PICTURES, MAX_BATCH = 8, 4, 3, 16


class ScanErrors(NamedTuple):
    """Errors of one scan, mean squares over its parts, voxels and channels, in squared intensities of [0, 1].

    Attributes:
        scan: Name of the scan.
        mse: Error of the restorations.
        mean_image_mse: Error of the mean image, given for every part.
        n: Number of parts.
    """

    scan: str
    mse: float
    mean_image_mse: float
    n: int


def mean_image(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Return the mean ``(*spatial, channels)`` of images, float64, and of how many it is.

    Args:
        batches: Images ``(n, *spatial, channels)``, at least one; they are not kept.
    """
    total, count = 0.0, 0
    for batch in batches:
        total = total + np.sum(batch, axis=0, dtype=np.float64)
        count += len(batch)
    return total / count, count


def squared_errors(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return mean squares of the difference over voxels and channels, ``(n,)`` float64.

    Args:
        predicted: Images ``(n, *spatial, channels)``, or one ``(*spatial, channels)`` as the answer to all.
        wanted: Images ``(n, *spatial, channels)``.
    """
    difference = np.subtract(predicted, wanted, dtype=np.float64)
    return np.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def per_scan(scans: Sequence[str], errors: np.ndarray, mean_image_errors: np.ndarray) -> list[ScanErrors]:
    """Average the errors of all parts of all images of each scan.

    Args:
        scans: Name of the scan of each of N images.
        errors: Mean squares of restoration - wanted image, ``(N, parts)``.
        mean_image_errors: Mean squares of mean image - wanted image, ``(N, parts)``.
    """
    rows = []
    for scan in dict.fromkeys(scans):
        own = np.asarray(scans) == scan
        means = (float(values[own].mean()) for values in (errors, mean_image_errors))
        rows.append(ScanErrors(scan, *means, errors[own].size))
    return rows


class Networks(NamedTuple):
    """What answers for the parts of an image, as functions of images ``(n, *spatial, channels)``.

    Attributes:
        code: Gives codes ``(n, size)``, float32: the encoder's last map, averaged over space (Feng et al. 2020, Section
            3.3).
        restore: Gives restored images of the size of those that it is given, float32.
    """

    code: Network
    restore: Network


def networks(restorer: keras.Model, batch_size: int) -> Networks:
    """Return the networks that code and restore images.

    Args:
        restorer: Encoder and decoder as `RestoringAlgorithm.restorer` returns them; later changes of weights show.
        batch_size: Number of images in a forward pass.
    """
    encoder = restorer.get_layer("encoder")
    last = keras.ops.cast(encoder.output, "float32")
    codes = keras.ops.mean(last, axis=tuple(range(1, len(last.shape) - 1)))
    restored = keras.ops.cast(restorer.output, "float32")
    return Networks(_network(encoder.inputs, codes, batch_size), _network(restorer.inputs, restored, batch_size))


def _network(inputs: list, output: keras.KerasTensor, batch_size: int) -> Network:
    model = keras.Model(inputs, output)
    leave_uncompiled(model)

    def run(images: np.ndarray) -> np.ndarray:
        return np.concatenate(list(inference.predict_in_batches(model.predict_on_batch, images, batch_size)))

    return run


class Parts(NamedTuple):
    """Some parts, as two arrays ``(batch, *spatial, channels)``.

    Attributes:
        seen: What the encoder sees.
        wanted: The images to be restored from it.
    """

    seen: np.ndarray
    wanted: np.ndarray


def stream_parts(images: Any, algorithm: RestoringAlgorithm, parts_per_image: int, batch_size: int) -> Iterator[Parts]:
    """Yield batches of parts, those of the first image first; a batch can hold parts of two images.

    Of a task with several views per example the first one counts: the others are placed near it on purpose.

    Args:
        images: Dataset of one image and its seed at a time, as `Scans.images_for_analysis` returns it.
        algorithm: A task with a decoder.
        parts_per_image: Number of examples that are drawn of each image.
        batch_size: Number of parts in a batch; the last one may have fewer.
    """
    examples = repeated_examples(images, algorithm.make_example, parts_per_image)
    for inputs, targets in examples.batch(batch_size).as_numpy_iterator():
        seen, wanted = algorithm.restorations(inputs, targets)
        yield Parts(np.asarray(seen)[:, 0], np.asarray(wanted)[:, 0])


def sample_size(scans_per_epoch: int) -> tuple[int, int]:
    """Return how many images, and parts of each, are coded after an epoch: (8, 4) at most, (2, 2) at least.

    A step of training takes several times as long as coding its scans, because of the decoder and the way back. A third
    as many parts as an epoch has scans thus take a few percent of its time.
    """
    number = scans_per_epoch // 3
    parts_per_image = MAX_PARTS if number >= MAX_PARTS**2 else 2
    return min(max(number // parts_per_image, 2), MAX_IMAGES), parts_per_image


class RestorationMonitor:
    """Measures similarities and the contrastive probe after every epoch and draws restorations.

    The images are read once, here, and always drawn with the same seeds, so that epochs can be compared.

    Args:
        algorithm: A task with a decoder.
        restorer: The restorer of the model in training, as `RestoringAlgorithm.restorer` returns it.
        images: Dataset of one validation image and its seed at a time, as `Scans.images_for_analysis` returns it.
        scans: Names of the scans of the images, which are of the first, the second and so on, again and again.
        scans_per_epoch: Number of scans in an epoch of the training, which sets the number of images and parts.
        batch_size: Number of scans in a step of the training.
        picture_every: A picture is drawn every this many epochs.
        folder: Folder of the pictures, ``restoration_epoch_0010.png``.
    """

    def __init__(
        self,
        algorithm: RestoringAlgorithm,
        restorer: keras.Model,
        *,
        images: Any,
        scans: Sequence[str],
        scans_per_epoch: int,
        batch_size: int,
        picture_every: int,
        folder: Path,
    ) -> None:
        batch_size = min(batch_size, MAX_BATCH)
        number, self._parts_per_image = sample_size(scans_per_epoch)
        batches = list(stream_parts(images.take(number), algorithm, self._parts_per_image, batch_size))
        self._seen = np.concatenate([seen for seen, _ in batches])
        wanted = np.concatenate([wanted for _, wanted in batches])
        drawn = range(0, len(wanted), self._parts_per_image)[:MAX_PICTURES]
        # A copy of these few: the other images are not kept.
        self._names = [scans[image % len(scans)] for image in range(len(drawn))]
        self._wanted, self._drawn = wanted[drawn], self._seen[drawn]
        self._networks = networks(restorer, batch_size)
        self._picture_every, self._folder = picture_every, folder
        found = len(self._seen) // self._parts_per_image
        chance = math.log(1 + (found - 1) * self._parts_per_image)
        logging.info(
            "analyses after every epoch: %d validation images, %d parts of each; val_probe of codes all alike: %.3f",
            found,
            self._parts_per_image,
            chance,
        )

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return the columns of an epoch, counted from 1; ``val_probe`` and others only where there are two images."""
        if epoch % self._picture_every == 0:
            restored = self._networks.restore(self._drawn)
            notes = [f"MSE {error:.4f}" for error in squared_errors(restored, self._wanted)]
            rows = map(Restoration, self._names, self._wanted, self._drawn, restored, notes)
            path = self._folder / f"restoration_epoch_{epoch:04d}.png"
            plots.restorations(path, list(rows), f"Validation scans after epoch {epoch}")
        codes = self._networks.code(self._seen)
        codes = codes.reshape(-1, self._parts_per_image, codes.shape[-1])
        same, different = similarities(codes)
        columns = {"val_similarity_same": float(same.mean())}
        if len(codes) > 1:
            columns["val_similarity_different"] = float(different.mean())
            columns["val_probe"] = contrastive_probe(codes).value
        return columns
