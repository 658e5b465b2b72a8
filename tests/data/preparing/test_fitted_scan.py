"""Scans that are scaled and padded where they are read, against a scan that is normalised as a whole."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preparing.fitted_scan import as_integers
from self_supervised_3d_tasks.data.preparing.scaling import bounds
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume

SHAPE = (7, 6, 5, 2)
KINDS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-1024, 3071), "uint16": (0, 65535), "float32": (-3, 9)}


def drawn(kind: str, seed: int = 0) -> np.ndarray:
    """Return a scan as a reader gives it: float32, whatever its file holds."""
    rng, (low, high) = np.random.default_rng(seed), KINDS[kind]
    array = rng.uniform(low, high, SHAPE) if kind == "float32" else rng.integers(low, high, SHAPE, endpoint=True)
    array.flat[:2] = low, high
    return array.astype(np.float32)


def fit(array: np.ndarray, data_dim=(4, 4, 4), **keys):
    preprocessing = Preprocessing(data_dim, array.shape[-1], volume_fitting="crop", **keys)
    return preprocessing.fit(Volume(array, None, (1.0,) * 3, Path("scan.npy")))


def normalised(array: np.ndarray, scaling: str, window=None) -> np.ndarray:
    """Return every channel scaled by itself, as a whole and in float32."""
    channels = []
    for channel in np.moveaxis(array, -1, 0):
        low, high = bounds(channel, scaling, window)
        channels.append(np.clip((channel - np.float32(low)) / np.float32(high - low), 0, 1))
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", ["min_max", "percentiles", "z_score", "window"])
def test_images_are_those_of_whole_scans_to_the_last_bit(kind: str, scaling: str) -> None:
    array, window = drawn(kind), (-1.0, 77.0) if scaling == "window" else None
    fitted = fit(array, intensity_scaling=scaling, intensity_window=window)
    assert fitted.array.dtype == kind and fitted.image().dtype == np.float32
    np.testing.assert_array_equal(fitted.image(), normalised(array, scaling, window))


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("data_dim", [(4, 4, 4), (12, 6, 8)])
def test_every_crop_is_a_part_of_the_image(kind: str, data_dim: tuple[int, ...]) -> None:
    fitted = fit(drawn(kind), data_dim, intensity_scaling="z_score")
    image = fitted.image()
    assert image.shape == fitted.shape == (*np.maximum(SHAPE[:3], data_dim), 2)
    for shape in itertools.product((1, 3), (2, 6), (5, 4)):
        for origin in itertools.product(*(range(size - edge + 1) for size, edge in zip(image.shape, shape))):  # noqa: B905
            place = tuple(slice(first, first + edge) for first, edge in zip(origin, shape, strict=True))
            crop = fitted.crop(place)
            np.testing.assert_array_equal(crop, image[place])
            assert crop.flags.c_contiguous and crop.base is None and not np.shares_memory(crop, fitted.array)


def test_padding_is_background_however_low_the_scan_goes() -> None:
    """No number of the scan's own type stands for 0 where the window begins below them all."""
    image = fit(drawn("uint8"), (9, 6, 5), intensity_scaling="window", intensity_window=(-100, 300)).image()
    assert not image[[0, -1]].any() and image[1:-1].min() == 0.25


def test_the_range_is_that_of_the_scan_and_not_of_its_box() -> None:
    array = np.zeros((6, 6, 6, 1), np.float32)
    array[2:4, 1:5, 2:6] = 10
    array[3, 3, 3] = 20
    fitted = fit(array, (1, 1, 1), foreground_crop="box")
    assert fitted.array.shape == (2, 4, 4, 1) and fitted.box == (slice(2, 4), slice(1, 5), slice(2, 6))
    assert fitted.intensities == ((0.0,), (20.0,))
    assert fitted.image().min() == 0.5 and fitted.image().max() == 1


def test_resized_scans_are_scaled() -> None:
    array = drawn("int16")
    preprocessing = Preprocessing((3, 3, 3), 2, volume_fitting="resize")
    fitted = preprocessing.fit(Volume(array, None, (1.0,) * 3, Path("scan.npy")))
    assert fitted.intensities is None and fitted.array.dtype == np.float32 and fitted.shape == (3, 3, 3, 2)
    assert fitted.image() is not None and np.shares_memory(fitted.image(), fitted.array)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "uint8"),
        ([-1, 127], "int8"),
        ([-1, 128], "int16"),
        ([0, 256], "int16"),
        ([0, 40000], "uint16"),
        ([-1, 40000], None),
        ([0, 70000], None),
        ([0.5, 1], None),
        ([1e30, 1], None),
    ],
)
def test_the_smallest_integers_that_hold_a_scan(values, kind) -> None:
    array = np.zeros((20, 20, 1), np.float32)
    array[3, 5], array[-1, -1] = values
    found = as_integers(array)
    if kind is None:
        assert found is None
    else:
        assert found.dtype == kind and found.flags.c_contiguous
        np.testing.assert_array_equal(found, array)
        assert as_integers(array.transpose(1, 0, 2)).dtype == kind
