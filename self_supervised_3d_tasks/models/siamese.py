"""Siamese heads: codes of several batches of views, and what each code predicts of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.contrastive import negative_cosine
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops import global_batch
from self_supervised_3d_tasks.shapes import Model, Tensor

_EPSILON = 1e-5  # added to a variance; PyTorch's, with which the papers' code trained


class Branch(NamedTuple):
    """What one batch of views becomes.

    Attributes:
        pooled: Mean of each channel's positive part over the map, ``(batch, channels)``.
        code: The same, normalized over the batch, ``(batch, channels)``, float32.
        prediction: What the code predicts of another view's code, ``(batch, channels)``, float32.
    """

    pooled: Tensor
    code: Tensor
    prediction: Tensor


def branches(maps: Sequence[Tensor], *, seed: int, name: str) -> list[Branch]:
    """Return code and prediction of several batches of views, by the same weights.

    Zhou et al. 2023, "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
    Image Analysis" (PCRLv2): v = BN(GAP(F)) and f(v), after SimSiam. Each batch is normalized by its own mean and
    variance, in validation too: running statistics would mix views of several sizes, and the validation loss would
    tell little. Normalized codes vary by construction, even if the maps hardly do: what was pooled shows a collapse
    that the codes can hide. A batch of one has codes of zeros.

    The paper's maps end with a ReLU, those of this library's blocks with a normalization, so a ReLU comes first: the
    mean of what was just group-normalized would tell little, and nothing with one channel per group.

    Args:
        maps: ``(batch, *spatial, channels)`` each, of any size.
        seed: Seed of the initial weights.
        name: Prefix of the layers' names; those of the pooled maps and codes are ``<name>_pooled_1``, …,
            ``<name>_code_1``, … in the order of the maps.
    """
    rank, channels = len(maps[0].shape) - 2, maps[0].shape[-1]
    normalize = _over_the_batch(f"{name}_norm")
    predict = predictor(channels, seed=seed, name=f"{name}_predictor")
    results = []
    for number, features in enumerate(maps, start=1):
        positive = keras.layers.ReLU(name=f"{name}_relu_{number}")(features)
        pooled = layers.global_pool(rank, "avg", name=f"{name}_pooled_{number}")(positive)
        # A layer of its own, by which the code is found again: that of a shared layer has no name.
        code = keras.layers.Identity(dtype="float32", name=f"{name}_code_{number}")(normalize(pooled))
        results.append(Branch(pooled, code, keras.ops.cast(predict(code), "float32")))
    return results


def predictor(size: int, *, seed: int, name: str) -> Model:
    """Return the model code ``(batch, size)`` → prediction ``(batch, size)``: two layers, twice as wide inside.

    Args:
        size: Size of a code.
        seed: Seed of the initial weights.
        name: Name of the model, and prefix of its layers' names.
    """
    code = keras.Input((size,), name=f"{name}_code")
    x = layers.dense(2 * size, seed=seed, name=f"{name}_dense_1")(code)
    x = _over_the_batch(f"{name}_norm")(x)
    # The scale and the offset of a batch normalization.
    x = keras.layers.EinsumDense(
        "bc,c->bc", output_shape=2 * size, bias_axes="c", kernel_initializer="ones", name=f"{name}_scale"
    )(x)
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(code, layers.dense(size, seed=seed, name=f"{name}_dense_2")(x), name=name)


def _over_the_batch(name: str) -> Callable[[Tensor], Tensor]:
    """Return what makes of ``(batch, size)`` the same with mean 0 and variance 1 over the batch it is given, always."""
    layer = keras.layers.LayerNormalization(
        axis=0, epsilon=_EPSILON, center=False, scale=False, dtype="float32", name=name
    )
    return lambda codes: global_batch.own_rows(layer(global_batch.gather(codes)), codes)


def comparison(a: Branch, b: Branch) -> Tensor:
    """Return −½ [cos(f(v_a), sg v_b) + cos(f(v_b), sg v_a)] along the last axis, in [-1, 1]; the others are broadcast.

    sg lets no gradient pass; see `losses.contrastive.negative_cosine`.
    """
    forth, back = negative_cosine(a.prediction, b.code), negative_cosine(b.prediction, a.code)
    return (forth + back) / 2
