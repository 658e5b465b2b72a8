"""Keras layers by rank: the only place that knows that Conv2D and Conv3D exist.

Every function returns a new layer. ``seed`` is the experiment's seed; a layer draws from its own stream,
derived from the seed and the layer's name, so that two layers never share one and a network looks the same at
any input size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Layer, Tensor, as_tuple

Normalization = Literal["group", "layer", "batch", "none"]
MAX_GROUPS = 8
# A group of one channel has no mean over its map, and in a map of one voxel nothing at all is left of it.
MIN_CHANNELS = 4
MOMENTUM = 0.9


def layer_seed(seed: int, name: str) -> int:
    """Return the seed of the layer called ``name``, in [0, 2**31)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def convolution(
    rank: int,
    filters: int,
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    activation: str | None = None,
    use_bias: bool = True,
    map_shape: Sequence[int | None] = (),
    seed: int,
    name: str,
) -> Layer:
    """Return a convolution with "same" padding and He initialisation.

    Args:
        rank: 2 or 3.
        filters: Channels of the result.
        kernel_size: Edge of the kernel, one for all axes or one per axis.
        strides: Likewise.
        dilation: Likewise.
        activation: Applied to the result.
        use_bias: Whether a bias is added.
        map_shape: ``(batch, *spatial, channels)`` of what it is applied to. On a CPU, oneDNN's bfloat16 convolution of
            volumes whose first axis is shorter than the kernel gives wrong maps or gradients, NaN among them: such a
            layer, and one for maps of any size, computes in float32 whatever the precision policy.
        seed: The experiment's seed.
        name: Name of the layer.
    """
    kernel_size = as_tuple(kernel_size, rank, "kernel_size")
    edge = (map_shape[1] or 1) if len(map_shape) > 1 else kernel_size[0]
    short = rank == 3 and edge < kernel_size[0]
    return _ranked("Conv", rank)(
        filters,
        kernel_size,
        dtype="float32" if short and keras.config.dtype_policy().compute_dtype == "bfloat16" else None,
        strides=as_tuple(strides, rank, "strides"),
        padding="same",
        dilation_rate=as_tuple(dilation, rank, "dilation"),
        activation=activation,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.HeNormal(seed=layer_seed(seed, name)),
        name=name,
    )


def transposed_convolution(rank: int, filters: int, factor: int | Sequence[int], *, seed: int, name: str) -> Layer:
    """Return a transposed convolution that enlarges each axis by ``factor``, without overlap."""
    factor = as_tuple(factor, rank, "factor")
    return _ranked("Conv", rank, "Transpose")(
        filters, factor, strides=factor, padding="same", kernel_initializer=_glorot(seed, name), name=name
    )


def logits_convolution(rank: int, num_classes: int, *, seed: int, name: str) -> Layer:
    """Return the 1x1 convolution that ends a dense prediction; float32 under every precision policy."""
    initializer = _glorot(seed, name)
    return _ranked("Conv", rank)(num_classes, 1, kernel_initializer=initializer, dtype="float32", name=name)


def dense(units: int, *, activation: str | None = None, seed: int, name: str) -> Layer:
    """Return a fully connected layer with Glorot initialisation."""
    return keras.layers.Dense(units, activation=activation, kernel_initializer=_glorot(seed, name), name=name)


def logits_dense(num_outputs: int, *, seed: int, name: str) -> Layer:
    """Return the fully connected layer that ends a classifier; float32 under every precision policy.

    Its weights are N(0, 0.01^2): the first loss is then close to log(num_outputs), which Glorot's are not
    under batch normalization and dropout. They are not zero, because zeros would send no gradient to the
    encoder.
    """
    initializer = keras.initializers.RandomNormal(stddev=0.01, seed=layer_seed(seed, name))
    return keras.layers.Dense(num_outputs, kernel_initializer=initializer, dtype="float32", name=name)


def max_pool(rank: int, size: int | Sequence[int], *, name: str) -> Layer:
    """Return a maximum pooling without overlap; an odd rest at the end of an axis is dropped."""
    return _ranked("MaxPooling", rank)(as_tuple(size, rank, "size"), name=name)


def overlapping_max_pool(rank: int, size: int | Sequence[int], strides: int | Sequence[int], *, name: str) -> Layer:
    """Return a maximum pooling with "same" padding: an axis of L voxels keeps ceil(L / stride) of them."""
    size, strides = as_tuple(size, rank, "size"), as_tuple(strides, rank, "strides")
    return _ranked("MaxPooling", rank)(size, strides=strides, padding="same", name=name)


def average_pool(rank: int, size: int | Sequence[int], *, name: str) -> Layer:
    """Return an average pooling without overlap; an odd rest at the end of an axis is dropped."""
    return _ranked("AveragePooling", rank)(as_tuple(size, rank, "size"), name=name)


POOLS = {"max": max_pool, "avg": average_pool}  # by the value of the key "pooling"


def global_pool(rank: int, kind: Literal["max", "avg"], *, name: str) -> Layer:
    """Return a pooling ``(batch, *spatial, channels)`` → ``(batch, channels)``."""
    return _ranked({"max": "GlobalMaxPooling", "avg": "GlobalAveragePooling"}[kind], rank)(name=name)


