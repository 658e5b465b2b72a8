"""Losses: from logits, in float32, one value per sample.

Keras averages the values over the batch itself; a loss that returned a scalar would silently double the
gradients under a distribution strategy of two devices. In the segmentation losses ``y_true`` is the integer
mask ``(batch, *spatial)`` and ``y_pred`` the logits ``(batch, *spatial, num_classes)``; p is the softmax of
the logits, t the one-hot mask.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses import triplet
from self_supervised_3d_tasks.shapes import Tensor

SMOOTH = 1e-5


def soft_dice(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the soft Dice of each sample and class, ``(batch, num_classes)``.

    (2 Σpt + s) / (Σp + Σt + s) with s = 1e-5: a class that is absent and is given no probability scores 1.
    """
    intersection, total = _overlap(y_true, y_pred)
    return (2 * intersection + SMOOTH) / (total + SMOOTH)


def weighted_dice_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return 1 − the mean soft Dice over all classes, background included, ``(batch,)`` in [0, 1].

    The predecessor's loss of that name is −mean Dice, with the sums of a class taken over the whole batch.
    Adding 1 changes no gradient; summing per sample makes the loss independent of how scans are grouped.
    """
    return 1 - keras.ops.mean(soft_dice(y_true, y_pred), axis=-1)


def jaccard_distance(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return 1 − the mean soft Jaccard index over all classes, ``(batch,)``.

    The index of a class is (Σpt + s) / (Σp + Σt − Σpt + s) with s = 1e-5.
    """
    intersection, total = _overlap(y_true, y_pred)
    jaccard = (intersection + SMOOTH) / (total - intersection + SMOOTH)
    return 1 - keras.ops.mean(jaccard, axis=-1)


def categorical_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the cross-entropy averaged over the voxels of each sample, ``(batch,)``.

    Labels ``(batch,)`` with logits ``(batch, num_classes)`` are fine too: classification.
    """
    return _mean_per_sample(_crossentropy(y_true, y_pred))


def weighted_categorical_crossentropy(
    y_true: Tensor, y_pred: Tensor, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Return the mean over the voxels of weight(true class) · cross-entropy, ``(batch,)``.

    As in the predecessor, the mean is not divided by the weights. ``class_weights`` has one entry per class;
    default ones.
    """
    values = _crossentropy(y_true, y_pred)
    if class_weights is not None:
        weights = keras.ops.convert_to_tensor(class_weights, dtype="float32")
        values = values * keras.ops.take(weights, keras.ops.cast(y_true, "int32"), axis=0)
    return _mean_per_sample(values)


def weighted_sum_loss(y_true: Tensor, y_pred: Tensor, *, class_weights: Sequence[float] | None = None) -> Tensor:
    """Return 0.5 · `weighted_categorical_crossentropy` + 0.5 · `jaccard_distance`, ``(batch,)``.

    The predecessor scaled its Jaccard term by 1e-5, which left it without effect.
    """
    crossentropy = weighted_categorical_crossentropy(y_true, y_pred, class_weights=class_weights)
    return 0.5 * crossentropy + 0.5 * jaccard_distance(y_true, y_pred)


def dice_crossentropy(y_true: Tensor, y_pred: Tensor, *, class_weights: Sequence[float] | None = None) -> Tensor:
    """Return 1 − the mean soft Dice over the foreground classes, plus the cross-entropy, ``(batch,)``.

    The common loss of medical segmentation (Isensee et al. 2021, nnU-Net): cross-entropy gives every voxel a
    gradient, Dice keeps a small structure from drowning in the background.
    """
    dice = keras.ops.mean(soft_dice(y_true, y_pred)[:, 1:], axis=-1)
    return 1 - dice + weighted_categorical_crossentropy(y_true, y_pred, class_weights=class_weights)


def binary_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the mean sigmoid cross-entropy of each sample, ``(batch,)``.

    Args:
        y_true: 0 or 1, of ``y_pred``'s shape; an integer mask is one-hot encoded.
        y_pred: Logits ``(batch, ..., num_outputs)``, independent of each other.
    """
    logits = keras.ops.cast(y_pred, "float32")
    same_rank = len(y_true.shape) == len(y_pred.shape)
    target = keras.ops.cast(y_true, "float32") if same_rank else _one_hot(y_true, y_pred.shape[-1])
    # log(1 + exp(x)) - t x
    return _mean_per_sample(keras.ops.softplus(logits) - target * logits)


def info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Return InfoNCE averaged over the queries of each sample, ``(batch,)``.

    van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", equation 4.

    Args:
        logits: ``(batch, queries, candidates)``, similarity of each query to each candidate.
        positives: ``(batch, queries)``, index of the candidate that belongs to the query.
    """
    return categorical_crossentropy(positives, logits)


