"""Losses that compare a code or a prediction with those of other patches, views or scans."""

from __future__ import annotations

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.losses.classification import categorical_crossentropy
from self_supervised_3d_tasks.losses.triplet import unit_length
from self_supervised_3d_tasks.shapes import Tensor


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
    return -keras.ops.sum(unit_length(prediction) * unit_length(code), axis=-1)


def other_index(quantiles: Tensor, own: Tensor, number: int | Tensor) -> Tensor:
    """Return indices in 0 .. number − 1 that differ from ``own``, uniform where the quantiles are, int32.

    How a loss draws negatives: the number of candidates is known only with the batch, and a quantile drawn
    with the example gives the same one for the same seed.

    Args:
        quantiles: Numbers in [0, 1), of any shape.
        own: The index to leave out, of the same shape.
        number: Candidates, at least 2.
    """
    ops = keras.ops
    index = ops.floor(ops.cast(quantiles, "float32") * ops.cast(number - 1, "float32"))
    index = ops.minimum(ops.cast(index, "int32"), number - 2)  # against rounding up
    return index + ops.cast(index >= own, "int32")