def adaptive_average_pool(x: Tensor, bins: int | Sequence[int], *, name: str) -> Tensor:
    """Average ``x`` over a fixed number of bins per axis, whatever its size.

    The bins are PyTorch's (``torch.nn.AdaptiveAvgPool3d``): bin i of o on an axis of L voxels holds those from
    floor(i L / o) to ceil((i + 1) L / o). They overlap where o does not divide L, and repeat voxels where o > L.
    A box's mean is the mean along one axis of the means along the others, so the axes are pooled one by one; the
    layers are Keras's own, hence a saved model needs no code of ours.

    Args:
        x: ``(batch, *spatial, channels)`` in 2D or 3D; of known size unless ``bins`` is 1.
        bins: Number of bins, one for all axes or one per axis.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, *bins, channels)``.

    Raises:
        ValueError: A size that is not known.
    """
    rank = len(x.shape) - 2
    sizes, bins = x.shape[1:-1], as_tuple(bins, rank, "bins")
    if bins == (1,) * rank:
        return _ranked("GlobalAveragePooling", rank)(keepdims=True, name=name)(x)
    if None in sizes:
        raise ValueError(f"bins: {bins} bins need a map of known size, received {tuple(x.shape)}")
    windows = tuple(size // count if size % count == 0 else 1 for size, count in zip(sizes, bins, strict=True))
    if max(windows) > 1:
        x = average_pool(rank, windows, name=f"{name}_even")(x)
    for axis, (size, count) in enumerate(zip(sizes, bins, strict=True)):
        if size % count:
            x = _average_bins(x, axis, count, name=f"{name}_axis_{axis}")
    return x


def up_sampling(rank: int, factor: int | Sequence[int], *, name: str) -> Layer:
    """Return a nearest-neighbour enlargement of each axis by ``factor``."""
    return _ranked("UpSampling", rank)(as_tuple(factor, rank, "factor"), name=name)


def normalization(
    kind: Literal["group", "layer", "batch"] | None,
    num_channels: int,
    *,
    momentum: float = MOMENTUM,
    epsilon: float = 1e-3,
    name: str,
) -> Layer:
    """Return a normalization layer, for maps ``(batch, *spatial, channels)`` and vectors ``(batch, channels)`` alike.

    Args:
        kind: ``"group"``, also for None: groups of channels over the voxels of each scan. ``"layer"``: all channels at
            once. Neither depends on the batch, so that one or two scans per step train, and what is trained is what is
            validated. ``"batch"``: each channel over the batch, in validation by running statistics.
        num_channels: Channels of the input; there are at most 8 groups, as many as divide it into equal ones of at
            least 4 channels.
        momentum: Share of its running statistics that a batch normalization keeps in a step. With Keras's 0.99 a
            training of a few hundred steps would be validated, and its best epoch chosen, by statistics of its past.
        epsilon: Added to the variance; default: Keras's.
        name: Name of the layer.
    """
    if kind == "batch":
        return keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=name)
    groups = 1 if kind == "layer" else _num_groups(num_channels)
    return keras.layers.GroupNormalization(groups, epsilon=epsilon, name=name)


def gru(units: int, *, seed: int, name: str) -> Layer:
    """Return a GRU that gives its last state, with Glorot initialisation and an orthogonal recurrent kernel."""
    return keras.layers.GRU(
        units,
        kernel_initializer=_glorot(seed, f"{name}_input"),
        recurrent_initializer=keras.initializers.Orthogonal(seed=layer_seed(seed, f"{name}_state")),
        seed=layer_seed(seed, name),
        name=name,
    )


def dropout(rate: float, *, seed: int, name: str) -> Layer:
    """Return a dropout layer with its own stream of random numbers."""
    return keras.layers.Dropout(rate, seed=layer_seed(seed, name), name=name)


def _num_groups(num_channels: int) -> int:
    counts = range(1, MAX_GROUPS + 1)
    return max(n for n in counts if n == 1 or (num_channels % n == 0 and num_channels // n >= MIN_CHANNELS))


def _glorot(seed: int, name: str) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=layer_seed(seed, name))


def _average_bins(x: Tensor, axis: int, count: int, *, name: str) -> Tensor:
    """Average one spatial axis, counted from 0, over ``count`` bins of PyTorch's."""
    rank, size = len(x.shape) - 2, x.shape[axis + 1]
    means = []
    for index in range(count):
        start, end = index * size // count, -(-(index + 1) * size // count)
        cropping, window = [(0, 0)] * rank, [1] * rank
        cropping[axis], window[axis] = (start, size - end), end - start
        voxels = _ranked("Cropping", rank)(cropping, name=f"{name}_crop_{index}")(x)
        means.append(average_pool(rank, window, name=f"{name}_mean_{index}")(voxels))
    return keras.layers.Concatenate(axis=axis + 1, name=f"{name}_concat")(means)


def _ranked(prefix: str, rank: int, suffix: str = "") -> type:
    return getattr(keras.layers, f"{prefix}{rank}D{suffix}")
