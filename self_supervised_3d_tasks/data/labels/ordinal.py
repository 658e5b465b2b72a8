"""Ordered classes: cumulative targets, and grades from cumulative outputs.

Grade g is written as num_classes values of which the first g + 1 are ones: output k says how sure it is that the grade
is at least k (Cheng et al. 2008, "A Neural Network Approach to Ordinal Regression").
"""

import numpy as np


def ordinal_encode(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return ``(..., num_classes)`` float32 targets: grade 2 of 5 is 1 1 1 0 0.

    Args:
        labels: Integers ``(...)`` in [0, num_classes).
        num_classes: Number of grades.
    """
    return (np.arange(num_classes) <= np.asarray(labels)[..., np.newaxis]).astype(np.float32)


def ordinal_decode(outputs: np.ndarray) -> np.ndarray:
    """Return the grades ``(...)`` of cumulative outputs ``(..., num_classes)`` in [0, 1].

    The grade is the last of the leading outputs above 0.5: what stands behind the first failure does not count, so that
    1 0 1 0 0 is grade 0. Without any it is 0 as well; there is no grade -1 to drop out of a score.
    """
    leading = np.cumprod(np.asarray(outputs) > 0.5, axis=-1).sum(axis=-1)
    return np.maximum(leading - 1, 0)


def ordinal_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return class probabilities ``(..., num_classes)``, which sum to 1, of cumulative outputs of that shape.

    A cumulative output may not exceed the one before it, and a grade is at least 0 for certain. The probability of
    grade g is then the difference of outputs g and g + 1.
    """
    cumulative = np.minimum.accumulate(np.asarray(outputs, np.float64), axis=-1)
    cumulative[..., 0] = 1
    return cumulative - np.pad(cumulative[..., 1:], [(0, 0)] * (cumulative.ndim - 1) + [(0, 1)])
