from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Header, Volume
from self_supervised_3d_tasks.errors import UserError

DRAWS = np.random.default_rng(1)


def volume(array) -> Volume:
    return Volume(np.asarray(array), None, (1.0,) * 3, Path("folder/scan.npy"))


def make(data_dim=(4, 4, 4), channels=1, **options) -> Preprocessing:
    return Preprocessing(data_dim, channels, **options)


def test_each_channel_has_its_own_range() -> None:
    # The predecessor scaled both by the range of the first: the second had a maximum of 0.025.
    array = np.stack([np.linspace(0, 4000, 8), np.linspace(50, 100, 8)], axis=-1).reshape(2, 2, 2, 2)
    scaled = make(channels=2).normalize(array.astype(np.float32))
    np.testing.assert_allclose(scaled[..., 0], scaled[..., 1], atol=1e-6)
    assert scaled.min() == 0 and scaled.max() == 1 and scaled.dtype == np.float32


def test_window_clips_and_scales() -> None:
    scaled = make(intensity_window=(-100, 300)).normalize(np.array([[-500, -100, 100, 300, 999]], np.float32).T)
    np.testing.assert_array_equal(scaled[:, 0], [0, 0, 0.5, 1, 1])


def test_input_is_not_changed() -> None:
    array = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
    make((2, 2, 2), intensity_window=(1, 3)).image(volume(array))
    np.testing.assert_array_equal(array.ravel(), np.arange(8))


@pytest.mark.parametrize("value", [0.0, -7.0, 3e38, 1e-45])
def test_constant_channel_is_zero_with_one_warning(value: float, caplog) -> None:
    array = np.full((2, 2, 2, 3), value, np.float32)
    array[..., 1] = np.arange(8).reshape(2, 2, 2)
    image = make((2, 2, 2), channels=3).image(volume(array))
    assert not image[..., [0, 2]].any() and image[..., 1].max() == 1
    (record,) = caplog.records
    assert "scan.npy: channel 0, 2 is constant" in record.getMessage()


@pytest.mark.parametrize(("low", "high"), [(-3e38, 3e38), (0, 1e-44), (1e8, 1e8 + 8), (-1e-45, 1e-45)])
def test_extreme_ranges_stay_finite(low: float, high: float) -> None:
    array = np.array([low, high], np.float32).reshape(2, 1)
    np.testing.assert_array_equal(make().normalize(array).ravel(), [0, 1])


@pytest.mark.parametrize("shape", [(4, 4, 4), (3, 9, 4), (7, 1, 6)])
def test_resize_gives_data_dim(shape: tuple) -> None:
    image = make(volume_fitting="resize").image(volume(DRAWS.normal(size=(*shape, 1)).astype(np.float32)))
    assert image.shape == (4, 4, 4, 1) and image.min() >= 0 and image.max() <= 1


def test_resize_and_restore_round_trip() -> None:
    preprocessing = make((16, 12, 20), volume_fitting="resize")
    x, y, z = np.meshgrid(np.linspace(0, 1, 10), np.linspace(0, 1, 12), np.linspace(0, 1, 14), indexing="ij")
    smooth = (x + y * z)[..., None].astype(np.float32)
    image, placement = preprocessing.prepare(volume(smooth))
    restored = placement.restore(image)
    assert restored.shape == smooth.shape
    np.testing.assert_allclose(restored, smooth / smooth.max(), atol=0.05)


def test_crop_pads_symmetrically_and_restores_exactly() -> None:
    preprocessing = make((6, 4, 5), volume_fitting="crop", intensity_window=(0, 1))
    array = DRAWS.uniform(size=(3, 7, 4, 1)).astype(np.float32)
    image, placement = preprocessing.prepare(volume(array))
    assert image.shape == (6, 7, 5, 1) == preprocessing.fitted_shape(volume(array).header)
    np.testing.assert_array_equal(image[1:4, :, :4], array)
    assert np.count_nonzero(image) == array.size
    np.testing.assert_array_equal(placement.restore(image), array)
    mask = preprocessing.mask(volume(np.ones((3, 7, 4), np.int32)), 2)
    np.testing.assert_array_equal(mask > 0, image[..., 0] > 0)


