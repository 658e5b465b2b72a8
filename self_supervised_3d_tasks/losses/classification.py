"""Cross-entropies, of classes of whole scans ``(batch,)`` and of the voxels of masks ``(batch, *spatial)`` alike."""

from collections.abc import Sequence

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Tensor

# The losses of classes of whole scans, by name.
CLASSIFICATION_LOSSES = ("categorical_crossentropy", "weighted_categorical_crossentropy", "binary_crossentropy")


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


def binary_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the mean sigmoid cross-entropy of each sample, ``(batch,)``.

    Args:
        y_true: 0 or 1, of ``y_pred``'s shape; an integer mask is one-hot encoded.
        y_pred: Logits ``(batch, ..., num_outputs)``, independent of each other.
    """
    logits = keras.ops.cast(y_pred, "float32")
    same_rank = len(y_true.shape) == len(y_pred.shape)
    target = keras.ops.cast(y_true, "float32") if same_rank else one_hot(y_true, y_pred.shape[-1])
    # log(1 + exp(x)) - t x
    return _mean_per_sample(keras.ops.softplus(logits) - target * logits)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return the labels as float32 vectors, ``(..., num_classes)``."""
    return keras.ops.one_hot(keras.ops.cast(labels, "int32"), num_classes, dtype="float32")


def _crossentropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Return −log p(label), of the labels' shape."""
    labels, logits = keras.ops.cast(labels, "int32"), keras.ops.cast(logits, "float32")
    return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _mean_per_sample(values: Tensor) -> Tensor:
    axes = tuple(range(1, len(values.shape)))
    return keras.ops.mean(values, axis=axes) if axes else values
