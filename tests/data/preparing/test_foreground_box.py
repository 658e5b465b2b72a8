"""Boxes around the foreground, and inside it."""

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preparing.foreground_box import foreground_box
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume


def ball(side, rank, radius):
    distance = np.square(np.indices((side,) * rank) - (side - 1) / 2).sum(axis=0)
    return (distance <= radius**2).astype(np.float32)[..., None]


def volume(array, tmp_path):
    return Volume.without_affine(array, array.ndim - 1, tmp_path / "a.npy")


def test_the_box_around_holds_the_first_and_the_last_voxel(tmp_path):
    image = np.zeros((8, 9, 10, 2), np.float32)
    image[2, 3, 4, 0] = image[5, 8, 9, 1] = 0.06
    image[0] = 0.05  # not above the threshold
    assert foreground_box(image, "box", "a") == (slice(2, 6), slice(3, 9), slice(4, 10))
    assert foreground_box(image, "none", "a") == (slice(0, 8), slice(0, 9), slice(0, 10))
    assert foreground_box(np.zeros((4, 4, 1)), "box", "a") == (slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("rank", [2, 3])
def test_the_box_inside_a_ball_is_filled_to_its_corners(rank):
    image = ball(64, rank, 30)
    inner = foreground_box(image, "inside", "a")
    found = image[inner][..., 0] > 0
    edge = found.shape[0]
    # The cube inside a ball has 1/sqrt(rank) of its diameter; corners may lack a twentieth of their voxels.
    assert found.shape == (edge,) * rank and 60 / np.sqrt(rank) - 2 <= edge <= 60 / np.sqrt(rank) + 8
    assert found.mean() > 0.98
    centre = [(side.start + side.stop) / 2 for side in inner]
    np.testing.assert_allclose(centre, 32, atol=1)


def test_a_scan_that_is_never_filled_is_told(caplog):
    image = np.zeros((20, 20, 1), np.float32)
    image[0, 0] = image[-1, -1] = 1
    assert foreground_box(image, "inside", "a.nii") == (slice(6, 14), slice(6, 14))
    assert "a.nii has no filled box of 40 %" in caplog.text


@pytest.mark.parametrize("fitting", ["resize", "crop"])
def test_image_mask_and_prediction_are_of_one_box(tmp_path, fitting):
    """Twice the box's size in the first case, padded to it in the second."""
    image = np.zeros((12, 10, 8, 1), np.float32)
    image[2:8, 3:9, 1:7] = 0.5
    image[5:8, 3:9, 1:7] = 1
    labels = np.where(image[..., 0] == 1, 2, (image[..., 0] > 0).astype(int)).astype(np.int32)
    labels[0, 0, 0] = 1  # is cut off
    preprocessing = Preprocessing((12, 12, 12), 1, volume_fitting=fitting, foreground_crop="box")
    prepared, placement = preprocessing.prepare(volume(image, tmp_path))
    box = placement.box
    assert box == (slice(2, 8), slice(3, 9), slice(1, 7)) and prepared.shape == (12, 12, 12, 1)
    mask = preprocessing.mask(volume(labels, tmp_path), 3, placement)
    expected = labels[box].repeat(2, 0).repeat(2, 1).repeat(2, 2) if fitting == "resize" else np.pad(labels[box], 3)
    np.testing.assert_array_equal(mask, expected)
    probabilities = np.eye(3, dtype=np.float32)[mask]
    restored = np.argmax(placement.restore(probabilities), axis=-1)
    labels[0, 0, 0] = 0
    np.testing.assert_array_equal(restored, labels)
