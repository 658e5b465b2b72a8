"""One epoch as a line of the log."""

import math
import textwrap
from collections.abc import Mapping

WIDTH = 120 - len("12:34:56 ")  # the time stands before it
_WORDS = {"complete": "scans that count", "mean_image_mse": "mean image mse"}
_SHARES = {"complete"}
_TIMES = ("epoch", "phase", "seconds", "samples_per_second", "wait_share")


def epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """Return an epoch in words: each measure in training and in validation, its time, and how long it lacked data.

    Args:
        row: An epoch of the history, with the columns that `training.fit` describes.
        epochs: Number of epochs of the training.

    Returns:
        A line of at most `WIDTH` characters; what goes beyond stands in further ones, indented.
    """
    names = dict.fromkeys(name.removeprefix("val_") for name in row if name not in _TIMES)
    parts = [_measure(name, row) for name in sorted(names, key=lambda name: (name != "loss", name))]
    speed = row["samples_per_second"]
    parts.append(f"{_seconds(row['seconds'])}, {f'{speed:.3g}' if speed < 1000 else f'{speed:.0f}'} scans/s")
    parts.append(f"waited for data {_percent(row['wait_share'])}")
    text = f"epoch {row['epoch']:.0f}/{epochs}: " + ", ".join(parts)
    # A break stands behind a comma, not within a measure.
    glued = text.replace(" ", "\0").replace(",\0", ", ")
    lines = textwrap.wrap(glued, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines).replace("\0", " ")


def _measure(name: str, row: Mapping[str, float]) -> str:
    """Return ``loss 1.2 (val 1.3)``, or ``val loss 1.3`` of what is measured there alone."""
    word = _WORDS.get(name, name.replace("_", " "))
    show = _percent if name in _SHARES else _number
    if name not in row:
        return f"val {word} {show(row[f'val_{name}'])}"
    text = f"{word} {show(row[name])}"
    return f"{text} (val {show(row[f'val_{name}'])})" if f"val_{name}" in row else text


def _number(value: float) -> str:
    """Return a number with three to four digits that say something."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else str(share)


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
