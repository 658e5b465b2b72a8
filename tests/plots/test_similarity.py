"""Histograms of similarities."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots


def test_similarity_histogram(tmp_path, read_png):
    rng = np.random.default_rng(0)
    same, different = rng.uniform(0.6, 1, 300), rng.uniform(-0.5, 0.5, 900)
    plots.similarity_histogram(tmp_path / "plots" / "similarity.png", same, different)
    picture = read_png(tmp_path / "plots" / "similarity.png")
    assert picture.shape == (680, 1080, 3)
    for rgb, place in (([0, 114, 178], 0.85), ([213, 94, 0], 0.34)):  # the means, 0.8 and 0, from -0.53 to 1.03
        line = ((np.abs(picture - rgb).max(-1) < 12).sum(0) > 200).nonzero()[0]
        assert (line.mean() - 100) / 970 == pytest.approx(place, abs=0.03)


def test_similarity_histogram_of_codes_that_are_all_alike(tmp_path, read_png):
    plots.similarity_histogram(tmp_path / "similarity.png", np.ones(3), np.ones(4))
    assert read_png(tmp_path / "similarity.png").shape == (680, 1080, 3)
