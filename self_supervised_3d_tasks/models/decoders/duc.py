"""Dense upsampling convolution: a thin decoder that learns every voxel's logits at the coarse map."""

from __future__ import annotations

import math

from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import Units
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.depth_to_space import depth_to_space
from self_supervised_3d_tasks.models.encoders import pyramid_outputs
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Layer, Model, Tensor

MOST_FILTERS = 64  # of the first convolution, if nothing else is said


def duc(
    encoder: Model,
    *,
    num_classes: int,
    duc_filters: Units | None = None,
    normalization: Normalization | None = None,
    seed: int = 0,
) -> Model:
    """Complete an encoder with Conv 3 – norm – ReLU – Conv 1 – depth to space.

    Wang et al. 2018, "Understanding Convolution for Semantic Segmentation", section 3.1; in 3D Zhuang et al. 2019,
    "Self-supervised Feature Learning for 3D Medical Images by Playing a Rubik's Cube". Without skip connections
    and transposed convolutions, each position of the encoder's deepest map gives the logits of all the voxels that
    it stands for: prod(r) · num_classes outputs, r being image / map on each axis. A final pooling of the encoder,
    which has no weights, would only coarsen that map and is left out.

    It has fewer weights than the decoder of a U-Net, as long as the map is not too coarse for its channels: the
    last convolution grows with prod(r), in 3D 512 outputs per class at a ratio of 8, 32768 at 32. Prefer encoders
    with a finer map, such as resnet18 with ``output_stride`` 8.

    Args:
        encoder: A model with `pyramid_outputs`, for images of known size. The result shares its layers: freezing
            the encoder freezes them here.
        num_classes: Classes, background included.
        duc_filters: Filters of the first convolution. Default: 64, or fewer where that would be more weights than
            a U-Net's decoder has.
        normalization: Normalization of the first convolution.
        seed: Seed of the initial weights.

    Returns:
        A model image ``(batch, *spatial, channels)`` → logits ``(batch, *spatial, num_classes)``, float32.

    Raises:
        UserError: The image's size is not a multiple of the map's.
    """
    *skips, x = pyramid_outputs(encoder)
    rank, ratios = len(x.shape) - 2, _ratios(encoder.input, x)
    num_outputs = math.prod(ratios) * num_classes
    filters = duc_filters or _default_filters(x, skips, num_outputs)
    if filters < num_classes:
        logging.warning(
            "duc_filters: %d filters cannot tell %d classes apart, but at a ratio of %s more would outweigh a U-Net's "
            "decoder. Set duc_filters, or an encoder with a finer map, such as resnet18 with output_stride 8.",
            filters,
            num_classes,
            ratios,
        )
    x = layers.convolution(rank, filters, 3, map_shape=x.shape, seed=seed, name="decoder_conv")(x)
    # Of a single value a group normalization would leave nothing.
    x = blocks.normalize(x, "none" if math.prod(x.shape[1:]) == 1 else normalization, "decoder_norm")
    x = keras.layers.ReLU(name="decoder_relu")(x)
    logits = layers.logits_convolution(rank, num_outputs, seed=seed, name="decoder_logits")
    x = depth_to_space(logits(x), ratios)
    _start_equal(logits, num_classes)
    return keras.Model(encoder.input, x, name="segmentation")


def _start_equal(logits: Layer, num_classes: int) -> None:
    """Give all voxels of a block the same initial weights.

    Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution". As if the map itself was classified and
    then enlarged: the voxels of a block pull the map the same way from the first step on, where weights of their
    own would cancel out.
    """
    *window, filters, num_outputs = logits.kernel.shape
    kernel = logits.kernel_initializer((*window, filters, num_classes))
    logits.kernel.assign(keras.ops.tile(kernel, num_outputs // num_classes))  # along the last axis


def _default_filters(x: Tensor, skips: list[Tensor], num_outputs: int) -> int:
    """Return as many filters, 1 to 64, as leave the head thinner than a U-Net's decoder.

    Args:
        x: The deepest map.
        skips: The others, for each of which that decoder has a block of two convolutions: one on the map and as
            many channels from below, one on the result.
        num_outputs: Filters of the last convolution.
    """
    if not skips:
        return MOST_FILTERS
    window = 3 ** (len(x.shape) - 2)
    replaced = sum(3 * window * skip.shape[-1] ** 2 for skip in skips)
    affordable = (replaced - num_outputs) // (window * x.shape[-1] + num_outputs)
    return max(1, min(MOST_FILTERS, affordable))


def _ratios(image: Tensor, x: Tensor) -> tuple[int, ...]:
    """Return by how much the image is finer than the map on each axis."""
    fine, coarse = image.shape[1:-1], x.shape[1:-1]
    if None in fine:
        raise ValueError(f"duc: expected an encoder for images of known size, received {fine}")
    if any(large % small for large, small in zip(fine, coarse, strict=True)):
        raise UserError(
            f"data_dim: the decoder duc cannot enlarge a map of size {coarse} to {fine}; use sizes that every "
            "pooling divides, such as multiples of 32"
        )
    return tuple(large // small for large, small in zip(fine, coarse, strict=True))
