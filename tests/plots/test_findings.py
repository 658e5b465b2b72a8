"""The area under the ROC curve of every finding."""

import math

import numpy as np

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.findings import mean_areas


def test_areas_of_findings(tmp_path, read_png, shows):
    areas = {"random": np.array([[0.5, math.nan, 0.7], [0.7, math.nan, math.nan]]), "initialized": np.full((1, 3), 0.8)}
    np.testing.assert_allclose(mean_areas(areas["random"]), [0.6, math.nan, 0.7])
    plots.finding_areas(tmp_path / "findings.png", areas, ["Mass", "Edema", "Hernia"], "10 % of the labels")
    picture = read_png(tmp_path / "findings.png")
    assert shows(picture, canvas.BLUE, tolerance=40) and shows(picture, canvas.GREY, tolerance=40)
