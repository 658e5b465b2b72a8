"""Histograms of the similarities of codes."""

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.plots import canvas

BINS = 50


def similarity_histogram(path: Path, same: np.ndarray, different: np.ndarray) -> None:
    """Draw how alike codes are within and between wholes; each histogram sums to 1, lines mark the means.

    Args:
        path: PNG file.
        same: Cosine similarities of parts of the same whole, at least one.
        different: Cosine similarities of parts of different wholes, at least one.
    """
    low, high = min(same.min(), different.min()), max(same.max(), different.max())
    margin = 0.02 * (high - low) or 0.01  # codes that are all alike have a single value
    edges = np.linspace(max(low - margin, -1), min(high + margin, 1), BINS + 1)
    kinds = (("same whole", same, canvas.BLUE), ("different wholes", different, canvas.VERMILION))
    with canvas.chart(path, 5.4, 3.4) as (figure, axes):
        for name, values, colour in kinds:
            label = f"{name}: mean {values.mean():.3f}, sd {values.std():.3f}, {len(values):,} pairs"
            weights = np.full(len(values), 1 / len(values))
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.45, label=label)
            axes.hist(values, edges, weights=weights, color=colour, histtype="step", linewidth=1.0)
            axes.axvline(values.mean(), color=colour, linestyle="--", linewidth=1.2)
        axes.set(xlabel="Cosine similarity of the codes of two parts (dashed: means)", ylabel="Share of the pairs")
        axes.set_xlim(edges[0], edges[-1])
        figure.legend(loc="outside upper left", ncols=1, handlelength=1.4)
