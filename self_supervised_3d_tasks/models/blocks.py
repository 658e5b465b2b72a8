"""The two convolutions of a U-Net level, plain and residual, and the convolution that VGG and ResNet repeat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from absl import logging

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Tensor

FEWEST_VALUES = 4  # of a group, below which a normalization leaves hardly more than signs


def plain_block(
    x: Tensor,
    filters: int,
    *,
    normalization: Normalization | None,
    momentum: float = layers.MOMENTUM,
    dropout: float,
    seed: int,
    name: str,
) -> Tensor:
    """Apply Conv 3 (ReLU) – norm – dropout – Conv 3 (ReLU) – norm, the predecessor's block.

    Args:
        x: ``(batch, *spatial, channels)``.
        filters: Channels of both convolutions.
        normalization: See `layers.normalization`; ``"none"`` leaves it out.
        momentum: Momentum of a batch normalization.
        dropout: Rate in [0, 1) between the convolutions.
        seed: The experiment's seed.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, *spatial, filters)``.
    """
    rank = len(x.shape) - 2
    x = layers.convolution(rank, filters, 3, activation="relu", map_shape=x.shape, seed=seed, name=f"{name}_conv_1")(x)
    x = normalize(x, normalization, f"{name}_norm_1", momentum=momentum)
    x = _drop(x, dropout, seed, f"{name}_dropout")
    x = layers.convolution(rank, filters, 3, activation="relu", map_shape=x.shape, seed=seed, name=f"{name}_conv_2")(x)
    return normalize(x, normalization, f"{name}_norm_2", momentum=momentum)


def residual_block(
    x: Tensor,
    filters: int,
    *,
    normalization: Normalization | None,
    momentum: float = layers.MOMENTUM,
    dropout: float,
    seed: int,
    name: str,
) -> Tensor:
    """Apply ReLU(F(x) + shortcut(x)), F = Conv 3 – norm – ReLU – dropout – Conv 3 – norm.

    He et al. 2016, "Deep Residual Learning for Image Recognition", figure 2. The shortcut is the identity
    where the channels agree, else Conv 1 – norm. Arguments as in `plain_block`.
    """
    rank = len(x.shape) - 2
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = layers.convolution(rank, filters, 1, seed=seed, name=f"{name}_shortcut_conv")(x)
        shortcut = normalize(shortcut, normalization, f"{name}_shortcut_norm", momentum=momentum)
    x = layers.convolution(rank, filters, 3, map_shape=x.shape, seed=seed, name=f"{name}_conv_1")(x)
    x = normalize(x, normalization, f"{name}_norm_1", momentum=momentum)
    x = keras.layers.ReLU(name=f"{name}_relu_1")(x)
    x = _drop(x, dropout, seed, f"{name}_dropout")
    x = layers.convolution(rank, filters, 3, map_shape=x.shape, seed=seed, name=f"{name}_conv_2")(x)
    x = normalize(x, normalization, f"{name}_norm_2", momentum=momentum)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu_2")(x)


def normalized_convolution(
    x: Tensor,
    filters: int,
    kernel_size: int,
    *,
    strides: int | Sequence[int] = 1,
    dilation: int = 1,
    normalization: Normalization | None,
    seed: int,
    name: str,
) -> Tensor:
    """Apply Conv – norm, with the normalization's constants of VGG's and ResNet's public code.

    Args:
        x: ``(batch, *spatial, channels)``.
        filters: Channels of the result.
        kernel_size: Edge of the kernel.
        strides: One for all axes, or one per axis.
        dilation: Distance of the voxels that the kernel sees.
        normalization: See `layers.normalization`; ``"none"`` leaves it out.
        seed: The experiment's seed.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, *spatial / strides, filters)``, rounded up.
    """
    x = layers.convolution(
        len(x.shape) - 2,
        filters,
        kernel_size,
        strides=strides,
        dilation=dilation,
        map_shape=x.shape,
        use_bias=normalization == "none",  # a normalization takes the mean out, and a bias with it
        seed=seed,
        name=f"{name}_conv",
    )(x)
    return normalize(x, normalization, f"{name}_norm", epsilon=1e-5)  # PyTorch's, which the papers' code trained with


def normalize(
    x: Tensor, kind: Normalization | None, name: str, *, momentum: float = layers.MOMENTUM, epsilon: float = 1e-3
) -> Tensor:
    """Apply `layers.normalization`, whose constants these are; "none" leaves ``x`` as it is."""
    if kind == "none":
        return x
    layer = layers.normalization(kind, x.shape[-1], momentum=momentum, epsilon=epsilon, name=name)
    if isinstance(layer, keras.layers.GroupNormalization) and None not in x.shape[1:]:
        values = math.prod(x.shape[1:]) // layer.groups
        if values < FEWEST_VALUES:
            logging.warning(
                "normalization: %s normalizes groups of %d value(s), of which little is left; use more filters, fewer "
                'poolings or "batch"',
                name,
                values,
            )
    return layer(x)


def _drop(x: Tensor, rate: float, seed: int, name: str) -> Tensor:
    return layers.dropout(rate, seed=seed, name=name)(x) if rate > 0 else x
