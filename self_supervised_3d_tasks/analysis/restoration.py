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

Network = Callable[[np.ndarray], np.ndarray]

MAX_WHOLES, MAX_PARTS, MAX_PICTURES, MAX_BATCH = 8, 4, 3, 16


class MeanImage(NamedTuple):
    """The mean of some images, and of how many.

    Attributes:
        image: ``(*spatial, channels)``, float64.
        count: Of images.
    """

    image: np.ndarray
    count: int


class ScanErrors(NamedTuple):
    """Errors of one scan, mean squares over its parts, voxels and channels, in squared intensities of [0, 1].

    Attributes:
        scan: Its name.
        mse: Of the restorations.
        mean_image_mse: Of the mean image, given for every part.
        n: Number of parts.
    """

    scan: str
    mse: float
    mean_image_mse: float
    n: int


def mean_image(batches: Iterable[np.ndarray]) -> MeanImage:
    """Return the mean of images that come in batches ``(n, *spatial, channels)``, which are not kept."""
    total, count = None, 0
    for batch in batches:
        part = np.sum(batch, axis=0, dtype=np.float64)
        total, count = (part if total is None else total + part), count + len(batch)
    if total is None:
        raise ValueError("expected at least one image to take the mean of")
    return MeanImage(total / count, count)


