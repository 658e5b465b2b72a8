"""Channels as voxels, in any rank and with a factor for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Tensor


def depth_to_space(x: Tensor, factor: Sequence[int]) -> Tensor:
    """Spread the channels of every position over a block of its own.

    Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", equation 4, in any rank. The position in the block varies slowest in the channels, its first
    axis slowest of all: the order of TensorFlow's operation of this name, which is for squares in 2D alone.

    Args:
        x: ``(batch, *spatial, prod(factor) * channels)``, spatial sizes known.
        factor: Size of the block along each axis.

    Returns:
        ``(batch, *(spatial * factor), channels)``.

    Raises:
        ValueError: The channels are not a multiple of the block's size.
    """
    spatial, factor = tuple(x.shape[1:-1]), tuple(factor)
    rank, (channels, rest) = len(spatial), divmod(x.shape[-1], math.prod(factor))
    if rest:
        raise ValueError(f"channels: expected a multiple of {math.prod(factor)}, received {x.shape[-1]}")
    # (batch, *spatial, *factor, channels): the block's axes come behind those that they refine.
    x = keras.ops.reshape(x, (-1, *spatial, *factor, channels))
    pairs = [axis for first in range(1, rank + 1) for axis in (first, first + rank)]
    x = keras.ops.transpose(x, (0, *pairs, 2 * rank + 1))
    return keras.ops.reshape(x, (-1, *(size * ratio for size, ratio in zip(spatial, factor, strict=True)), channels))
