"""What becomes 0 and 1, by hand and against numpy."""

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preparing.scaling import Contrast, bounds
from self_supervised_3d_tasks.data.preprocessing import Preprocessing

RNG = np.random.default_rng(0)


def test_bounds_by_hand():
    """201 foreground values 1 to 201 beside zeros: the percentiles lie one step inside."""
    channel = np.concatenate([np.zeros(500), np.arange(1, 202)])
    assert bounds(channel, "percentiles", None) == (2.0, 200.0)
    assert bounds(channel, "min_max", None) == (0.0, 201.0)
    deviation = np.sqrt((201**2 - 1) / 12)  # of 201 consecutive numbers
    np.testing.assert_allclose(bounds(channel, "z_score", None), (101 - 3 * deviation, 101 + 3 * deviation))
    assert bounds(channel, "window", (-5.0, 7.0)) == (-5.0, 7.0)


@pytest.mark.parametrize("scaling", ["percentiles", "z_score", "min_max"])
def test_a_binary_scan_keeps_its_two_values_and_a_constant_one_has_no_range(scaling):
    binary = np.zeros((4, 4, 4))
    binary[1:3] = 255
    assert bounds(binary, scaling, None) == (0.0, 255.0)
    low, high = bounds(np.full((4, 4), 3.0), scaling, None)
    assert low == high == 3.0


@pytest.mark.parametrize("scaling", ["percentiles", "min_max"])
def test_one_hot_voxel(scaling):
    """At 50 times the rest it takes the contrast of min-max away, and nothing from the percentiles."""
    image = RNG.random((16, 16, 16, 1)).astype(np.float32)
    hot = image.copy()
    hot[3, 4, 5] = 50
    scale = Preprocessing((16, 16, 16), 1, intensity_scaling=scaling).normalize
    before, after = scale(image).std(), scale(hot).std()
    if scaling == "min_max":
        assert before > 0.28 and after < 0.02
    else:
        np.testing.assert_allclose(after, before, rtol=0.01)


@pytest.mark.parametrize("scaling", ["percentiles", "min_max"])
def test_scans_that_differ_in_their_hottest_voxels_come_out_alike(scaling):
    """The 99th percentile of ten scans of one tissue, whose few bright vessels reach 2 to 20 times its intensity."""
    rng, found = np.random.default_rng(5), []
    for factor in np.linspace(2, 20, 10):
        image = rng.normal(100, 15, (16, 16, 16, 1)).astype(np.float32)
        image[rng.random(image.shape) < 0.002] *= factor
        image[:2] = 0
        scaled = Preprocessing((16, 16, 16), 1, intensity_scaling=scaling).normalize(image)
        found.append(np.percentile(scaled, 99))
    if scaling == "percentiles":
        assert min(found) > 0.85
    else:
        assert min(found) < 0.1 and max(found) > 0.5


def test_channels_are_scaled_apart_and_clipped():
    image = np.stack([np.arange(1000.0), -5 * np.arange(1000.0)], axis=-1).reshape(10, 10, 10, 2)
    scaled = Preprocessing((10, 10, 10), 2, intensity_scaling="percentiles").normalize(image)
    np.testing.assert_allclose(scaled[..., 1], 1 - scaled[..., 0], atol=0.003)  # the least of each is no foreground
    assert scaled.min() == 0 and scaled.max() == 1 and scaled.dtype == np.float32


def test_contrast_by_hand():
    """Of 16 pixels every fourth is looked at: 0, 0.2, 0.4 and 1 in the first channel, 0.5 in the second."""
    image = np.full((4, 4, 2), 0.5, np.float32)
    image[::2, ::2, 0] = [[0, 0.2], [0.4, 1]]
    spread = 0.97 * 1 + 0.03 * 0.4 - 0.03 * 0.2  # percentiles lie between the numbers
    contrast = Contrast.of(image)
    np.testing.assert_allclose(contrast.spread, (spread, 0), atol=1e-6)
    assert contrast.clipped == (0.5, 0)
    together = Contrast.of(image, is_photograph=True)
    np.testing.assert_allclose(together, ((spread,), (0.25,)), atol=1e-6)
