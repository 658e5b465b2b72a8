"""ResNet in any rank: with the strides of a classifier, or dilated for dense predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import WidthMultiplier
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.encoders import PYRAMID_PREFIX
from self_supervised_3d_tasks.models.encoders.base import check_size, scaled_width
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Model, Tensor

# By name, the basic blocks of each stage.
ARCHITECTURES = {"resnet18": (2, 2, 2, 2)}
WIDTHS = (64, 128, 256, 512)
# By output stride, the stride and the dilation of each stage.
STAGES = {32: ((1, 1), (2, 1), (2, 1), (2, 1)), 8: ((1, 1), (2, 1), (1, 2), (1, 4))}


def build(
    name: str,
    input_shape: tuple[int | None, ...],
    *,
    width_multiplier: WidthMultiplier = 1.0,
    output_stride: Literal[8, 32] = 32,
    normalization: Normalization | None = None,
    seed: int = 0,
) -> Model:
    """Build a ResNet of basic blocks, without its pooling and dense layer.

    He et al. 2016, "Deep Residual Learning for Image Recognition", table 1. In 3D as in Hara et al. 2018, "Can
    Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?": the stem has kernel 7 in every axis and
    keeps the resolution of the last one, the slices, which ends at a stride of 16. Output stride 8 is the variant
    of Chen et al. 2019, "Med3D", for masks: the stem halves every axis, and the last two stages are dilated by 2
    and 4 instead of halving. Both have the same weights, so one can be pretrained for the other; in the plane each
    kernel then sees the scale that it was pretrained at.

    The pyramid holds the last map of each stride: the stem's, and that of each stage before the next one halves.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(*spatial, channels)``.
        width_multiplier: Multiplies the number of channels of every convolution.
        output_stride: Stride of the last map.
        normalization: Normalization of every convolution.
        seed: Seed of the initial weights.

    Returns:
        A model named "encoder": image ``(batch, *spatial, channels)`` → the map of the last stage.
    """
    check_input_shape(name, input_shape, output_stride=output_stride)
    settings = {"normalization": normalization, "seed": seed}
    widths, stages = [scaled_width(width, width_multiplier) for width in WIDTHS], STAGES[output_stride]
    rank, image = len(input_shape) - 1, keras.Input(input_shape, name="image")
    strides = _stem_strides(rank, output_stride)
    x = blocks.normalized_convolution(image, widths[0], 7, strides=strides, **settings, name="stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.Identity(name=f"{PYRAMID_PREFIX}0")(x)
    x = layers.overlapping_max_pool(rank, 3, 2, name="stem_pool")(x)
    level = previous = 1
    for stage, repetitions in enumerate(ARCHITECTURES[name], start=1):
        stride, dilation = stages[stage - 1]
        for index in range(1, repetitions + 1):
            name_of_block = f"stage_{stage}_block_{index}"
            # The kernel that would stride sees the map before, and so keeps the scale that it has where it strides.
            dilations = (previous if index == 1 else dilation, dilation)
            options = settings | {"stride": stride if index == 1 else 1, "dilations": dilations}
            # By its place and not by its shapes, which depend on the stride and the width.
            project = stage > 1 and index == 1
            x = _basic_block(x, widths[stage - 1], project=project, **options, name=name_of_block)
        previous = dilation
        if stage == len(stages) or stages[stage][0] > 1:
            x = keras.layers.Identity(name=f"{PYRAMID_PREFIX}{level}")(x)
            level += 1
    return keras.Model(image, x, name="encoder")


def _basic_block(
    x: Tensor,
    filters: int,
    *,
    stride: int,
    dilations: tuple[int, int],
    project: bool,
    normalization: Normalization | None,
    seed: int,
    name: str,
) -> Tensor:
    """Apply ReLU(F(x) + shortcut(x)), F = Conv 3 – norm – ReLU – Conv 3 – norm.

    He et al. 2016, figure 2. The shortcut is the identity or, with ``project``, Conv 1 – norm (option B).
    """
    settings = {"normalization": normalization, "seed": seed}
    shortcut = x
    if project:
        shortcut = blocks.normalized_convolution(x, filters, 1, strides=stride, **settings, name=f"{name}_shortcut")
    x = blocks.normalized_convolution(
        x, filters, 3, strides=stride, dilation=dilations[0], **settings, name=f"{name}_first"
    )
    x = keras.layers.ReLU(name=f"{name}_first_relu")(x)
    x = blocks.normalized_convolution(x, filters, 3, dilation=dilations[1], **settings, name=f"{name}_second")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def check_input_shape(
    name: str, input_shape: tuple[int | None, ...], *, output_stride: int = 32, decoder: bool = False
) -> None:
    """Raise if the network cannot take ``input_shape``; loads no Keras.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(*spatial, channels)`` of what the encoder sees.
        output_stride: Stride of the last map.
        decoder: Whether a decoder follows. Then an axis must be a multiple of its stride, or a smaller power of two;
            alone, the encoder takes any size, since its padding keeps one voxel per axis.

    Raises:
        UserError: The sizes do not fit under a decoder, see `base.check_size`, or are not known.
    """
    spatial = input_shape[:-1]
    if decoder and None in spatial:
        raise UserError(f"data_dim: {name!r} needs sizes that are known under a decoder, received {spatial}")
    divisors, settings = _divisors(spatial, output_stride), {"output_stride=8": _divisors(spatial, 8)}
    check_size(name, spatial, divisors, f"output_stride={output_stride}", decoder=decoder, settings=settings)


def _divisors(spatial: Sequence[int | None], output_stride: int) -> list[int]:
    """Return the stride of the last map by axis; of a shorter axis, its largest power of two."""
    rest = 2 * math.prod(stride for stride, _ in STAGES[output_stride])  # 2 of the stem's pool
    strides = [rest * stride for stride in _stem_strides(len(spatial), output_stride)]
    sizes = zip(spatial, strides, strict=True)
    return [stride if size is None else min(stride, 1 << (size.bit_length() - 1)) for size, stride in sizes]


def _stem_strides(rank: int, output_stride: int) -> tuple[int, ...]:
    return (2, 2, 1) if rank == 3 and output_stride == 32 else (2,) * rank