def negative_cosine(prediction: Tensor, code: Tensor) -> Tensor:
    """Return minus the cosine of the angle between a prediction and a code, in [-1, 1], along the last axis.

    Chen and He 2021, "Exploring Simple Siamese Representation Learning", equations 1 and 3: no gradient goes through
    the code, without which all codes would become alike.

    Args:
        prediction: ``(..., size)``.
        code: ``(..., size)``; the other axes are broadcast.
    """
    prediction, code = keras.ops.cast(prediction, "float32"), keras.ops.cast(code, "float32")
    code = keras.ops.stop_gradient(code)
    return -keras.ops.sum(triplet.unit_length(prediction) * triplet.unit_length(code), axis=-1)


def other_index(quantiles: Tensor, own: Tensor, number: int | Tensor) -> Tensor:
    """Return indices in 0 .. number − 1 that differ from ``own``, uniform where the quantiles are, int32.

    How a loss draws negatives: the number of candidates is known only with the batch, and a quantile drawn
    with the example gives the same one for the same seed.

    Args:
        quantiles: In [0, 1), of any shape.
        own: The index to leave out, of the same shape.
        number: Candidates, at least 2.
    """
    ops = keras.ops
    index = ops.floor(ops.cast(quantiles, "float32") * ops.cast(number - 1, "float32"))
    index = ops.minimum(ops.cast(index, "int32"), number - 2)  # against rounding up
    return index + ops.cast(index >= own, "int32")


LOSSES = {
    loss.__name__: loss
    for loss in (
        weighted_dice_loss,
        weighted_sum_loss,
        jaccard_distance,
        weighted_categorical_crossentropy,
        categorical_crossentropy,
        binary_crossentropy,
        dice_crossentropy,
    )
}


def get(
    name: str, *, num_classes: int, class_weights: Sequence[float] | None = None, choices: Sequence[str] = tuple(LOSSES)
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss called ``name`` as a function ``(y_true, y_pred) -> (batch,)``; loads no Keras.

    Args:
        name: A key of `LOSSES`.
        num_classes: Classes, background included.
        class_weights: One positive weight per class, for the losses that take them.
        choices: Losses that the caller could use instead; a message recommends no other.

    Raises:
        UserError: Unknown name, weights for a loss that takes none, or a wrong number of them.
    """
    if name not in LOSSES:
        known = ", ".join(LOSSES)
        raise UserError(f"loss: no loss is called {name!r}; known: {known}.{nearest(name, LOSSES)}")
    loss = LOSSES[name]
    if class_weights is None:
        return loss
    takers = [key for key, value in LOSSES.items() if "class_weights" in inspect.signature(value).parameters]
    if name not in takers:
        usable = [key for key in takers if key in choices]
        alternative = f", or use {' or '.join(usable)}" if usable else ""
        raise UserError(f"class_weights: {name} takes none; remove them{alternative}")
    if len(class_weights) != num_classes:
        raise UserError(f"class_weights: expected {num_classes} numbers, received {len(class_weights)}")
    weighted = functools.partial(loss, class_weights=tuple(class_weights))
    return functools.update_wrapper(weighted, loss)  # Keras names a loss by its __name__


def _crossentropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Return −log p(label), of the labels' shape."""
    labels, logits = keras.ops.cast(labels, "int32"), keras.ops.cast(logits, "float32")
    return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _overlap(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σpt and Σp + Σt over the voxels, each ``(batch, num_classes)``."""
    probabilities = keras.ops.softmax(keras.ops.cast(y_pred, "float32"), axis=-1)
    target = _one_hot(y_true, y_pred.shape[-1])
    voxels = tuple(range(1, len(y_pred.shape) - 1))
    intersection = keras.ops.sum(probabilities * target, axis=voxels)
    return intersection, keras.ops.sum(probabilities + target, axis=voxels)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    return keras.ops.one_hot(keras.ops.cast(labels, "int32"), num_classes, dtype="float32")


def _mean_per_sample(values: Tensor) -> Tensor:
    axes = tuple(range(1, len(values.shape)))
    return keras.ops.mean(values, axis=axes) if axes else values
