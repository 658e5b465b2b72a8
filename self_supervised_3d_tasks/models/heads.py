"""Classifiers on top of a code: functions on Keras tensors that return float32 logits.

A feature map ``(batch, *spatial, channels)`` is flattened first. Layer order, widths and parameter counts are
the predecessor's; its activations are left to the losses. `classifier` completes an encoder with one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.limits import ShareBelowOne, Units
from self_supervised_3d_tasks.models import blocks, layers
from self_supervised_3d_tasks.models.layers import Normalization
from self_supervised_3d_tasks.ops.sampling import Sampling
from self_supervised_3d_tasks.shapes import Model, Tensor

HiddenLayers = Annotated[tuple[Units, ...], Field(max_length=100)]


def big_fully(
    x: Tensor,
    num_outputs: int,
    *,
    head_units: HiddenLayers = (2048, 1024),
    normalization: Normalization | None = None,
    dropout_rate: ShareBelowOne = 0.5,
    seed: int,
    name: str = "head",
) -> Tensor:
    """Apply one Dense (ReLU) – normalization – dropout per entry of ``head_units``, then a Dense.

    Args:
        x: ``(batch, ..., channels)``, of known size.
        num_outputs: Number of logits.
        head_units: Widths of the hidden layers.
        normalization: Normalization of the hidden layers, see `layers.normalization`; default: group. A batch
            normalization lets no gradient through in a batch of one, and little but noise in one of two.
        dropout_rate: Rate in [0, 1) after each hidden layer.
        seed: The experiment's seed.
        name: Prefix of the layers' names.

    Returns:
        Logits ``(batch, num_outputs)``, float32.
    """
    x = _flatten(x, name)
    for index, units in enumerate(head_units, start=1):
        x = layers.dense(units, activation="relu", seed=seed, name=f"{name}_dense_{index}")(x)
        x = blocks.normalize(x, normalization, f"{name}_norm_{index}")
        if dropout_rate > 0:
            x = layers.dropout(dropout_rate, seed=seed, name=f"{name}_dropout_{index}")(x)
    return layers.logits_dense(num_outputs, seed=seed, name=f"{name}_logits")(x)


def told_apart(codes: Tensor, normalization: Normalization | None) -> Tensor:
    """Return the codes of a scan's patches without what they have in common, for a head that tells them apart.

    Each feature gets mean 0 and variance 1 over the patches of its scan. Patches are alike, and a head that normalizes
    each scan by itself keeps what all have in common: it finds much the same in every order of them, and with small
    batches it stays at chance.

    Args:
        codes: ``(batch, patches, size)``, of three patches or more: of two, only which has more of a feature is left.
        normalization: Of the hidden layers of the head. That over the batch takes off what all codes have in common
            by itself; they stay as they are, and so does the predecessor's head.

    Returns:
        ``(batch, patches, size)``.
    """
    if normalization == "batch":
        return codes
    return keras.layers.GroupNormalization(-1, center=False, scale=False, name="told_apart")(codes)  # no weights


def sampling(sampling: Sampling, normalization: Normalization | None) -> Sampling:
    """Return how scans are drawn for a task with such a head, which a batch normalization gives a least batch.

    Alone, a code is its own mean, and nothing of it is left; of two, nothing but which is the larger.
    """
    if normalization != "batch":
        return sampling
    return dataclasses.replace(sampling, min_batch=3, min_batch_because="normalizes codes over the batch in its head")


def simple_multiclass(
    x: Tensor,
    num_outputs: int = 5,
    *,
    normalization: Normalization | None = None,
    dropout_rate: ShareBelowOne = 0.5,
    seed: int,
    name: str = "head",
) -> Tensor:
    """Apply Dense 1024 (ReLU) – normalization – dropout – Dense. Arguments as in `big_fully`."""
    options = {"normalization": normalization, "dropout_rate": dropout_rate, "seed": seed, "name": name}
    return big_fully(x, num_outputs, head_units=(1024,), **options)


def softmax(x: Tensor, num_outputs: int, *, seed: int, name: str = "head") -> Tensor:
    """Apply a single Dense: multinomial regression on the code. Arguments as in `big_fully`."""
    return layers.logits_dense(num_outputs, seed=seed, name=f"{name}_logits")(_flatten(x, name))


HEADS: dict[str, Callable[..., Tensor]] = {head.__name__: head for head in (big_fully, simple_multiclass, softmax)}


def classifier(
    encoder: Model,
    head: Callable[..., Tensor],
    num_outputs: int,
    *,
    global_pooling: Literal["avg", "max", "none"] = "avg",
    pool_bins: int = 1,
    seed: int = 0,
) -> Model:
    """Complete an encoder to a classifier of whole scans.

    Args:
        encoder: Model whose output is a map or a vector. The result shares its layers: freezing the encoder
            freezes them here.
        head: One of `HEADS`, its options given.
        num_outputs: Number of logits.
        global_pooling: Pooling of a map ``(batch, *spatial, channels)``; ``"none"`` flattens it. A vector stays as
            it is. ``"avg"`` averages the positive part of the map, which is all of it where it ends with a ReLU.
        pool_bins: Bins per axis of the average, which the head flattens: more than 1 keeps a part of where things
            are (see `layers.adaptive_average_pool`).
        seed: Seed of the initial weights and of dropout.

    Returns:
        A model image ``(batch, *spatial, channels)`` → logits ``(batch, num_outputs)``, float32. The names of
        the layers that were added start with ``head_``.

    Raises:
        ValueError: ``pool_bins`` with another pooling than ``"avg"``.
        UserError: ``pool_bins`` for an encoder whose output is a vector.
    """
    x = encoder.output
    rank = len(x.shape) - 2
    if pool_bins > 1:
        if global_pooling != "avg":
            raise ValueError(
                f'pool_bins: {pool_bins} bins per axis need global_pooling "avg", received {global_pooling!r}'
            )
        if rank == 0:
            raise UserError(
                f"pool_bins: {pool_bins} bins per axis need a map, but the encoder ends in a vector; use "
                '"pooling": "none", or leave pool_bins out'
            )
        x = layers.adaptive_average_pool(_rectified(x), pool_bins, name="head_pool")
    elif rank > 0 and global_pooling != "none":
        x = layers.global_pool(rank, global_pooling, name="head_pool")(_rectified(x) if global_pooling == "avg" else x)
    return keras.Model(encoder.input, head(x, num_outputs, seed=seed), name="classification")


def _rectified(x: Tensor) -> Tensor:
    # A map that ends with a normalization has a mean of nearly 0, whatever it shows.
    return keras.layers.ReLU(name="head_relu")(x)


def _flatten(x: Tensor, name: str) -> Tensor:
    return keras.layers.Flatten(name=f"{name}_flatten")(x) if len(x.shape) > 2 else x
