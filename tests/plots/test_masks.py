"""Masks drawn on their scans."""

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.masks import LABEL_COLOURS, largest_slices, views


def test_largest_slices():
    mask = np.zeros((5, 6, 7), int)
    assert largest_slices(mask) == (2, 3, 3)
    mask[1, 2, 3] = mask[4, 2, 5] = mask[4, 0, 5] = 2
    assert largest_slices(mask) == (4, 2, 5)
    assert largest_slices(mask[4]) == (0, 5)  # the first of equals


def test_views_of_a_canonical_scan_are_radiological():
    image = np.zeros((4, 5, 6))
    image[3, :, :] = 1  # patient right
    image[:, 4, :] += 2  # anterior
    image[:, :, 5] += 4  # superior
    mask = np.zeros(image.shape, int)
    mask[0, 0, 0] = 1
    axial, coronal, sagittal = views(image, mask, (1, 2, 3), largest_slices(mask), canonical=True)

    assert [view.title for view in (axial, coronal, sagittal)] == [
        "axial, slice 1 of 6",
        "coronal, slice 1 of 5",
        "sagittal, slice 1 of 4",
    ]
    assert [view.sides for view in (axial, coronal, sagittal)] == ["RA", "RS", "AS"]
    assert [view.size for view in (axial, coronal, sagittal)] == [(4, 10), (4, 18), (10, 18)]  # mm
    assert [view.picture.shape for view in (axial, coronal, sagittal)] == [(5, 4), (6, 4), (6, 5)]
    corners = {"top left": (0, 0), "top right": (0, -1), "bottom left": (-1, 0), "bottom right": (-1, -1)}
    assert [axial.picture[place] for place in corners.values()] == [3, 2, 1, 0]
    assert [coronal.picture[place] for place in corners.values()] == [5, 4, 1, 0]
    assert [sagittal.picture[place] for place in corners.values()] == [6, 4, 2, 0]
    for view in (axial, coronal, sagittal):
        assert view.mask[-1, -1] == view.mask.sum() == 1


def test_views_of_unknown_axes_and_of_a_2d_image_are_not_mirrored():
    image = np.random.default_rng(1).random((4, 5, 6))
    last, *_ = views(image, np.zeros(image.shape, int), (1, 1, 1), (1, 2, 3), canonical=False)
    np.testing.assert_array_equal(last.picture, image[:, :, 3].T[::-1])
    assert (last.title, last.sides) == ("axis 2, slice 4 of 6", "")
    (flat,) = views(image[0], np.zeros((5, 6), int), (2, 3), (2, 3), canonical=True)
    np.testing.assert_array_equal(flat.picture, image[0])
    assert flat.size == (18, 10)


@pytest.mark.parametrize(
    ("shape", "channels", "with_truth"),
    [((12, 14), (), False), ((12, 14), (3,), True), ((12, 14, 9), (1,), False), ((12, 14, 9), (), True)],
)
def test_overlay_shows_every_label(tmp_path, shape, channels, with_truth, read_png, shows):
    image = np.random.default_rng(2).random((*shape, *channels)).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 2:12], mask[7:11, 2:12] = 1, 3
    truth = np.where(mask == 3, 2, 0) if with_truth else None
    plots.overlay(
        tmp_path / "overlay.png", image, mask, "case", (1.0, 2.0, 3.0)[: len(shape)], truth=truth, names={1: "organ"}
    )
    picture = read_png(tmp_path / "overlay.png")
    assert [shows(picture, LABEL_COLOURS[label - 1]) for label in (1, 2, 3, 4)] == [True, with_truth, True, False]


@pytest.mark.parametrize("value", [0, 1])
def test_overlay_of_an_empty_and_a_full_mask(tmp_path, value, read_png, shows):
    image = np.zeros((8, 8, 8), np.float32)
    plots.overlay(tmp_path / "overlay.png", image, np.full(image.shape, value, np.uint8), "x" * 200, (1, 1, 1))
    picture = read_png(tmp_path / "overlay.png")
    assert shows(picture, LABEL_COLOURS[0]) == bool(value)
    assert (picture[-1] == 255).all()


def test_overlay_keeps_the_proportions_of_the_spacing(tmp_path, read_png):
    """Planes of (4, 10), (4, 18) and (10, 18) mm side by side at one scale; the tallest gives the height."""
    mask = np.ones((4, 5, 6), int)
    plots.overlay(tmp_path / "overlay.png", np.zeros(mask.shape), mask, "", (1, 2, 3))
    picture = read_png(tmp_path / "overlay.png")
    filled = (picture[..., 0] > 60) & (picture[..., 2] < 20)  # the first label's colour on black
    edges = np.flatnonzero(np.diff(filled[round((0.38 + 0.22 + 1.2) * canvas.DPI)].astype(int)))
    sizes = [(end - start, filled[:, start + (end - start) // 4].sum()) for start, end in edges.reshape(3, 2)]
    scale = 3.4 / 18 * canvas.DPI
    np.testing.assert_allclose(sizes, np.array([(4, 10), (4, 18), (10, 18)]) * scale, atol=5)
