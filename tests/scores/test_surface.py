"""Distances of surfaces: by hand, by a slow formula, and against DeepMind's library and ITK."""

from __future__ import annotations

import gc
import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from self_supervised_3d_tasks import scores
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import surface
from self_supervised_3d_tasks.scores.base import Distance, Predictions

RECTANGULAR = [((1.0, 1.0, 3.0), (9, 8, 7)), ((0.7, 0.7, 0.7), (8, 8, 8)), ((2.0, 0.5), (12, 15))]


def score(name, truth, prediction, spacing=None, *, num_classes=3, occurring=None):
    found = scores.find("segmentation", [name], list(map(str, range(num_classes))))
    return found[name](Predictions(truth, prediction, occurring=occurring, spacing=spacing))


def box(shape, first, size, label=1):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(start, start + length) for start, length in zip(first, size, strict=True))] = label
    return mask


def draw(seed, shape, sigma=1.0):
    """Return two random masks, alike and not empty, that touch the borders of the scan."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(2, *shape)), (0, *[sigma] * len(shape)))
    truth, other = noise[0], noise[0] + 0.5 * noise[1]
    return truth > np.quantile(truth, 0.7), other > np.quantile(other, 0.8)


def corners(mask):
    """Return the corners (number, rank) around which some voxels are in a mask and some are not, one by one."""
    padded = np.pad(mask, 1)
    windows = {
        corner: padded[tuple(slice(i, i + 2) for i in corner)]
        for corner in itertools.product(*(range(n + 1) for n in mask.shape))
    }
    return np.array([corner for corner, window in windows.items() if window.any() and not window.all()])


@pytest.mark.parametrize(("axis", "distance"), [(0, 2.0), (1, 2.0), (2, 6.0)])
def test_cubes_that_are_two_voxels_apart(axis, distance):
    """One face of each, a quarter of the corners, is as far from the other cube as that was moved."""
    truth = box((12, 12, 12), (3, 3, 3), (4, 4, 4))
    prediction = np.roll(truth, 2, axis)
    assert score("hd95", truth, prediction, (1, 1, 3)) == distance / 2  # class 2 is in neither: 0 mm
    assert score("hd95_class_1", truth, prediction, (1, 1, 3)) == distance
    assert score("hd95", truth, prediction, (1, 1, 3), occurring=[1]) == distance
    assert score("hd95_class_1", truth, prediction) == 2.0
    assert score("nsd_2mm_class_1", truth, prediction) == 1.0
    assert score("nsd_1mm_class_1", truth, prediction) < 0.8


@pytest.mark.parametrize(
    ("tolerance", "right"), [(1, 20 + math.sqrt(10)), (2, 21 + math.sqrt(10)), (3, 24 + 2 * math.sqrt(10))]
)
def test_surface_dice_of_two_squares_by_hand(tolerance, right):
    """Voxels of 1 × 3 mm: the contour of 4 × 4 of them is 4 corners of √10 / 2, 6 pieces of 1 and 6 of 3 mm.

    The square is moved by 3 mm. Of its far side the pieces at the ends are 1 mm from the other contour and the middle
    one 2 mm, of its near side all are 3 mm; 6 pieces and 2 corners lie on the other contour.
    """
    truth = box((8, 9), (2, 2), (4, 4))
    found = score(f"nsd_{tolerance}mm_class_1", truth, np.roll(truth, 1, 1), (1, 3))
    assert found == pytest.approx(right / (24 + 2 * math.sqrt(10)))
    assert score("hd95_class_1", truth, np.roll(truth, 1, 1), (1, 3)) == 3.0


def test_a_tolerance_includes_what_is_as_far():
    truth = box((20, 20), (2, 2), (7, 7))
    for spacing in (0.1, 0.3, 0.7, 1 / 3):
        moved = np.roll(truth, round(2.1 / 0.7), 0)
        assert score("nsd_1mm_class_1", truth, moved, (1 / 3, spacing)) == 1.0


@pytest.mark.parametrize("dense", [0.0, 1.0], ids=["transform", "tree"])
@pytest.mark.parametrize(("spacing", "shape"), RECTANGULAR)
@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_a_slow_formula(monkeypatch, seed, spacing, shape, dense):
    monkeypatch.setattr(surface, "_DENSE", dense)
    masks = draw(seed, shape)
    places = [corners(mask) * spacing for mask in masks]
    expected = cdist(*places)
    received = surface.surfaces(*masks, spacing)
    for axis in (0, 1):
        np.testing.assert_allclose(np.sort(received[axis].distances), np.sort(expected.min(axis=1 - axis)), atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of scipy's old names there
@pytest.mark.parametrize(("spacing", "shape"), RECTANGULAR)
@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_the_library_of_deepmind(seed, spacing, shape):
    from surface_distance import metrics

    truth, prediction = draw(seed, shape)
    theirs = metrics.compute_surface_distances(truth, prediction, spacing)
    labels = truth.astype(int), prediction.astype(int)
    assert score("hd95_class_1", *labels, spacing) == pytest.approx(metrics.compute_robust_hausdorff(theirs, 95))
    for tolerance in (1, 2):
        expected = metrics.compute_surface_dice_at_tolerance(theirs, tolerance + 1e-6)
        assert 0 < expected
        assert score(f"nsd_{tolerance}mm_class_1", *labels, spacing) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_distance_agrees_with_itk(seed):
    sitk = pytest.importorskip("SimpleITK")
    spacing, masks = (0.8, 1.0, 2.5), draw(seed, (10, 9, 8))
    images = []
    for mask in masks:
        border = np.zeros(np.add(mask.shape, 1), np.uint8)
        border[tuple(corners(mask).T)] = 1
        images.append(sitk.GetImageFromArray(border.T))
        images[-1].SetSpacing(spacing)
    itk = sitk.HausdorffDistanceImageFilter()
    itk.Execute(*images)
    largest = max(found.distances.max() for found in surface.surfaces(*masks, spacing))
    assert largest == pytest.approx(itk.GetHausdorffDistance(), rel=1e-5)


def test_the_percentile_is_of_the_area():
    found = surface.Surface(np.array([5.0, 1.0, 3.0]), np.array([1.0, 90.0, 9.0]))
    assert [found.percentile(share) for share in (0.5, 0.9, 0.91, 0.99, 0.995)] == [1, 1, 3, 3, 5]


@pytest.mark.parametrize("shape", [(240, 240, 155), (30, 40)])
def test_an_absent_class(shape):
    """The diagonal of a BraTS scan is the 373.13 mm that the challenge gives a tumour that was missed."""
    diagonal = {3: 373.1287, 2: 50.0}[len(shape)]
    nothing, something = np.zeros(shape, np.uint8), box(shape, (3,) * len(shape), (4,) * len(shape))
    assert score("hd95", nothing, nothing) == 0.0
    assert score("nsd_1mm", nothing, nothing) == 1.0
    for pair in ((nothing, something), (something, nothing)):
        assert score("hd95_class_1", *pair) == pytest.approx(diagonal, abs=1e-4)
        assert score("hd95_class_1", *pair, (2.0,) * len(shape)) == pytest.approx(2 * diagonal, abs=1e-4)
        assert score("nsd_10mm_class_1", *pair) == 0.0
        assert score("hd95", *pair, occurring=[1, 2]) == pytest.approx(diagonal / 2, abs=1e-4)
        assert score("nsd_1mm", *pair, occurring=[1, 2]) == 0.5
    # A test set without any foreground: all that is predicted is wrong.
    assert score("hd95", nothing, something, occurring=[]) == pytest.approx(diagonal, abs=1e-4)
    assert score("nsd_1mm", nothing, something, occurring=[]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_properties(seed):
    truth, prediction = (mask.astype(int) for mask in draw(seed, (9, 8, 7)))
    spacing = (1.5, 1.0, 2.0)
    forth, back = (score("hd95_class_1", *pair, spacing) for pair in ((truth, prediction), (prediction, truth)))
    assert forth == back
    assert score("hd95_class_1", truth, prediction, (3.0, 2.0, 4.0)) == pytest.approx(2 * forth)
    assert score("hd95_class_1", truth, truth, spacing) == 0
    assert score("nsd_1mm_class_1", truth, truth, spacing) == 1
    nsd = [score(f"nsd_{tolerance}mm_class_1", truth, prediction, spacing) for tolerance in surface.TOLERANCES]
    assert nsd == sorted(nsd)
    wide = [np.pad(mask, ((0, 9), (4, 0), (1, 2))) for mask in (truth, prediction)]
    assert score("hd95_class_1", *wide, spacing) == forth  # the box around both is what counts


def test_a_far_false_voxel_moves_the_largest_distance_not_the_percentile():
    truth = box((40, 40, 40), (2, 2, 2), (12, 12, 12))
    prediction = truth.copy()
    prediction[38, 38, 38] = 1
    assert score("hd95_class_1", truth, prediction) == 0.0
    assert max(found.distances.max() for found in surface.surfaces(truth > 0, prediction > 0, (1, 1, 1))) > 40


def test_surfaces_are_found_once_and_forgotten_with_the_case(monkeypatch):
    calls, compute = [], surface.surfaces
    monkeypatch.setattr(surface, "surfaces", lambda *masks: calls.append(1) or compute(*masks))
    found = Predictions(*(mask.astype(int) for mask in draw(0, (8, 8, 8))), occurring=[1])
    names = ["hd95", "hd95_class", "nsd_1mm", "nsd_2mm_class_1"]
    wanted = scores.find("segmentation", names, ["0", "1"])
    assert all(np.isfinite(each(found)) for each in wanted.values())
    assert len(calls) == 1
    before = len(surface._KEPT)
    del found
    gc.collect()
    assert len(surface._KEPT) == before - 1


def test_names():
    wanted = scores.find("segmentation", ["hd95", "hd95_class", "nsd_3mm_class", "nsd_3mm"], ["0", "1", "2"])
    names = ["hd95", "hd95_class_1", "hd95_class_2", "nsd_3mm_class_1", "nsd_3mm_class_2", "nsd_3mm"]
    assert list(wanted) == names
    assert [name for name, each in wanted.items() if isinstance(each, Distance)] == names[:3]
    for name in ("nsd", "nsd_11mm", "hd95_class_3", "hd95_class_0"):
        with pytest.raises(
            UserError, match="is no score of segmentation with 3 classes; known: .*hd95_class_K"
        ) as error:
            scores.find("segmentation", [name], ["0", "1", "2"])
        assert "class_1" not in str(error.value).split("known: ")[1].split(" Did you mean")[0]


def test_the_spacing_is_of_the_axes_of_the_mask():
    with pytest.raises(ValueError, match="spacing of 2 axes"):
        Predictions(np.zeros((3, 3)), np.zeros((3, 3)), spacing=(1, 1, 1))
