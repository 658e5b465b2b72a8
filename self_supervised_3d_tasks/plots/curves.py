"""Scores over label fractions, and scores and losses over epochs."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.scores.statistics import MODES, ScoreRow, repetition_means

COLOURS = (canvas.GREEN, canvas.VERMILION, canvas.PURPLE, canvas.SKY, canvas.ORANGE, canvas.BLUE)
DASHES = ("-", "--", ":")


class Series(NamedTuple):
    """One mode over label fractions; ``dots`` are (percent, value) of the single repetitions."""

    percents: list[float]
    means: list[float]
    sds: list[float]
    dots: list[tuple[float, float]]


def fraction_series(rows: Iterable[ScoreRow], metric: str) -> dict[str, Series]:
    """Return what `score_over_fraction` draws, per mode in the order frozen, initialized, random."""
    rows = [row for row in rows if row.metric == metric]
    series = {}
    for mode in MODES:
        line = Series([], [], [], [])
        for percent in sorted({row.split for row in rows}):
            chosen = [row for row in rows if row.mode == mode and row.split == percent]
            values = list(repetition_means(chosen).values())
            if values:
                line.percents.append(percent)
                line.means.append(float(np.mean(values)))
                line.sds.append(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
                line.dots.extend((percent, value) for value in values)
        if line.percents:
            series[mode] = line
    return series


def epoch_series(history: Iterable[Mapping[str, object]], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs and values of one column of a history; rows without a value are left out.

    Args:
        history: Rows, first epoch first. Epochs are counted from 1 where rows have no column ``epoch``.
        column: Name of the column, for example ``"val_loss"``.
    """
    points = [
        (float(row.get("epoch", number)), float(row[column]))
        for number, row in enumerate(history, start=1)
        if row.get(column) not in (None, "")
    ]
    epochs, values = np.array(points, float).reshape(-1, 2).T
    return epochs, values


def score_over_fraction(path: Path, rows: Iterable[ScoreRow], metric: str, *, distance: bool = False) -> None:
    """Draw mean ± sd over repetitions against the share of labelled scans, one line per mode.

    Args:
        path: PNG file.
        rows: Scores of the sweep.
        metric: Name of the score.
        distance: Whether it is in mm, and less is better.
    """
    series = fraction_series(rows, metric)
    percents = sorted({percent for line in series.values() for percent in line.percents})
    meaning = "mm, less is better, mean ± sd" if distance else "mean ± sd"
    spread = math.log(percents[-1] / percents[0]) if len(percents) > 1 else 1.0
    with canvas.chart(path, 4.6, 3.2) as (figure, axes):
        for mode, line in series.items():
            # Error bars stand side by side; the dots of the repetitions lie to the left of their mean.
            centre = 0.03 * spread * (list(series).index(mode) - (len(series) - 1) / 2)
            look = {"color": canvas.MODE_COLOURS[mode], "marker": canvas.MODE_MARKERS[mode], "markersize": 4.5}
            places = np.array(line.percents) * math.exp(centre)
            axes.errorbar(places, line.means, line.sds, capsize=2.5, label=mode, **look)
            dots, values = np.transpose(line.dots)
            dots *= math.exp(centre - 0.01 * spread)
            axes.plot(dots, values, ".", color=canvas.MODE_COLOURS[mode], alpha=0.6, markersize=4, markeredgewidth=0)
        if percents:
            _fraction_axis(axes, percents, spread)
        axes.set(xlabel="Labelled training scans (%)", ylabel=f"{_words(metric)} ({meaning})")
        _finish(figure, axes)


def score_over_epochs(path: Path, histories: Mapping[str, Sequence[Mapping[str, object]]], column: str) -> None:
    """Draw one column of several training histories.

    Args:
        path: PNG file.
        histories: Rows of each history by its label. Labels that begin with a mode ("frozen 0", "frozen 1") share its
            colour and one entry of the legend.
        column: Name of the column, for example ``"val_loss"``.
    """
    looks: dict[str, tuple[str, str]] = {}
    with canvas.chart(path, 5.4, 3.2) as (figure, axes):
        for label, history in histories.items():
            epochs, values = epoch_series(history, column)
            name = next((mode for mode in MODES if label.split(" ")[0] == mode), label)
            if len(epochs):
                colour, dash = looks.setdefault(name, _look(name, len(looks)))
                _curve(axes, epochs, values, colour, dash, name)
        _epoch_axis(axes, _words(column))
        _finish(figure, axes)