def test_exact_refuses_other_shapes_and_changes_nothing() -> None:
    preprocessing = make((3, 4, 5), volume_fitting="exact", intensity_window=(0, 1))
    array = DRAWS.uniform(size=(3, 4, 5, 1)).astype(np.float32)
    image, placement = preprocessing.prepare(volume(array))
    np.testing.assert_array_equal(image, array)
    np.testing.assert_array_equal(placement.restore(array), array)
    with pytest.raises(UserError, match=r"scan.npy: has shape \(3, 4, 4\).*data_dim = \(3, 4, 5\)") as error:
        preprocessing.image(volume(array[:, :, :4]))
    assert 'Set volume_fitting to "resize"' in str(error.value)
    assert "crop" not in str(error.value)  # which classification refuses


def test_two_dimensions() -> None:
    preprocessing = make((4, 6), volume_fitting="resize")
    assert preprocessing.rank == 2
    assert preprocessing.image(volume(np.eye(5, dtype=np.float32)[..., None])).shape == (4, 6, 1)
    assert preprocessing.mask(volume(np.eye(5, dtype=np.int32)), 2).shape == (4, 6)


def test_channels_are_checked() -> None:
    with pytest.raises(UserError, match="scan.npy: has 2 channels.*number_channels = 1") as error:
        make().image(volume(np.zeros((4, 4, 4, 2), np.float32)))
    remedy = 'Convert the file, set on_bad_file to "skip", or change number_channels if all files have 2 channels.'
    assert str(error.value).endswith(remedy)


def test_label_map_comes_before_the_range_check() -> None:
    labels = np.array([0, 1, 2, 4], np.int32).reshape(4, 1, 1)
    preprocessing = make((4, 1, 1), label_map={4: 3, 1: 2, 2: 1})
    mask = preprocessing.mask(volume(labels), 4)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask.ravel(), [0, 2, 1, 3])
    np.testing.assert_array_equal(labels.ravel(), [0, 1, 2, 4])


@pytest.mark.parametrize("label", [3, 300, -1])
def test_labels_out_of_range_are_named(label: int) -> None:
    labels = np.zeros((4, 4, 4), np.int32)
    labels[0, 0, 0] = label
    with pytest.raises(UserError, match=rf"scan.npy: has label {label}, expected 0 to 2 \(num_classes = 3\)"):
        make().mask(volume(labels), 3)


def test_mask_resize_keeps_only_known_labels() -> None:
    # Linear interpolation between 0 and 2 would give 1.
    labels = np.zeros((6, 6, 6), np.int32)
    labels[2:, 1:, 3:] = 2
    assert set(np.unique(make((15, 15, 15)).mask(volume(labels), 3))) == {0, 2}


def coloured(values) -> Volume:
    """Return a photograph of one row ``(1, n, channels)``."""
    return Volume(np.array([values], np.float32), None, (1.0,) * 2, Path("folder/chest.png"))


def test_shades_of_grey_count_as_one_channel_where_told_so() -> None:
    window = {"intensity_window": (0, 255)}
    grey, three = make((1, 2), grey=True, **window), coloured([[51, 51, 51], [255, 255, 255]])
    np.testing.assert_allclose(grey.image(three), [[[0.2], [1]]])
    np.testing.assert_array_equal(grey.image(coloured([[51], [255]])), grey.image(three))
    assert grey.fitted_shape(three.header) == (1, 2, 1)
    assert make((1, 2), channels=3, grey=True, **window).image(three).shape == (1, 2, 3)
    with pytest.raises(UserError, match=r"chest\.png: has colours, expected shades of grey"):
        grey.image(coloured([[51, 51, 52], [255, 255, 255]]))
    for other, shape in ((make((1, 2), **window), (1, 2, 3)), (grey, (1, 2, 4))):
        with pytest.raises(UserError, match=f"has {shape[-1]} channels .* expected number_channels = 1"):
            other.fitted_shape(Header(shape, three.path))
    with pytest.raises(UserError, match="has 3 channels"):
        grey.fitted_shape(Header((1, 2, 3), Path("folder/array.npy")))
