"""Cumulative targets of ordered classes, and grades from cumulative outputs."""

from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.data.labels import ordinal


def test_ordinal_targets_by_hand():
    assert ordinal.ordinal_encode(np.array([0, 2, 4]), 5).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1],
    ]
    assert ordinal.ordinal_encode(np.array(1), 2).tolist() == [1, 1]


def test_decoding_undoes_encoding():
    labels = np.arange(7)
    targets = ordinal.ordinal_encode(labels, 7)
    np.testing.assert_array_equal(ordinal.ordinal_decode(targets), labels)
    np.testing.assert_array_equal(ordinal.ordinal_probabilities(targets), np.eye(7))


@pytest.mark.parametrize(
    ("outputs", "grade"),
    [
        ([1, 0, 1, 0, 0], 0),  # the predecessor counted the ones: grade 1
        ([0, 0, 0, 0, 0], 0),  # the predecessor: grade -1, which dropped out of its kappa
        ([0.4, 0.9, 0.9, 0.9, 0.9], 0),
        ([0.9, 0.8, 0.51, 0.5, 0.9], 2),
        ([0.9, 0.9, 0.9, 0.9, 0.6], 4),
    ],
)
def test_the_grade_is_the_last_before_the_first_failure(outputs, grade):
    assert ordinal.ordinal_decode(np.array(outputs)) == grade


def test_ordinal_probabilities_by_hand():
    received = ordinal.ordinal_probabilities(np.array([[0.9, 0.75, 0.25, 0.5], [0.2, 0.1, 0.0, 0.0]]))
    np.testing.assert_allclose(received, [[0.25, 0.5, 0, 0.25], [0.9, 0.1, 0, 0]])


@pytest.mark.parametrize("seed", range(20))
def test_ordinal_probabilities_are_a_distribution_whose_median_is_the_grade(seed):
    outputs = np.random.default_rng(seed).random((50, 6))
    probabilities = ordinal.ordinal_probabilities(outputs)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    at_least = 1 - np.cumsum(probabilities, axis=1) + probabilities
    np.testing.assert_array_equal((at_least > 0.5).sum(axis=1) - 1, ordinal.ordinal_decode(outputs))
