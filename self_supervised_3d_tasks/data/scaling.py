"""Which intensities of a scan become 0 and 1."""

from typing import Literal

import numpy as np

Scaling = Literal["percentiles", "z_score", "min_max", "window"]

PERCENTILES = (0.5, 99.5)  # nnU-Net's, Isensee et al. 2021
DEVIATIONS = 3.0


def bounds(channel: np.ndarray, scaling: Scaling, window: tuple[float, float] | None) -> tuple[float, float]:
    """Return what becomes 0 and what becomes 1 in one channel of a scan; equal where it has no range.

    The foreground is what lies above the channel's least value: what was masked or padded is left out, and nothing has
    to be known of the body part. Where the foreground has no range either, as in a binary scan, least and most count.

    Args:
        channel: ``(*spatial)``, finite.
        scaling: ``"percentiles"``: the 0.5th and 99.5th of the foreground, which a hot voxel does not move.
            ``"z_score"``: three standard deviations below and above the mean of the foreground. ``"min_max"``: least
            and most, as in the predecessor. ``"window"``: those of ``window``.
        window: Low and high.
    """
    if scaling == "window":
        return window
    least, most = float(channel.min()), float(channel.max())
    if scaling == "min_max" or least == most:
        return least, most
    foreground = channel[channel > least]
    if scaling == "percentiles":
        low, high = np.percentile(foreground, PERCENTILES).tolist()
    else:
        mean, deviation = foreground.mean(dtype=np.float64), foreground.std(dtype=np.float64)
        low, high = float(mean - DEVIATIONS * deviation), float(mean + DEVIATIONS * deviation)
    return (low, high) if low < high else (least, most)
