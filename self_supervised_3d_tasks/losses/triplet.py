"""Triplet losses: an anchor is to be nearer to its positives than to its negatives, by a margin.

Mining reads a matrix of distances ``(anchors, candidates)`` and a mask of the same shape that says which candidates are
negatives; every anchor has at least one. As in `losses`, there is one value per sample.
"""

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.shapes import Tensor

LEAST_SQUARED_NORM = 1e-8  # of what is brought to unit length


def triplet_loss(positive: Tensor, negative: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return max(0, D(anchor, positive) − D(anchor, negative) + margin), elementwise, float32.

    Schroff et al. 2015, "FaceNet: A Unified Embedding for Face Recognition and Clustering", equation 2.

    Args:
        positive: Distances of the anchors to their positives, of any shape.
        negative: Distances of the anchors to their negatives, of the same shape.
        margin: How much farther the negative is to be than the positive.
    """
    difference = keras.ops.cast(positive, "float32") - keras.ops.cast(negative, "float32")
    return keras.ops.relu(difference + margin)


def hard_negative(distances: Tensor, is_negative: Tensor) -> Tensor:
    """Return the distance of each anchor to its nearest negative, ``(anchors,)``.

    Hermans et al. 2017, "In Defense of the Triplet Loss for Person Re-Identification", equation 5.

    Args:
        distances: ``(anchors, candidates)``, distances of each anchor to everything it is compared with.
        is_negative: ``(anchors, candidates)`` booleans, which candidates are negatives. With none it is the distance to
            the farthest candidate.
    """
    farthest = keras.ops.max(distances, axis=-1, keepdims=True)
    return keras.ops.min(keras.ops.where(is_negative, distances, farthest), axis=-1)


def semihard_negative(positive: Tensor, distances: Tensor, is_negative: Tensor) -> Tensor:
    """Return the distance to the nearest negative beyond the positive, else to the farthest negative.

    Schroff et al. 2015, section 3.2.

    Args:
        positive: ``(anchors, positives)``, distances of each anchor to its positives.
        distances: ``(anchors, candidates)``, distances of each anchor to everything it is compared with.
        is_negative: ``(anchors, candidates)`` booleans, which candidates are negatives.

    Returns:
        ``(anchors, positives)``.
    """
    nearest = keras.ops.min(distances, axis=-1, keepdims=True)
    farthest = keras.ops.max(keras.ops.where(is_negative, distances, nearest), axis=-1)
    distances = distances[:, None, :]
    beyond = keras.ops.logical_and(is_negative[:, None, :], distances > positive[:, :, None])
    nearest_beyond = hard_negative(distances, beyond)
    return keras.ops.where(keras.ops.any(beyond, axis=-1), nearest_beyond, farthest[:, None])


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared L2 distance along the last axis, float32; the other axes broadcast.

    Of the differences: |a|² − 2ab + |b|² would not be 0 for equal codes, and needs less memory only where
    there are far more codes than scans in a batch.
    """
    return keras.ops.sum(keras.ops.square(keras.ops.cast(a, "float32") - keras.ops.cast(b, "float32")), axis=-1)


def unit_length(codes: Tensor) -> Tensor:
    """Divide vectors along the last axis by their L2 norm, or by sqrt(`LEAST_SQUARED_NORM`) where they are shorter.

    The bound keeps the gradient finite at 0: a blank scan has a code of zeros.
    """
    squared_norm = keras.ops.sum(keras.ops.square(codes), axis=-1, keepdims=True)
    return codes * keras.ops.rsqrt(keras.ops.maximum(squared_norm, LEAST_SQUARED_NORM))
