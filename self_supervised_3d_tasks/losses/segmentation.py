"""Losses of overlap between masks and predictions, by themselves and with a cross-entropy.

``y_true`` is the integer mask ``(batch, *spatial)`` and ``y_pred`` the logits ``(batch, *spatial, num_classes)``; p is
the softmax of the logits, t the one-hot mask.
"""

from collections.abc import Sequence

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.classification import one_hot, weighted_categorical_crossentropy
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


def _overlap(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σpt and Σp + Σt over the voxels, each ``(batch, num_classes)``."""
    probabilities = keras.ops.softmax(keras.ops.cast(y_pred, "float32"), axis=-1)
    target = one_hot(y_true, y_pred.shape[-1])
    voxels = tuple(range(1, len(y_pred.shape) - 1))
    intersection = keras.ops.sum(probabilities * target, axis=voxels)
    return intersection, keras.ops.sum(probabilities + target, axis=voxels)
