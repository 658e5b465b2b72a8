from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.algorithms.base import Panel
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.plots.confusion import row_shares
from self_supervised_3d_tasks.plots.curves import epoch_series, fraction_series
from self_supervised_3d_tasks.plots.findings import mean_areas
from self_supervised_3d_tasks.plots.masks import LABEL_COLOURS, largest_slices, views
from self_supervised_3d_tasks.plots.preview import central_slice
from self_supervised_3d_tasks.plots.restoration import Restoration
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET, ScoreRow

ROWS = [
    ScoreRow(percent, mode, repetition, case, "dice", value)
    for percent, mode, repetition, case, value in [
        (100, "random", 0, "a", 0.5),
        (100, "random", 0, "b", 0.7),
        (100, "random", 1, "a", 0.8),
        (100, "random", 1, "b", math.nan),
        (5, "random", 0, "a", 0.25),
        (5, "frozen", 0, "a", 0.5),
        (100, "frozen", 0, "a", math.nan),
    ]
] + [ScoreRow(50, "initialized", 0, "a", "jaccard", 0.9)]
HISTORY = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": 0.1 + abs(epoch - 3)} for epoch in range(1, 6)]


def read_png(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def shows(picture, colour, tolerance=12):
    """Whether some pixels have the colour ``#rrggbb``."""
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((np.abs(picture - rgb).max(-1) <= tolerance).sum() > 10)


def test_fraction_series_by_hand():
    series = fraction_series(ROWS, "dice")
    assert list(series) == ["frozen", "random"]
    assert series["frozen"] == ([5], [0.5], [0.0], [(5, 0.5)])
    percents, means, sds, dots = series["random"]
    assert percents == [5, 100]
    assert means == pytest.approx([0.25, 0.7])  # repetition means at 100 %: 0.6 and 0.8
    assert sds == pytest.approx([0.0, 0.2 / math.sqrt(2)])
    assert dots == [(5, 0.25), (100, pytest.approx(0.6)), (100, 0.8)]


def test_epoch_series_leaves_empty_cells_out():
    history = [
        {"epoch": "3", "loss": "0.5"},
        {"epoch": "4", "loss": ""},
        {"epoch": "5"},
        {"epoch": 6, "loss": 0.25},
    ]
    epochs, values = epoch_series(history, "loss")
    np.testing.assert_array_equal(epochs, [3, 6])
    np.testing.assert_array_equal(values, [0.5, 0.25])
    np.testing.assert_array_equal(epoch_series([{"loss": 1.0}, {"loss": 2.0}], "loss"), [[1, 2], [1, 2]])
    assert epoch_series([], "loss")[0].shape == (0,)


def test_score_over_fraction(tmp_path):
    path = tmp_path / "plots" / "dice.png"
    plots.score_over_fraction(path, ROWS, "dice")
    picture = read_png(path)
    assert picture.shape == (640, 920, 3)
    assert shows(picture, canvas.ORANGE)
    assert shows(picture, canvas.GREY)
    assert not shows(picture, canvas.BLUE)  # "initialized" has no such score


@pytest.mark.parametrize("rows", [[], [row for row in ROWS if row.split == 5]])
def test_score_over_fraction_of_none_or_one_fraction(tmp_path, rows):
    plots.score_over_fraction(tmp_path / "dice.png", rows, "dice")
    assert read_png(tmp_path / "dice.png").shape == (640, 920, 3)


def test_score_over_fraction_of_whole_test_sets(tmp_path):
    rows = [
        ScoreRow(split, "frozen", fold, WHOLE_SET, "roc_auc", 0.5 + fold / 10) for split in (5, 50) for fold in (0, 1)
    ]
    series = fraction_series(rows, "roc_auc")
    assert series["frozen"].means == pytest.approx([0.55, 0.55])
    assert series["frozen"].sds == pytest.approx([0.1 / math.sqrt(2)] * 2)
    plots.score_over_fraction(tmp_path / "auc.png", rows, "roc_auc")
    assert shows(read_png(tmp_path / "auc.png"), canvas.ORANGE)


def test_row_shares_of_a_confusion_matrix():
    shares = row_shares(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]]))
    np.testing.assert_array_equal(shares, [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_confusion_matrix(tmp_path, num_classes):
    matrix = np.eye(num_classes, dtype=int) * 120 + 3
    names = {0: "no retinopathy", 1: "a name that is longer than a cell of the matrix"}
    plots.confusion_matrix(tmp_path / "plots" / "confusion.png", matrix, "random, 100 % of the labels", names)
    plots.confusion_matrix(tmp_path / "bare.png", matrix, "random")
    assert shows(read_png(tmp_path / "plots" / "confusion.png"), "#08306b", tolerance=60)  # the diagonal
    assert read_png(tmp_path / "bare.png").min() < 60


def test_areas_of_findings(tmp_path):
    areas = {"random": np.array([[0.5, math.nan, 0.7], [0.7, math.nan, math.nan]]), "initialized": np.full((1, 3), 0.8)}
    np.testing.assert_allclose(mean_areas(areas["random"]), [0.6, math.nan, 0.7])
    plots.finding_areas(tmp_path / "findings.png", areas, ["Mass", "Edema", "Hernia"], "10 % of the labels")
    picture = read_png(tmp_path / "findings.png")
    assert shows(picture, canvas.BLUE, tolerance=40) and shows(picture, canvas.GREY, tolerance=40)


def test_score_over_epochs(tmp_path):
    histories = {"initialized 0": HISTORY, "initialized 1": HISTORY[:1], "mine": HISTORY, "none": []}
    plots.score_over_epochs(tmp_path / "epochs.png", histories, "val_loss")
    picture = read_png(tmp_path / "epochs.png")
    assert picture.shape == (640, 1080, 3)
    assert shows(picture, canvas.BLUE, tolerance=40)
    assert shows(picture, canvas.VERMILION, tolerance=40)


@pytest.mark.parametrize("history", [[], HISTORY[:1], HISTORY, [{"loss": math.nan, "val_loss": math.nan}] * 2])
def test_loss_curves(tmp_path, history):
    plots.loss_curves(tmp_path / "loss.png", history)
    picture = read_png(tmp_path / "loss.png")
    assert picture.shape == (640, 1080, 3)
    assert shows(picture, canvas.BLUE, tolerance=40) == (0 < len(history) != 2)


def test_central_slice():
    image = np.arange(2 * 3 * 5 * 2).reshape(2, 3, 5, 2)
    # first axis to the right, second axis up, slice 2 of 5, channel 0
    expected = [[image[0, 2, 2, 0], image[1, 2, 2, 0]], [image[0, 1, 2, 0], image[1, 1, 2, 0]]]
    np.testing.assert_array_equal(central_slice(image)[:2], expected)
    np.testing.assert_array_equal(central_slice(image[0]), image[0, :, :, 0])
    photograph = np.zeros((4, 5, 3))
    assert central_slice(photograph).shape == (4, 5, 3)


@pytest.mark.parametrize("shape", [(8, 9, 1), (8, 9, 7, 2)])
def test_pretext_preview(tmp_path, shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    constant = np.zeros(shape, np.float32)
    block = [("original", image), Panel("a long title that needs several lines of text", constant)]
    plots.pretext_preview(tmp_path / "preview.png", [block, [], block * 6])
    width = round((0.3 + 6 * (1.0 + 0.08)) * canvas.DPI)  # twelve pictures make two rows, as nine fit into one
    assert read_png(tmp_path / "preview.png").shape[1] == width


def test_pretext_preview_shows_the_pictures_in_one_grey_range(tmp_path):
    bright, dark = np.ones((4, 4, 1)), np.full((4, 4, 1), 0.5)
    dark[0, 0] = 0
    plots.pretext_preview(tmp_path / "preview.png", [[("bright", bright), ("dark", dark)]])
    picture = read_png(tmp_path / "preview.png")
    middle = picture.shape[0] - round((0.08 + 0.08 + 0.8) * canvas.DPI)
    first = round((0.3 + 0.8) * canvas.DPI)
    assert picture[middle, first, 0] == 255
    assert picture[middle, first + round(1.68 * canvas.DPI), 0] == pytest.approx(127, abs=1)


def test_similarity_histogram(tmp_path):
    rng = np.random.default_rng(0)
    same, different = rng.uniform(0.6, 1, 300), rng.uniform(-0.5, 0.5, 900)
    plots.similarity_histogram(tmp_path / "plots" / "similarity.png", same, different)
    picture = read_png(tmp_path / "plots" / "similarity.png")
    assert picture.shape == (680, 1080, 3)
    for rgb, place in (([0, 114, 178], 0.85), ([213, 94, 0], 0.34)):  # the means, 0.8 and 0, from -0.53 to 1.03
        line = ((np.abs(picture - rgb).max(-1) < 12).sum(0) > 200).nonzero()[0]
        assert (line.mean() - 100) / 970 == pytest.approx(place, abs=0.03)


def test_similarity_histogram_of_codes_that_are_all_alike(tmp_path):
    plots.similarity_histogram(tmp_path / "similarity.png", np.ones(3), np.ones(4))
    assert read_png(tmp_path / "similarity.png").shape == (680, 1080, 3)


@pytest.mark.parametrize("num_wholes", [2, 9, 70])
def test_embedding_gives_each_whole_a_colour(tmp_path, num_wholes):
    points = np.random.default_rng(0).normal(size=(3 * num_wholes, 2))
    plots.embedding(tmp_path / "embedding.png", points, np.repeat(np.arange(num_wholes), 3))
    picture = read_png(tmp_path / "embedding.png")
    colours = [canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE, canvas.SKY, canvas.PURPLE]
    faded = [
        "#" + "".join(f"{round(0.75 * int(colour[at : at + 2], 16) + 0.25 * 255):02x}" for at in (1, 3, 5))
        for colour in colours
    ]
    assert [shows(picture, colour, tolerance=3) for colour in faded] == [True] * 2 + [num_wholes > 2] * 4


@pytest.mark.parametrize("shape", [(8, 9, 1), (9, 8, 3), (8, 9, 7, 2)])
def test_restorations_have_a_row_for_each_scan(tmp_path, shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    rows = [Restoration("a name that is far too long to be written out", image, 5 * image, image, "MSE 0.0123")] * 2
    plots.restorations(tmp_path / "sheet.png", rows, "Validation scans after epoch 10")
    assert read_png(tmp_path / "sheet.png").shape == (round((0.56 + 2 * 2.04 + 0.1) * canvas.DPI), 1092, 3)


def test_original_and_reconstruction_are_drawn_from_0_to_1_and_the_part_in_a_range_of_its_own(tmp_path):
    wanted, seen = np.zeros((4, 4, 1)), np.zeros((4, 4, 1))
    wanted[0, 0], seen[0, 0] = 0.5, 7.0
    seen[2:] = 3.5
    restored = np.full((4, 4, 1), 0.25)
    plots.restorations(tmp_path / "sheet.png", [Restoration("scan", wanted, seen, restored, "MSE 0.1")], "title")
    picture = read_png(tmp_path / "sheet.png")[..., 0]
    row = round((0.56 + 0.34 + 1.3) * canvas.DPI)
    middles = [round((0.1 + 0.85 + column * 1.78) * canvas.DPI) for column in range(3)]
    assert [picture[row, middle] for middle in middles] == [0, pytest.approx(127, abs=1), pytest.approx(64, abs=1)]


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
    axial, coronal, sagittal = views(image, mask, (1, 2, 3))

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
    last, *_ = views(image, np.zeros(image.shape, int), (1, 1, 1), slices=(1, 2, 3), canonical=False)
    np.testing.assert_array_equal(last.picture, image[:, :, 3].T[::-1])
    assert (last.title, last.sides) == ("axis 2, slice 4 of 6", "")
    (flat,) = views(image[0], np.zeros((5, 6), int), (2, 3))
    np.testing.assert_array_equal(flat.picture, image[0])
    assert flat.size == (18, 10)


@pytest.mark.parametrize(
    ("shape", "channels", "with_truth"),
    [((12, 14), (), False), ((12, 14), (3,), True), ((12, 14, 9), (1,), False), ((12, 14, 9), (), True)],
)
def test_overlay_shows_every_label(tmp_path, shape, channels, with_truth):
    image = np.random.default_rng(2).random((*shape, *channels)).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 2:12], mask[7:11, 2:12] = 1, 3
    truth = np.where(mask == 3, 2, 0) if with_truth else None
    plots.overlay(
        tmp_path / "overlay.png",
        image,
        mask,
        "case",
        (1.0, 2.0, 3.0)[: len(shape)],
        truth=truth,
        names={1: "organ"},
    )
    picture = read_png(tmp_path / "overlay.png")
    assert [shows(picture, LABEL_COLOURS[label - 1]) for label in (1, 2, 3, 4)] == [
        True,
        with_truth,
        True,
        False,
    ]


@pytest.mark.parametrize("value", [0, 1])
def test_overlay_of_an_empty_and_a_full_mask(tmp_path, value):
    image = np.zeros((8, 8, 8), np.float32)
    plots.overlay(tmp_path / "overlay.png", image, np.full(image.shape, value, np.uint8), "x" * 200, (1, 1, 1))
    picture = read_png(tmp_path / "overlay.png")
    assert shows(picture, LABEL_COLOURS[0]) == bool(value)
    assert (picture[-1] == 255).all()


def test_overlay_keeps_the_proportions_of_the_spacing(tmp_path):
    """Planes of (4, 10), (4, 18) and (10, 18) mm side by side at one scale; the tallest gives the height."""
    mask = np.ones((4, 5, 6), int)
    plots.overlay(tmp_path / "overlay.png", np.zeros(mask.shape), mask, "", (1, 2, 3))
    picture = read_png(tmp_path / "overlay.png")
    filled = (picture[..., 0] > 60) & (picture[..., 2] < 20)  # the first label's colour on black
    edges = np.flatnonzero(np.diff(filled[round((0.38 + 0.22 + 1.2) * canvas.DPI)].astype(int)))
    sizes = [(end - start, filled[:, start + (end - start) // 4].sum()) for start, end in edges.reshape(3, 2)]
    scale = 3.4 / 18 * canvas.DPI
    np.testing.assert_allclose(sizes, np.array([(4, 10), (4, 18), (10, 18)]) * scale, atol=5)


def test_a_failed_figure_leaves_the_old_file(tmp_path):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), canvas.figure(path, 1, 1):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.loss_curves(tmp_path / "loss.png", HISTORY)
    assert dict(matplotlib.rcParams) == before
