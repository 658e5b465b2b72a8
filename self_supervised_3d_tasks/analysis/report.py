"""What is measured on the parts of some images, and the results as numbers that say what they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.analysis.codes import TEMPERATURE, Probe, Similarities
from self_supervised_3d_tasks.analysis.restoration import Networks, Parts, ScanErrors, per_scan, squared_errors
from self_supervised_3d_tasks.plots.restoration import Restoration

COSINE, NATS, SQUARE = "cosine, -1 to 1", "nats", "squared intensity of [0, 1]"
NUM_PICTURES = 4


@dataclass(frozen=True)
class Measurement:
    """What was measured on P parts of each of N images.

    Attributes:
        codes: Codes of any length, ``(N, P, size)``.
        scans: Errors of the scans that the images are of.
        pictures: The first part of the first images, for a sheet.
    """

    codes: np.ndarray
    scans: list[ScanErrors]
    pictures: list[Restoration]


def measure(
    batches: Iterable[Parts], networks: Networks, mean_image: np.ndarray, scans: Sequence[str], parts_per_image: int
) -> Measurement:
    """Look at every part once.

    Args:
        batches: The parts, as `stream_parts` yields them.
        networks: What codes and restores the parts.
        mean_image: Mean of the training images, ``(*spatial, channels)``.
        scans: Names of the scans; images are of the first, the second and so on, again and again.
        parts_per_image: Number of parts of each image in ``batches``.
    """
    codes, errors, mean_image_errors, pictures = [], [], [], []
    position = 0
    for seen, wanted in batches:
        restored = networks.restore(seen)
        codes.append(networks.code(seen))
        errors.append(squared_errors(restored, wanted))
        mean_image_errors.append(squared_errors(mean_image, wanted))
        first_parts = range(-position % parts_per_image, len(seen), parts_per_image)
        for index in first_parts[: NUM_PICTURES - len(pictures)]:
            note = f"MSE {errors[-1][index]:.4f}, mean image {mean_image_errors[-1][index]:.4f}"
            images = (image[index].copy() for image in (wanted, seen, restored))
            pictures.append(Restoration(scans[len(pictures) % len(scans)], *images, note))
        position += len(seen)
    shape = (position // parts_per_image, parts_per_image)
    names = [scans[image % len(scans)] for image in range(shape[0])]
    both = (np.concatenate(values).reshape(shape) for values in (errors, mean_image_errors))
    return Measurement(np.concatenate(codes).reshape(*shape, -1), per_scan(names, *both), pictures)


@dataclass(frozen=True)
class Number:
    """A result.

    Attributes:
        name: Key of the number.
        value: The number itself.
        unit: Unit or range of the value.
        n: How many values the number summarizes.
        of: What these values are.
    """

    name: str
    value: float
    unit: str
    n: int
    of: str


def numbers(similarities: Similarities, probe: Probe, scans: Sequence[ScanErrors]) -> list[Number]:
    """Return what sums up an analysis; standard deviations are those over the pairs, or over the scans."""
    same, different = "pairs of parts of the same whole", "pairs of parts of different wholes"
    against = f"{same}, in both orders, each against {probe.negatives} parts of other wholes"
    return [
        *_mean_and_deviation("similarity_same", similarities.same, COSINE, same),
        *_mean_and_deviation("similarity_different", similarities.different, COSINE, different),
        Number("probe", probe.value, f"{NATS}, temperature {TEMPERATURE}", probe.pairs, against),
        Number("probe_chance", probe.chance, NATS, probe.negatives, "parts of other wholes: log(1 + n)"),
        *_mean_and_deviation("mse", [scan.mse for scan in scans], SQUARE, "scans"),
        *_mean_and_deviation("mean_image_mse", [scan.mean_image_mse for scan in scans], SQUARE, "scans"),
    ]


def _mean_and_deviation(name: str, values: Sequence[float], unit: str, of: str) -> list[Number]:
    statistics = {"mean": np.mean(values), "sd": np.std(values)}
    return [Number(f"{name}_{kind}", float(value), unit, len(values), of) for kind, value in statistics.items()]


def table(numbers: Sequence[Number]) -> str:
    """Return the numbers as a short table."""
    found = {number.name: number for number in numbers}
    rows = []
    for title, name, digits, counted in (
        ("similarity, same whole", "similarity_same", 3, "pairs"),
        ("similarity, different wholes", "similarity_different", 3, "pairs"),
        ("MSE of the restorations", "mse", 5, "scans"),
        ("MSE of the mean image", "mean_image_mse", 5, "scans"),
    ):
        mean, deviation = found[f"{name}_mean"], found[f"{name}_sd"]
        rows.append((title, f"{mean.value:.{digits}f} ± {deviation.value:.{digits}f}", f"{mean.n} {counted}"))
    chance = found["probe_chance"]
    note = f"chance {chance.value:.3f}, {chance.n} negatives"
    rows.insert(2, ("contrastive probe", f"{found['probe'].value:.3f}", note))
    return "\n".join(f"{title:<30}{value:<22}{note}" for title, value, note in rows)
