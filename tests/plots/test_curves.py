"""Scores over label fractions and epochs, and losses."""

import math

import numpy as np
import pytest

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.plots import canvas, curves
from self_supervised_3d_tasks.plots.curves import epoch_series, fraction_series
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET, ScoreRow

ROWS = [
    ScoreRow(percent, mode, repetition, case, case, "dice", value)
    for percent, mode, repetition, case, value in [
        (100, "random", 0, "a", 0.5),
        (100, "random", 0, "b", 0.7),
        (100, "random", 1, "a", 0.8),
        (100, "random", 1, "b", math.nan),
        (5, "random", 0, "a", 0.25),
        (5, "frozen", 0, "a", 0.5),
        (100, "frozen", 0, "a", math.nan),
    ]
] + [ScoreRow(50, "initialized", 0, "a", "a", "jaccard", 0.9)]
HISTORY = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": 0.1 + abs(epoch - 3)} for epoch in range(1, 6)]


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
    history = [{"epoch": "3", "loss": "0.5"}, {"epoch": "4", "loss": ""}, {"epoch": "5"}, {"epoch": 6, "loss": 0.25}]
    epochs, values = epoch_series(history, "loss")
    np.testing.assert_array_equal(epochs, [3, 6])
    np.testing.assert_array_equal(values, [0.5, 0.25])
    np.testing.assert_array_equal(epoch_series([{"loss": 1.0}, {"loss": 2.0}], "loss"), [[1, 2], [1, 2]])
    assert epoch_series([], "loss")[0].shape == (0,)


def test_score_over_fraction(tmp_path, read_png, shows):
    path = tmp_path / "plots" / "dice.png"
    plots.score_over_fraction(path, ROWS, "dice")
    picture = read_png(path)
    assert picture.shape == (640, 920, 3)
    assert shows(picture, canvas.ORANGE)
    assert shows(picture, canvas.GREY)
    assert not shows(picture, canvas.BLUE)  # "initialized" has no such score


@pytest.mark.parametrize("rows", [[], [row for row in ROWS if row.split == 5]])
def test_score_over_fraction_of_none_or_one_fraction(tmp_path, rows, read_png):
    plots.score_over_fraction(tmp_path / "dice.png", rows, "dice")
    assert read_png(tmp_path / "dice.png").shape == (640, 920, 3)


def test_score_over_fraction_of_whole_test_sets(tmp_path, read_png, shows):
    rows = [
        ScoreRow(split, "frozen", fold, WHOLE_SET, WHOLE_SET, "roc_auc", 0.5 + fold / 10)
        for split in (5, 50)
        for fold in (0, 1)
    ]
    series = fraction_series(rows, "roc_auc")
    assert series["frozen"].means == pytest.approx([0.55, 0.55])
    assert series["frozen"].sds == pytest.approx([0.1 / math.sqrt(2)] * 2)
    plots.score_over_fraction(tmp_path / "auc.png", rows, "roc_auc")
    assert shows(read_png(tmp_path / "auc.png"), canvas.ORANGE)


@pytest.mark.parametrize(
    ("distance", "label"), [(True, "Hd95 (mm, less is better, mean ± sd)"), (False, "Hd95 (mean ± sd)")]
)
def test_the_axis_says_of_which_score_less_is_better(tmp_path, monkeypatch, distance, label):
    labels = []
    monkeypatch.setattr(curves, "_finish", lambda figure, axes: labels.append(axes.get_ylabel()))
    rows = [ScoreRow(50, "random", 0, "a", "a", "hd95", 12.5)]
    plots.score_over_fraction(tmp_path / "hd95.png", rows, "hd95", distance=distance)
    assert labels == [label]


def test_score_over_epochs(tmp_path, read_png, shows):
    histories = {"initialized 0": HISTORY, "initialized 1": HISTORY[:1], "mine": HISTORY, "none": []}
    plots.score_over_epochs(tmp_path / "epochs.png", histories, "val_loss")
    picture = read_png(tmp_path / "epochs.png")
    assert picture.shape == (640, 1080, 3)
    assert shows(picture, canvas.BLUE, tolerance=40)
    assert shows(picture, canvas.VERMILION, tolerance=40)


@pytest.mark.parametrize("history", [[], HISTORY[:1], HISTORY, [{"loss": math.nan, "val_loss": math.nan}] * 2])
def test_loss_curves(tmp_path, history, read_png, shows):
    plots.loss_curves(tmp_path / "loss.png", history)
    picture = read_png(tmp_path / "loss.png")
    assert picture.shape == (640, 1080, 3)
    assert shows(picture, canvas.BLUE, tolerance=40) == (0 < len(history) != 2)


@pytest.mark.parametrize("phases", [[], [np.full(5, 0.1)], [np.linspace(0.1, 0, 4), np.linspace(0.1, 0, 6)]])
def test_learning_rate(tmp_path, phases, read_png, shows):
    plots.learning_rate(tmp_path / "learning_rate.png", phases)
    picture = read_png(tmp_path / "learning_rate.png")
    assert picture.shape == (480, 1080, 3)
    assert shows(picture, canvas.BLUE, tolerance=40) == bool(phases)
