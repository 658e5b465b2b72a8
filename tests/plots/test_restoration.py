"""Sheets of restored images."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.restoration import Restoration


@pytest.mark.parametrize("shape", [(8, 9, 1), (9, 8, 3), (8, 9, 7, 2)])
def test_restorations_have_a_row_for_each_scan(tmp_path, shape, read_png):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    rows = [Restoration("a name that is far too long to be written out", image, 5 * image, image, "MSE 0.0123")] * 2
    plots.restorations(tmp_path / "sheet.png", rows, "Validation scans after epoch 10")
    assert read_png(tmp_path / "sheet.png").shape == (round((0.56 + 2 * 2.04 + 0.1) * canvas.DPI), 1092, 3)


def test_original_and_reconstruction_are_drawn_from_0_to_1_and_the_part_in_a_range_of_its_own(tmp_path, read_png):
    wanted, seen = np.zeros((4, 4, 1)), np.zeros((4, 4, 1))
    wanted[0, 0], seen[0, 0] = 0.5, 7.0
    seen[2:] = 3.5
    restored = np.full((4, 4, 1), 0.25)
    plots.restorations(tmp_path / "sheet.png", [Restoration("scan", wanted, seen, restored, "MSE 0.1")], "title")
    picture = read_png(tmp_path / "sheet.png")[..., 0]
    row = round((0.56 + 0.34 + 1.3) * canvas.DPI)
    middles = [round((0.1 + 0.85 + column * 1.78) * canvas.DPI) for column in range(3)]
    assert [picture[row, middle] for middle in middles] == [0, pytest.approx(127, abs=1), pytest.approx(64, abs=1)]
