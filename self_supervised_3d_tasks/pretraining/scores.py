"""How well a pretext task was learned, beside what an answer reaches that does not look at the scans."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.files.tables import write_table

COLUMNS = ("metric", "epoch", "training", "training_chance", "validation", "validation_chance")

Row = dict[str, object]


def of_epoch(
    history: Sequence[Mapping[str, object]],
    epoch: int,
    training_chance: Mapping[str, float],
    validation_chance: Mapping[str, float],
) -> list[Row]:
    """Return the loss and every metric of the epoch whose encoder is kept.

    Args:
        history: One row per epoch; a metric has a column of its name and one with ``val_`` before it.
        epoch: Number of the epoch that is kept, counted from 1.
        training_chance: By metric, what is reached without looking at the training scans; the others have None.
        validation_chance: By metric, what is reached without looking at the validation scans; see `validation_chance`.

    Returns:
        One row per metric with `COLUMNS`; numbers that are missing or not finite are None.
    """
    kept = next(row for row in history if int(row["epoch"]) == epoch)
    names = [column.removeprefix("val_") for column in kept if column.startswith("val_")]
    return [
        {
            "metric": name,
            "epoch": epoch,
            "training": _number(kept.get(name)),
            "training_chance": training_chance.get(name),
            "validation": _number(kept[f"val_{name}"]),
            "validation_chance": validation_chance.get(name),
        }
        for name in names
    ]


def validation_chance(algorithm: Algorithm, num_crops: int, batch_size: int) -> dict[str, float]:
    """Return the chance level of the metrics over the validation batches, of which the last may be smaller.

    Args:
        algorithm: The pretext task.
        num_crops: Number of validation scans, or of crops of them.
        batch_size: Number of scans (crops) in a full batch.
    """
    full, rest = divmod(num_crops, batch_size)
    sizes = [batch_size] * full + [rest] * (rest >= algorithm.sampling.min_batch)
    levels = [algorithm.chance(size) for size in sizes]
    names = algorithm.chance(batch_size)
    return {name: float(np.average([level[name] for level in levels], weights=sizes)) for name in names}


def standstill(rows: Sequence[Row]) -> list[str]:
    """Return one sentence per metric that is at chance in validation.

    Where training is well above chance, less than a tenth of what it gained is at chance; else, what both gained has to
    be less than a twentieth of what there is to gain.
    """
    found = []
    for row in rows:
        training, chance, validation, level = (row[column] for column in COLUMNS[2:])
        if None in (training, chance, validation, level):
            continue
        gained, kept, most = training - chance, validation - level, 1 - chance
        if gained > 0.2 * most and kept < 0.1 * gained:
            found.append(
                f"{row['metric']} is {training:.3f} in training but {validation:.3f} in validation, at a chance of "
                f"{level:.3f}: the task was learned by heart, or by running statistics that validation does not share; "
                'use more scans or augmentation, or "normalization": "group" in place of "batch"'
            )
        elif max(gained, kept) < 0.05 * most:
            found.append(
                f"{row['metric']} stands at chance, {level:.3f}, with {training:.3f} in training and {validation:.3f} "
                "in validation: it was not learned, and an encoder that did not learn its task is worth no comparison; "
                "use more epochs, another lr or a larger batch_size"
            )
    return found


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV; None is left empty."""
    write_table(path, COLUMNS, ([row[column] for column in COLUMNS] for row in rows))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    epoch = rows[0]["epoch"] if rows else "-"
    lines = [f"{f'pretext task, epoch {epoch}':<28}{'training':>10}{'chance':>8}{'validation':>12}{'chance':>8}"]
    for row in rows:
        training, chance, validation, validation_chance = (_text(row[column]) for column in COLUMNS[2:])
        lines.append(f"{row['metric']!s:<28}{training:>10}{chance:>8}{validation:>12}{validation_chance:>8}")
    return "\n".join(lines)


def _number(value: object) -> float | None:
    number = float(value) if value not in (None, "") else math.nan
    return number if math.isfinite(number) else None


def _text(value: object) -> str:
    return "-" if value is None else f"{value:.3f}"
