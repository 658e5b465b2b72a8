"""Reading figures back."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def read_png():
    """Function from the path of a PNG file to its colours ``(rows, columns, 3)``, integers from 0 to 255."""

    def read(path):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            return np.asarray(picture.convert("RGB")).astype(int)

    return read


@pytest.fixture
def shows():
    """Function that tells whether some pixels of a picture have the colour ``#rrggbb``."""

    def check(picture, colour, tolerance=12):
        rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
        return bool((np.abs(picture - rgb).max(-1) <= tolerance).sum() > 10)

    return check
