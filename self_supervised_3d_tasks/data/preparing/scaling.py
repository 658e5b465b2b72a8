"""Which intensities of a scan become 0 and 1."""

from typing import Literal, NamedTuple

import numpy as np

Scaling = Literal["percentiles", "z_score", "min_max", "window"]

PERCENTILES = (0.5, 99.5)  # nnU-Net's, Isensee et al. 2021
DEVIATIONS = 3.0


class IntensityRange(NamedTuple):
    """What becomes 0 and what becomes 1 in each channel of a scan.

    Attributes:
        low: A number per channel.
        high: A number per channel; where it is not above ``low`` the channel has no range and becomes zeros.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def scale(self, array: np.ndarray) -> np.ndarray:
        """Scale the whole scan or any part of it; every voxel comes out the same.

        Args:
            array: ``(*spatial, channels)``, finite; float32 or integers of at most 16 bits.

        Returns:
            A new array ``(*spatial, channels)``, float32 in [0, 1].
        """
        # float64 for the few bounds only: the difference of two large float32 can overflow.
        low, high = np.array(self, np.float64)
        span = np.where(high > low, high - low, 1.0)
        is_extreme = np.any(span > np.finfo(np.float32).max) or np.any(span < np.finfo(np.float32).tiny)
        dtype = np.float64 if is_extreme else np.float32
        scaled = np.subtract(array, low.astype(dtype), dtype=dtype)
        scaled /= span.astype(dtype)
        return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)


class Contrast(NamedTuple):
    """What is left to see of a scan after scaling, per channel.

    Attributes:
        spread: The distance of the 1st and the 99th percentile of the voxels, in [0, 1].
        clipped: The share of the voxels that are 0 or 1.
    """

    spread: tuple[float, ...]
    clipped: tuple[float, ...]

    @classmethod
    def of(cls, image: np.ndarray, *, is_photograph: bool = False) -> "Contrast":
        """Look at every other voxel along each axis of an image.

        Args:
            image: ``(*spatial, channels)`` in [0, 1].
            is_photograph: Its colours are seen together, as one channel: in that of a retina there is hardly any blue.
        """
        voxels = image[(slice(None, None, 2),) * (image.ndim - 1)].reshape(-1, image.shape[-1])
        low, high = np.percentile(voxels, (1, 99), axis=0)
        spread, clipped = high - low, np.mean((voxels <= 0) | (voxels >= 1), axis=0)
        if is_photograph:
            spread, clipped = spread.max(keepdims=True), clipped.mean(keepdims=True)
        return cls(tuple(map(float, spread)), tuple(map(float, clipped)))


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
