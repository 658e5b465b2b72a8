"""Restoration heads: an image of a decoder's map, at any scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.shapes import Layer, Model, Tensor


def restoration_head(
    map_shape: Sequence[int],
    image_shape: Sequence[int],
    *,
    kind: Literal["paper", "code"],
    normalization: Normalization | None,
    seed: int,
    name: str,
) -> Model:
    """Return the model map ``(batch, *map_shape)`` → image ``(batch, *image_shape)`` in [0, 1], float32.

    Zhou et al. 2023, PCRLv2. "paper": Conv 3 – norm – ReLU – Conv 3, enlarged to the image's size, then a sigmoid.
    The authors' "code": Conv 3 – norm – sigmoid, then enlarged; a normalization as the last thing before the sigmoid
    fixes the image's mean and contrast over the batch.

    Args:
        map_shape: ``(*spatial, channels)`` of the map.
        image_shape: ``(*spatial, channels)`` of the image, sizes that are multiples of the map's.
        kind: "paper" or "code".
        normalization: Normalization of the convolution.
        seed: Seed of the initial weights.
        name: Name of the model, and prefix of its layers' names.
    """
    *spatial, channels = image_shape
    rank = len(spatial)
    hidden = max(1, map_shape[-1] // 2) if kind == "paper" else channels
    factor = [large // small for large, small in zip(spatial, map_shape[:-1], strict=True)]
    features = keras.Input(map_shape, name=f"{name}_map")
    x = layers.convolution(rank, hidden, 3, map_shape=features.shape, seed=seed, name=f"{name}_conv_1")(features)
    x = blocks.normalize(x, normalization, f"{name}_norm")
    sigmoid = keras.layers.Activation("sigmoid", dtype="float32", name=f"{name}_image")
    if kind == "paper":
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = layers.convolution(rank, channels, 3, map_shape=x.shape, seed=seed, name=f"{name}_conv_2")(x)
        x = sigmoid(enlarge(x, factor, name=f"{name}_enlarge"))
    else:
        x = enlarge(sigmoid(x), factor, name=f"{name}_enlarge")
    return keras.Model(features, x, name=name)


def enlarge(x: Tensor, factor: Sequence[int], *, name: str) -> Tensor:
    """Enlarge each axis by linear interpolation, float32, as PyTorch does with ``align_corners=False``.

    Keras interpolates images alone: in 3D the first two axes are enlarged as one image, whose channels are all that is
    left, then the third.

    Args:
        x: ``(batch, *spatial, channels)``, of known size unless nothing is enlarged.
        factor: Enlargement of each axis.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, *(spatial * factor), channels)``.
    """
    *spatial, channels = x.shape[1:]
    if max(factor) == 1:
        return x
    if len(spatial) == 2:
        return _bilinear(factor, name=name)(x)
    a, b, c = (size * ratio for size, ratio in zip(spatial, factor, strict=True))
    x = _reshape((spatial[0], spatial[1], spatial[2] * channels), name=f"{name}_plane")(x)
    x = _bilinear(factor[:2], name=f"{name}_axes_0_1")(x)
    x = _reshape((a * b, spatial[2], channels), name=f"{name}_lines")(x)
    x = _bilinear((1, factor[2]), name=f"{name}_axis_2")(x)
    return _reshape((a, b, c, channels), name=f"{name}_volume")(x)


def _bilinear(factor: Sequence[int], *, name: str) -> Layer:
    return keras.layers.UpSampling2D(tuple(factor), interpolation="bilinear", dtype="float32", name=name)


def _reshape(shape: tuple[int, ...], *, name: str) -> Layer:
    return keras.layers.Reshape(shape, dtype="float32", name=name)