def squared_errors(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return mean squares of the difference over voxels and channels, ``(n,)`` float64.

    Args:
        predicted: ``(n, *spatial, channels)``, or without n for the same answer to all.
        wanted: ``(n, *spatial, channels)``.
    """
    difference = np.subtract(predicted, wanted, dtype=np.float64)
    return np.mean(difference**2, axis=tuple(range(1, difference.ndim)))


def per_scan(scans: Sequence[str], errors: np.ndarray, mean_image_errors: np.ndarray) -> list[ScanErrors]:
    """Average the errors of the parts of each scan.

    Args:
        scans: Name of the scan of each part, ``(n,)``.
        errors: Of the restorations, ``(n,)``.
        mean_image_errors: Of the mean image, ``(n,)``.
    """
    names = np.asarray(scans)
    rows = []
    for scan in dict.fromkeys(scans):
        own = names == scan
        rows.append(ScanErrors(scan, float(errors[own].mean()), float(mean_image_errors[own].mean()), int(own.sum())))
    return rows


def coding_network(restorer: keras.Model, batch_size: int) -> Network:
    """Return the function images ``(n, *spatial, channels)`` to codes ``(n, size)``, float32.

    The code is the encoder's last map, averaged over space (Feng et al. 2020, Section 3.3).

    Args:
        restorer: See `RestoringAlgorithm.restorer`; later changes of its weights show.
        batch_size: Images per forward pass.
    """
    encoder = restorer.get_layer("encoder")
    last = keras.ops.cast(encoder.output, "float32")
    return _network(encoder.inputs, keras.ops.mean(last, axis=tuple(range(1, len(last.shape) - 1))), batch_size)


def restoring_network(restorer: keras.Model, batch_size: int) -> Network:
    """Return the function images ``(n, *spatial, channels)`` to restored images of their size, float32.

    Args:
        restorer: See `RestoringAlgorithm.restorer`; later changes of its weights show.
        batch_size: Images per forward pass.
    """
    return _network(restorer.inputs, keras.ops.cast(restorer.output, "float32"), batch_size)


def _network(inputs: list, output: keras.KerasTensor, batch_size: int) -> Network:
    model = keras.Model(inputs, output)
    # A model that is not compiled would choose XLA, which takes far longer to compile than these few passes take.
    model.jit_compile = False

    def run(images: np.ndarray) -> np.ndarray:
        return np.concatenate(list(inference.predict_in_batches(model.predict_on_batch, images, batch_size)))

    return run


class Parts(NamedTuple):
    """Some parts, each ``(batch, *spatial, channels)``.

    Attributes:
        seen: What the encoder sees.
        wanted: The images to be restored from it.
    """

    seen: np.ndarray
    wanted: np.ndarray


def stream_parts(wholes: Any, algorithm: RestoringAlgorithm, parts_per_whole: int, batch_size: int) -> Iterator[Parts]:
    """Yield batches of parts, those of the first whole first; a batch can hold parts of two wholes.

    Of a task with several views per example the first one counts: the others are placed near it on purpose.

    Args:
        wholes: Dataset of one image and its seed at a time, as `pretraining.wholes` gives it.
        algorithm: A task with a decoder.
        parts_per_whole: Examples that are drawn of each whole.
        batch_size: Parts per batch; the last one may have fewer.
    """
    examples = repeated_examples(wholes, algorithm.make_example, parts_per_whole)
    for inputs, targets in examples.batch(batch_size).as_numpy_iterator():
        seen, wanted = algorithm.restorations(inputs, targets)
        yield Parts(np.asarray(seen)[:, 0], np.asarray(wanted)[:, 0])


def sample_size(scans_per_epoch: int) -> tuple[int, int]:
    """Return how many wholes, and parts of each, are coded after an epoch: (8, 4) at most, (2, 2) at least.

    A step of training takes several times as long as coding its scans, because of the decoder and the way back. A third
    as many parts as an epoch has scans thus take a few percent of its time.
    """
    number = scans_per_epoch // 3
    parts_per_whole = MAX_PARTS if number >= MAX_PARTS**2 else 2
    return min(max(number // parts_per_whole, 2), MAX_WHOLES), parts_per_whole


class RestorationMonitor:
    """Similarities, the contrastive probe and pictures of restorations.

    The images are read once, here, and always drawn with the same seeds, so that epochs can be compared.

    Args:
        algorithm: A task with a decoder.
        restorer: Of the model in training; see `RestoringAlgorithm.restorer`.
        wholes: Dataset of one validation image and its seed at a time, as `pretraining.wholes` gives it.
        scans: Names of the scans of the wholes, which are of the first, the second and so on, again and again.
        scans_per_epoch: Of the training, which sets the number of wholes and parts.
        batch_size: Of the training, in scans.
        picture_every: A picture is drawn every this many epochs.
        folder: Of the pictures, ``restoration_epoch_0010.png``.
    """

    def __init__(
        self,
        algorithm: RestoringAlgorithm,
        restorer: keras.Model,
        *,
        wholes: Any,
        scans: Sequence[str],
        scans_per_epoch: int,
        batch_size: int,
        picture_every: int,
        folder: Path,
    ) -> None:
        batch_size = min(batch_size, MAX_BATCH)
        number, self._parts_per_whole = sample_size(scans_per_epoch)
        batches = list(stream_parts(wholes.take(number), algorithm, self._parts_per_whole, batch_size))
        self._seen = np.concatenate([seen for seen, _ in batches])
        wanted = np.concatenate([wanted for _, wanted in batches])
        drawn = range(0, len(wanted), self._parts_per_whole)[:MAX_PICTURES]
        self._wanted = wanted[drawn]  # a copy of these few: the others are not kept
        self._drawn = self._seen[drawn]
        self._names = [scans[whole % len(scans)] for whole in range(len(drawn))]
        self._code = coding_network(restorer, batch_size)
        self._restore = restoring_network(restorer, batch_size)
        self._picture_every = picture_every
        self._folder = folder
        found = len(self._seen) // self._parts_per_whole
        negatives = (found - 1) * self._parts_per_whole
        logging.info(
            "analyses after every epoch: %d validation wholes of %d parts; val_probe of codes that are all alike: %.3f",
            found,
            self._parts_per_whole,
            math.log(1 + negatives),
        )

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return the columns of an epoch, counted from 1; ``val_probe`` and others only where there are two wholes."""
        if epoch % self._picture_every == 0:
            self._draw(epoch)
        codes = self._code(self._seen)
        codes = codes.reshape(-1, self._parts_per_whole, codes.shape[-1])
        same, different = similarities(codes)
        columns = {"val_similarity_same": float(same.mean())}
        if len(codes) > 1:
            columns["val_similarity_different"] = float(different.mean())
            columns["val_probe"] = contrastive_probe(codes).value
        return columns

    def _draw(self, epoch: int) -> None:
        restored = self._restore(self._drawn)
        notes = [f"MSE {error:.4f}" for error in squared_errors(restored, self._wanted)]
        rows = map(Restoration, self._names, self._wanted, self._drawn, restored, notes)
        path = self._folder / f"restoration_epoch_{epoch:04d}.png"
        plots.restorations(path, list(rows), f"Validation scans after epoch {epoch}")
