"""The analyses after every epoch, on a few validation scans that stay the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis import networks, parts
from self_supervised_3d_tasks.analysis.probe import contrastive_probe
from self_supervised_3d_tasks.analysis.restoration import squared_errors
from self_supervised_3d_tasks.analysis.similarity import similarities
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.plots.restoration import Restoration

MAX_WHOLES, MAX_PARTS, MAX_PICTURES, MAX_BATCH = 8, 4, 3, 16


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
        batches = list(parts.stream(wholes.take(number), algorithm, self._parts_per_whole, batch_size))
        self._seen = np.concatenate([seen for seen, _ in batches])
        wanted = np.concatenate([wanted for _, wanted in batches])
        drawn = range(0, len(wanted), self._parts_per_whole)[:MAX_PICTURES]
        self._wanted = wanted[drawn]  # a copy of these few: the others are not kept
        self._drawn = self._seen[drawn]
        self._names = [scans[whole % len(scans)] for whole in range(len(drawn))]
        self._code = networks.coder(restorer, batch_size)
        self._restore = networks.restorer_of(restorer, batch_size)
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
