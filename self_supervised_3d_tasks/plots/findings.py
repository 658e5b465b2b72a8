"""The area under the ROC curve of every finding."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.scores.statistics import MODES

CHANCE = 0.5


def mean_areas(areas: np.ndarray) -> np.ndarray:
    """Return the mean over jobs of each finding, ``(num_findings,)``, NaN left out; NaN where nothing is left.

    Args:
        areas: ``(jobs, num_findings)``.
    """
    return np.ma.masked_invalid(areas).mean(axis=0).filled(np.nan)


def finding_areas(path: Path, areas: Mapping[str, np.ndarray], findings: Sequence[str], title: str) -> None:
    """Draw a row per finding: a mark at the mean of each mode, a dot at each job.

    Args:
        path: PNG file.
        areas: Per mode ``(jobs, num_findings)``, NaN where a finding has no area.
        findings: Names of the findings.
        title: Heading.
    """
    modes = [mode for mode in MODES if mode in areas]
    with canvas.chart(path, 5.4, 1.2 + 0.3 * len(findings)) as (figure, axes):
        axes.grid(axis="x")
        axes.axvline(CHANCE, color=canvas.GREY, linestyle=":", linewidth=1)
        rows = np.arange(len(findings))
        for number, mode in enumerate(modes):
            # The modes of a finding lie below each other.
            height = rows + 0.22 * (number - (len(modes) - 1) / 2)
            colour, marker = canvas.MODE_COLOURS[mode], canvas.MODE_MARKERS[mode]
            for single in areas[mode]:
                axes.plot(single, height, ".", color=colour, alpha=0.5, markersize=4, markeredgewidth=0)
            axes.plot(mean_areas(areas[mode]), height, marker, color=colour, markersize=4.5, label=mode)
        axes.set_yticks(rows, findings)
        axes.set(ylim=(len(findings) - 0.4, -0.6), xlabel="Area under the ROC curve (dotted: chance)")
        figure.legend(loc="outside upper left", ncols=len(modes), title=title, title_fontsize=8)
