"""Triplet losses: an anchor is to be nearer to its positives than to its negatives, by a margin.

Mining reads a matrix of distances ``(anchors, candidates)`` and a mask of the same shape that says which
candidates are negatives; every anchor has at least one. As in `losses`, there is one value per sample.
"""

from __future__ import annotations

from typing import Literal

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Tensor

DistanceMetric = Literal["L2", "squared-L2", "angular"]

LEAST_SQUARED_NORM = 1e-8  # of what is brought to unit length


def triplet_loss(positive: Tensor, negative: Tensor, *, margin: float = 1.0, soft: bool = False) -> Tensor:
    """Return max(0, D(anchor, positive) − D(anchor, negative) + margin), elementwise.

    Schroff et al. 2015, "FaceNet: A Unified Embedding for Face Recognition and Clustering", equation 2.

    Args:
        positive: Distances of the anchors to their positives, of any shape.
        negative: Distances to their negatives, of the same shape.
        margin: What the distances are to differ by.
        soft: log(1 + exp(D(anchor, positive) − D(anchor, negative))) instead, which has no margin
            (Hermans et al. 2017, "In Defense of the Triplet Loss", section 2).
    """
    difference = keras.ops.cast(positive, "float32") - keras.ops.cast(negative, "float32")
    return keras.ops.softplus(difference) if soft else keras.ops.relu(difference + margin)


def triplet_hard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: DistanceMetric = "L2",
) -> Tensor:
    """Return each anchor's loss with its farthest positive and its nearest negative, ``(batch,)``.

    Hermans et al. 2017, equation 5; the mean over the batch is tensorflow-addons' loss of that name. There
    and here, an anchor that has the label for itself is its own positive, at distance 0.

    Args:
        y_true: Integer labels ``(batch,)``: equal ones are positives of each other.
        y_pred: Codes ``(batch, code_size)``.
        margin: See `triplet_loss`.
        soft: See `triplet_loss`.
        distance_metric: "L2", "squared-L2", or "angular": 1 − the cosine of the angle.

    Raises:
        ValueError: Unknown ``distance_metric``.
    """
    distances, is_positive, is_negative = _pairs(y_true, y_pred, distance_metric)
    positive = _masked_maximum(distances, is_positive)
    return triplet_loss(positive, hard_negative(distances, is_negative), margin=margin, soft=soft)


def triplet_semihard_loss(
    y_true: Tensor, y_pred: Tensor, *, margin: float = 1.0, distance_metric: DistanceMetric = "L2"
) -> Tensor:
    """Return each anchor's loss over its positives, each with its semi-hard negative, ``(batch,)``.

    Schroff et al. 2015, section 3.2. Values are scaled so that their mean over the batch is tensorflow-addons'
    loss of that name: the mean over all pairs of an anchor and a positive. An anchor without a positive has 0.
    Arguments and errors as in `triplet_hard_loss`.
    """
    distances, is_positive, is_negative = _pairs(y_true, y_pred, distance_metric)
    values = triplet_loss(distances, semihard_negative(distances, distances, is_negative), margin=margin)
    pairs = keras.ops.cast(is_positive, "float32")
    mean_pairs = keras.ops.sum(pairs) / keras.ops.cast(keras.ops.shape(pairs)[0], "float32")
    return keras.ops.sum(values * pairs, axis=1) / keras.ops.maximum(mean_pairs, 1e-8)


def hard_negative(distances: Tensor, is_negative: Tensor) -> Tensor:
    """Return the distance of each anchor to its nearest negative, ``(anchors,)``."""
    return _masked_minimum(distances, is_negative)


def semihard_negative(positive: Tensor, distances: Tensor, is_negative: Tensor) -> Tensor:
    """Return the distance to the nearest negative beyond the positive, else to the farthest negative.

    Args:
        positive: ``(anchors, positives)``, distances of each anchor to its positives.
        distances: ``(anchors, candidates)``.
        is_negative: ``(anchors, candidates)`` booleans.

    Returns:
        ``(anchors, positives)``.
    """
    farthest = _masked_maximum(distances, is_negative)
    distances = distances[:, None, :]
    beyond = keras.ops.logical_and(is_negative[:, None, :], distances > positive[:, :, None])
    nearest_beyond = _masked_minimum(distances, beyond)
    return keras.ops.where(keras.ops.any(beyond, axis=-1), nearest_beyond, farthest[:, None])


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared L2 distance along the last axis, float32; the other axes broadcast.

    Of the differences: |a|² − 2ab + |b|² would not be 0 for equal codes, and needs less memory only where
    there are far more codes than scans in a batch.
    """
    return keras.ops.sum(keras.ops.square(keras.ops.cast(a, "float32") - keras.ops.cast(b, "float32")), axis=-1)


def _pairs(labels: Tensor, codes: Tensor, distance_metric: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distances between all codes, which pairs are positive, and which negative: (batch, batch)."""
    if distance_metric not in _PAIRWISE:
        known = ", ".join(repr(name) for name in _PAIRWISE)
        raise ValueError(f"distance_metric: expected one of {known}, received {distance_metric!r}")
    labels = keras.ops.reshape(labels, (-1,))
    same = labels[:, None] == labels[None, :]
    order = keras.ops.arange(keras.ops.shape(labels)[0])
    itself = order[:, None] == order[None, :]
    distances = _PAIRWISE[distance_metric](keras.ops.cast(codes, "float32"))
    is_positive = keras.ops.logical_and(same, keras.ops.logical_not(itself))
    return distances, is_positive, keras.ops.logical_not(same)


def _squared(codes: Tensor) -> Tensor:
    return squared_distance(codes[:, None], codes[None])


def _euclidean(codes: Tensor) -> Tensor:
    squared = _squared(codes)
    apart = squared > 0
    # The root's slope at 0 is infinite, and infinity times 0 would be NaN.
    return keras.ops.where(apart, keras.ops.sqrt(keras.ops.where(apart, squared, 1.0)), 0.0)


def _angular(codes: Tensor) -> Tensor:
    # Half the squared distance of unit vectors is 1 − their cosine.
    return _squared(unit_length(codes)) / 2


_PAIRWISE = {"L2": _euclidean, "squared-L2": _squared, "angular": _angular}


def unit_length(codes: Tensor) -> Tensor:
    """Divide vectors along the last axis by their L2 norm, or by sqrt(`LEAST_SQUARED_NORM`) where they are shorter.

    The bound keeps the gradient finite at 0: a blank scan has a code of zeros.
    """
    squared_norm = keras.ops.sum(keras.ops.square(codes), axis=-1, keepdims=True)
    return codes * keras.ops.rsqrt(keras.ops.maximum(squared_norm, LEAST_SQUARED_NORM))


def _masked_minimum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the minimum along the last axis where ``mask`` holds; the plain maximum where it holds nowhere."""
    return keras.ops.min(keras.ops.where(mask, values, keras.ops.max(values, axis=-1, keepdims=True)), axis=-1)


def _masked_maximum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum along the last axis where ``mask`` holds; the plain minimum where it holds nowhere."""
    return keras.ops.max(keras.ops.where(mask, values, keras.ops.min(values, axis=-1, keepdims=True)), axis=-1)
