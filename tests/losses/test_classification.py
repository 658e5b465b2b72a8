"""Cross-entropies of classes of whole scans, by hand."""

from __future__ import annotations

import math

import numpy as np

from self_supervised_3d_tasks.losses import classification


def test_crossentropy_of_a_classification():
    value = classification.categorical_crossentropy(np.array([1, 0]), np.zeros((2, 4), "float32"))
    np.testing.assert_allclose(value, [math.log(4)] * 2, rtol=1e-6)


def test_binary_crossentropy_of_independent_outputs():
    """Cumulative grades [1, 1, 0] with logits 0, 0, −log 3: (log 2 + log 2 + log 4/3) / 3."""
    value = classification.binary_crossentropy(np.array([[1, 1, 0]]), np.array([[0, 0, -math.log(3)]], "float32"))
    np.testing.assert_allclose(value, [(2 * math.log(2) + math.log(4 / 3)) / 3], rtol=1e-6)
