"""Preview sheets of pretext tasks."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.preview import central_slice


def test_central_slice():
    image = np.arange(2 * 3 * 5 * 2).reshape(2, 3, 5, 2)
    # first axis to the right, second axis up, slice 2 of 5, channel 0
    expected = [[image[0, 2, 2, 0], image[1, 2, 2, 0]], [image[0, 1, 2, 0], image[1, 1, 2, 0]]]
    np.testing.assert_array_equal(central_slice(image)[:2], expected)
    np.testing.assert_array_equal(central_slice(image[0]), image[0, :, :, 0])
    photograph = np.zeros((4, 5, 3))
    assert central_slice(photograph).shape == (4, 5, 3)


@pytest.mark.parametrize("shape", [(8, 9, 1), (8, 9, 7, 2)])
def test_pretext_preview(tmp_path, shape, read_png):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    constant = np.zeros(shape, np.float32)
    block = [("original", image), Panel("a long title that needs several lines of text", constant)]
    plots.pretext_preview(tmp_path / "preview.png", [block, [], block * 6])
    width = round((0.3 + 6 * (1.0 + 0.08)) * canvas.DPI)  # twelve pictures make two rows, as nine fit into one
    assert read_png(tmp_path / "preview.png").shape[1] == width


def test_pretext_preview_shows_the_pictures_in_one_grey_range(tmp_path, read_png):
    bright, dark = np.ones((4, 4, 1)), np.full((4, 4, 1), 0.5)
    dark[0, 0] = 0
    plots.pretext_preview(tmp_path / "preview.png", [[("bright", bright), ("dark", dark)]])
    picture = read_png(tmp_path / "preview.png")
    middle = picture.shape[0] - round((0.08 + 0.08 + 0.8) * canvas.DPI)
    first = round((0.3 + 0.8) * canvas.DPI)
    assert picture[middle, first, 0] == 255
    assert picture[middle, first + round(1.68 * canvas.DPI), 0] == pytest.approx(127, abs=1)
