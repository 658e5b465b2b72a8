"""Confusion matrices."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots.confusion import row_shares


def test_row_shares_of_a_confusion_matrix():
    shares = row_shares(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]]))
    np.testing.assert_array_equal(shares, [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_confusion_matrix(tmp_path, num_classes, read_png, shows):
    matrix = np.eye(num_classes, dtype=int) * 120 + 3
    names = {0: "no retinopathy", 1: "a name that is longer than a cell of the matrix"}
    plots.confusion_matrix(tmp_path / "plots" / "confusion.png", matrix, "random, 100 % of the labels", names)
    plots.confusion_matrix(tmp_path / "bare.png", matrix, "random")
    assert shows(read_png(tmp_path / "plots" / "confusion.png"), "#08306b", tolerance=60)  # the diagonal
    assert read_png(tmp_path / "bare.png").min() < 60