def loss_curves(path: Path, history: Sequence[Mapping[str, object]]) -> None:
    """Draw training and validation loss over epochs and mark the best epoch.

    Args:
        path: PNG file.
        history: Rows with the columns ``loss`` and ``val_loss`` (either may be missing).
    """
    with canvas.chart(path, 5.4, 3.2) as (figure, axes):
        _curve(axes, *epoch_series(history, "loss"), canvas.GREY, "-", "training")
        epochs, values = epoch_series(history, "val_loss")
        if np.isfinite(values).any():
            best = int(np.nanargmin(values))
            name = f"validation (best {values[best]:.4g} in epoch {epochs[best]:g})"
            _curve(axes, epochs, values, canvas.BLUE, "-", name)
            axes.plot(epochs[best], values[best], "o", color=canvas.BLUE, markerfacecolor="white", zorder=3)
        _epoch_axis(axes, "Loss")
        _finish(figure, axes)


def learning_rate(path: Path, phases: Sequence[np.ndarray]) -> None:
    """Draw the learning rate over the steps of a training, and a dotted line where a phase begins.

    Args:
        path: PNG file.
        phases: The learning rate of each step, ``(steps,)``, of each phase.
    """
    rates = np.concatenate([*phases, [np.nan]])[:-1]
    with canvas.chart(path, 5.4, 2.4) as (figure, axes):
        if len(rates):
            axes.step(np.arange(len(rates)), rates, where="post", color=canvas.BLUE)
            for begin in np.cumsum([len(phase) for phase in phases])[:-1]:
                axes.axvline(begin, color=canvas.GREY, linestyle=":")
            axes.set_ylim(bottom=0)
        axes.set(xlabel="Step", ylabel="Learning rate")


def _look(name: str, number: int) -> tuple[str, str]:
    if name in canvas.MODE_COLOURS:
        return canvas.MODE_COLOURS[name], "-"
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def _curve(axes: canvas.Axes, epochs: np.ndarray, values: np.ndarray, colour: str, dash: str, name: str) -> None:
    if not len(epochs):
        return
    known = axes.get_legend_handles_labels()[1]
    marker = "." if len(epochs) < 20 else ""  # a line through one point is invisible
    label = None if name in known else name
    axes.plot(epochs, values, dash, color=colour, marker=marker, label=label, alpha=0.9, linewidth=1.2)


def _fraction_axis(axes: canvas.Axes, percents: Sequence[float], spread: float) -> None:
    """Put ticks at the fractions of a logarithmic axis; a label that would touch the next one is left out."""
    labels, last = [], math.inf
    for percent in reversed(percents):
        free = math.log(last / percent) > 0.07 * spread
        labels.insert(0, f"{percent:g}" if free else "")
        last = percent if free else last
    axes.set_xscale("log")
    axes.set_xticks(percents, labels)
    axes.set_xticks([], minor=True)
    axes.set_xlim(percents[0] * math.exp(-0.09 * spread), percents[-1] * math.exp(0.09 * spread))


def _epoch_axis(axes: canvas.Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="Epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    first, last = axes.dataLim.intervalx
    if math.isfinite(first):
        margin = 0.02 * (last - first) or 0.9
        axes.set_xlim(first - margin, last + margin)


def _finish(figure: canvas.Figure, axes: canvas.Axes) -> None:
    """Put the legend above the axes, where it never covers data, or say that there is nothing to see."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        widths = [0.5 + 0.06 * len(label) for label in labels]
        full = figure.get_figwidth()
        columns = len(labels) if sum(widths) <= full else max(1, int(full / max(widths)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=1.8)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=canvas.GREY)


def _words(name: str) -> str:
    """Return a column's name as an axis label: ``val_loss`` is "Validation loss"."""
    return re.sub("^val_", "validation_", name).replace("_", " ").capitalize()
