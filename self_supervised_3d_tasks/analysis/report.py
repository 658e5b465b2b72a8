"""What is measured on the parts of some wholes, and the results as numbers that say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.analysis.codes import TEMPERATURE, Probe, Similarities
from self_supervised_3d_tasks.analysis.restoration import (
    MeanImage,
    Network,
    Parts,
    ScanErrors,
    per_scan,
    squared_errors,
)
from self_supervised_3d_tasks.plots.restoration import Restoration

COSINE, NATS, SQUARE = "cosine, -1 to 1", "nats", "squared intensity of [0, 1]"


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
        batches: From `stream_parts`.
        code: From `coding_network`.
        restore: From `restoring_network`.
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


@dataclass(frozen=True)
class Number:
    """A result.

    Attributes:
        name: As a key.
        value: The number itself.
        unit: Its unit or range.
        n: How many values it summarizes.
        of: What these values are.
    """

    name: str
    value: float
    unit: str
    n: int
    of: str


def of_codes(similarities: Similarities, probe: Probe) -> list[Number]:
    """Return the numbers of similarities and probe; standard deviations are those over the pairs."""
    found = []
    for kind, values in similarities._asdict().items():
        pairs = f"pairs of parts of {'the same whole' if kind == 'same' else 'different wholes'}"
        found.append(Number(f"similarity_{kind}_mean", float(values.mean()), COSINE, len(values), pairs))
        found.append(Number(f"similarity_{kind}_sd", float(values.std()), COSINE, len(values), pairs))
    against = f"pairs of parts of the same whole, in both orders, each against {probe.negatives} parts of other wholes"
    return [
        *found,
        Number("probe", probe.value, f"{NATS}, temperature {TEMPERATURE}", probe.pairs, against),
        Number("probe_chance", probe.chance, NATS, probe.negatives, "parts of other wholes: log(1 + n)"),
    ]


def of_restorations(scans: list[ScanErrors]) -> list[Number]:
    """Return means and standard deviations over scans."""
    found = []
    for name in ("mse", "mean_image_mse"):
        values = np.array([getattr(scan, name) for scan in scans])
        found.append(Number(f"{name}_mean", float(values.mean()), SQUARE, len(values), "scans"))
        found.append(Number(f"{name}_sd", float(values.std()), SQUARE, len(values), "scans"))
    return found


def scan_errors(measurement: Measurement) -> list[ScanErrors]:
    """Return the errors of each scan, over all parts of all its wholes."""
    names = np.repeat(measurement.scans, measurement.errors.shape[1]).tolist()
    return per_scan(names, measurement.errors.ravel(), measurement.mean_image_errors.ravel())


def table(numbers: list[Number]) -> str:
    """Return the numbers as a short table."""
    value = {number.name: number.value for number in numbers}
    count = {number.name: number.n for number in numbers}

    def spread(name: str, digits: int) -> str:
        return f"{value[f'{name}_mean']:.{digits}f} ± {value[f'{name}_sd']:.{digits}f}"

    same, different = count["similarity_same_mean"], count["similarity_different_mean"]
    chance = f"chance {value['probe_chance']:.3f}, {count['probe_chance']} negatives"
    rows = [
        ("similarity, same whole", spread("similarity_same", 3), f"{same} pairs"),
        ("similarity, different wholes", spread("similarity_different", 3), f"{different} pairs"),
        ("contrastive probe", f"{value['probe']:.3f}", chance),
        ("MSE of the restorations", spread("mse", 5), f"{count['mse_mean']} scans"),
        ("MSE of the mean image", spread("mean_image_mse", 5), f"{count['mean_image_mse_mean']} scans"),
    ]
    return "\n".join(f"{name:<30}{number:<22}{note}" for name, number, note in rows)
