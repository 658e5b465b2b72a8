"""What is measured on the parts of some wholes, in one pass; of the images only those to be drawn are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.analysis.networks import Network
from self_supervised_3d_tasks.analysis.parts import Parts
from self_supervised_3d_tasks.analysis.restoration import MeanImage, squared_errors
from self_supervised_3d_tasks.plots.restoration import Restoration


@dataclass(frozen=True)
class Measurement:
    """Values of W wholes with P parts each.

    Attributes:
        scans: Name of the scan of each whole, ``(W,)``.
        codes: ``(W, P, size)``, not of unit length.
        errors: Mean square of restoration - wanted image, ``(W, P)``, in squared intensities of [0, 1].
        mean_image_errors: The same of the mean image.
        pictures: The first part of the first wholes, for a sheet.
    """

    scans: list[str]
    codes: np.ndarray
    errors: np.ndarray
    mean_image_errors: np.ndarray
    pictures: list[Restoration]


def measure(
    batches: Iterable[Parts],
    *,
    code: Network,
    restore: Network,
    mean: MeanImage,
    scans: Sequence[str],
    parts_per_whole: int,
    num_pictures: int,
) -> Measurement:
    """Look at every part once.

    Args:
        batches: From `parts.stream`.
        code: From `networks.coder`.
        restore: From `networks.restorer_of`.
        mean: Of the training images.
        scans: Names of the scans; wholes are of the first, the second and so on, again and again.
        parts_per_whole: As in ``batches``.
        num_pictures: Wholes of which a picture is kept.
    """
    codes, errors, mean_image_errors, pictures = [], [], [], []
    position = 0
    for seen, wanted in batches:
        restored = restore(seen)
        codes.append(code(seen))
        errors.append(squared_errors(restored, wanted))
        mean_image_errors.append(squared_errors(mean.image, wanted))
        for index in range(len(seen)):
            whole, part = divmod(position + index, parts_per_whole)
            if part == 0 and whole < num_pictures:
                note = f"MSE {errors[-1][index]:.4f}, mean image {mean_image_errors[-1][index]:.4f}"
                images = (image[index].copy() for image in (wanted, seen, restored))
                pictures.append(Restoration(scans[whole % len(scans)], *images, note))
        position += len(seen)
    shape = (position // parts_per_whole, parts_per_whole)
    return Measurement(
        [scans[whole % len(scans)] for whole in range(shape[0])],
        np.concatenate(codes).reshape(*shape, -1),
        np.concatenate(errors).reshape(shape),
        np.concatenate(mean_image_errors).reshape(shape),
        pictures,
    )
