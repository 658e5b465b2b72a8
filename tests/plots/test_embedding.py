"""Codes in a plane."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas


@pytest.mark.parametrize("num_wholes", [2, 9, 70])
def test_embedding_gives_each_whole_a_colour(tmp_path, num_wholes, read_png, shows):
    points = np.random.default_rng(0).normal(size=(3 * num_wholes, 2))
    plots.embedding(tmp_path / "embedding.png", points, np.repeat(np.arange(num_wholes), 3))
    picture = read_png(tmp_path / "embedding.png")
    colours = [canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE, canvas.SKY, canvas.PURPLE]
    faded = [
        "#" + "".join(f"{round(0.75 * int(colour[at : at + 2], 16) + 0.25 * 255):02x}" for at in (1, 3, 5))
        for colour in colours
    ]
    assert [shows(picture, colour, tolerance=3) for colour in faded] == [True] * 2 + [num_wholes > 2] * 4
