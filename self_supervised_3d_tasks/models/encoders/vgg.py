"""VGG in any rank, with a schedule of pools that thin volumes survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import WidthMultiplier
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.encoders import PYRAMID_PREFIX
from self_supervised_3d_tasks.models.encoders.base import check_size, scaled_width, size_text
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Model

# By name, the convolutions of each block; a pool follows each block.
ARCHITECTURES = {"vgg11": (1, 1, 2, 2, 2)}
WIDTHS = (64, 128, 256, 512, 512)
NUM_POOLS = len(WIDTHS)

PoolSchedule = list[list[Annotated[int, Field(ge=1, le=2)]]]


def build(
    name: str,
    input_shape: tuple[int | None, ...],
    *,
    width_multiplier: WidthMultiplier = 1.0,
    pool_schedule: PoolSchedule | None = None,
    pooling: Literal["max", "avg", "none"] = "max",
    normalization: Normalization | None = None,
    seed: int = 0,
) -> Model:
    """Build the convolutions of a VGG network, without its dense layers.

    Simonyan and Zisserman 2015, "Very Deep Convolutional Networks", table 1, column A for VGG-11, with a
    normalization after each convolution: 64 – P – 128 – P – 256 ×2 – P – 512 ×2 – P – 512 ×2 – P, all of kernel 3.

    Without a schedule each pool halves every axis that can give as much: an axis of L voxels is halved
    min(5, floor(log2 L)) times. An axis that is thinner than the plane of the first two waits for them, so that a
    volume of few slices starts with (2, 2, 1) pools; a longer one goes on behind them. In that plane each
    convolution therefore sees the scale that it sees in larger images. Along the slices the scale depends on their
    number: give a schedule where pretraining and finetuning differ in it. The pyramid holds the last map of each
    size, so a pool that halves no axis starts no level.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(*spatial, channels)``.
        width_multiplier: Multiplies the number of channels of every convolution.
        pool_schedule: For each of the five pools the factors by axis, 1 or 2.
        pooling: The fifth pool; ``"none"`` leaves it out.
        normalization: Normalization of every convolution.
        seed: Seed of the initial weights.

    Returns:
        A model named "encoder": image ``(batch, *spatial, channels)`` → the map after the fifth pool.

    Raises:
        UserError: The schedule is malformed, or halves an axis more often than it has voxels for.
    """
    check_input_shape(name, input_shape, pool_schedule=pool_schedule, pooling=pooling)
    pools = _pools(input_shape[:-1], pool_schedule, pooling)
    x = image = keras.Input(input_shape, name="image")
    level = 0
    for block, (width, repetitions, pool) in enumerate(zip(WIDTHS, ARCHITECTURES[name], pools, strict=True), start=1):
        filters = scaled_width(width, width_multiplier)
        for index in range(1, repetitions + 1):
            prefix = f"block_{block}_{index}"
            x = blocks.normalized_convolution(x, filters, 3, normalization=normalization, seed=seed, name=prefix)
            x = keras.layers.ReLU(name=f"{prefix}_relu")(x)
        halves, is_last = max(pool) > 1, block == NUM_POOLS
        if halves or is_last:
            x = keras.layers.Identity(name=f"{PYRAMID_PREFIX}{level}")(x)
            level += 1
        if halves:
            make_pool = layers.POOLS[pooling] if is_last else layers.max_pool
            x = make_pool(len(pool), pool, name="final_pool" if is_last else f"block_{block}_pool")(x)
    return keras.Model(image, x, name="encoder")


def check_input_shape(
    name: str,
    input_shape: tuple[int | None, ...],
    *,
    pool_schedule: PoolSchedule | None = None,
    pooling: str = "max",
    decoder: bool = False,
) -> None:
    """Raise if the network cannot take ``input_shape``; loads no Keras.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(*spatial, channels)`` of what the encoder sees.
        pool_schedule: See `build`.
        pooling: The fifth pool; ``"none"`` leaves it out.
        decoder: Whether a decoder follows.

    Raises:
        UserError: The sizes do not fit, see `base.check_size`, or the schedule is malformed.
    """
    spatial = input_shape[:-1]
    settings = {'pooling="none"': _divisors(spatial, pool_schedule, "none")}
    # The lowest bit that is set is the largest power of two that divides a size.
    halvings = [NUM_POOLS if size is None else min(NUM_POOLS, (size & -size).bit_length() - 1) for size in spatial]
    if pool_schedule is not None:
        settings["no pool_schedule"] = _divisors(spatial, None, pooling)
    elif max(halvings) > 0:
        schedule = f"a pool_schedule that halves the axes at most {size_text(halvings)} times"
        settings[schedule] = tuple(2**count for count in halvings)
    divisors = _divisors(spatial, pool_schedule, pooling)
    check_size(name, spatial, divisors, "pools", decoder=decoder, settings=settings)


def _divisors(spatial: Sequence[int | None], pool_schedule: PoolSchedule | None, pooling: str) -> tuple[int, ...]:
    """Return by which factor all pools together reduce each axis."""
    return tuple(math.prod(factors) for factors in zip(*_pools(spatial, pool_schedule, pooling), strict=True))


def _pools(spatial: Sequence[int | None], pool_schedule: PoolSchedule | None, pooling: str) -> list[tuple[int, ...]]:
    """Return the factors by axis of the five pools; all 1 where a pool is left out."""
    if pool_schedule is None:
        pools = _automatic_pools(spatial)
    else:
        pools = [tuple(factors) for factors in pool_schedule]
        rank = len(spatial)
        if len(pools) != NUM_POOLS or any(len(pool) != rank or not set(pool) <= {1, 2} for pool in pools):
            raise UserError(
                f"pool_schedule: expected {NUM_POOLS} lists of {rank} factors, each 1 or 2, received "
                f"{pool_schedule!r}; leave it out for pools that follow from the size"
            )
    return pools if pooling != "none" else [*pools[:-1], (1,) * len(spatial)]


def _automatic_pools(spatial: Sequence[int | None]) -> list[tuple[int, ...]]:
    counts = [NUM_POOLS if size is None else min(NUM_POOLS, size.bit_length() - 1) for size in spatial]
    # In the plane of the first two axes, whose scale is then that of the first pools at any size.
    plane = max(counts[:2])
    skipped = [max(0, plane - count) for count in counts]
    return [
        tuple(2 if first <= pool < first + count else 1 for first, count in zip(skipped, counts, strict=True))
        for pool in range(NUM_POOLS)
    ]
