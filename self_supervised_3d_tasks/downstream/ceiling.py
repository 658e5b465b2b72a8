"""The best that a preparation allows: masks to the prepared grid and back, as a perfect network would give them."""

from collections.abc import Sequence

import numpy as np

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.scores.segmentation import dice

NUM_CASES = 8  # that are looked at, evenly spread


def ceiling(experiment: FinetuneExperiment, cases: Sequence[Case]) -> dict[int, float]:
    """Return the mean Dice in [0, 1] of each foreground class between masks and what comes back of them.

    What resizing to ``data_dim``, resampling to ``target_spacing`` and cutting off borders lose, no network can win
    back. A class counts where a mask has it.

    Args:
        experiment: A finetuning on masks.
        cases: Labelled scans, of which `NUM_CASES` are read.
    """
    found: dict[int, list[float]] = {}
    for case in cases[:: max(1, -(-len(cases) // NUM_CASES))]:
        truth, restored = _round_trip(experiment, case)
        for label in set(np.unique(truth).tolist()) - {0}:
            found.setdefault(label, []).append(dice(truth == label, restored == label))
    return {label: float(np.mean(values)) for label, values in sorted(found.items())}


def ceiling_line(scores: dict[int, float], names: dict[int, str]) -> str:
    """Return the ceiling as a line for people.

    Args:
        scores: From `ceiling`.
        names: Names of the classes.
    """
    single = ", ".join(f"{names.get(label, f'class {label}')} {score:.3f}" for label, score in scores.items())
    return f"at most Dice {np.mean(list(scores.values())):.3f} after this preparation and back ({single})"


def _round_trip(experiment: FinetuneExperiment, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a mask on the scan's own grid, as they are and as they come back."""
    preprocessing, num_classes = experiment.preprocessing, experiment.num_classes
    mask = formats.read_mask(case.mask, experiment.rank)
    placement = preprocessing.whole(mask)
    if preprocessing.foreground_crop != "none":  # what it cuts off is seen on the scan
        _, placement = preprocessing.prepare(formats.read_channels(case.images, experiment.rank))
    prepared = preprocessing.mask(mask, num_classes, placement)
    restored = placement.restore(np.eye(num_classes, dtype=np.float32)[prepared])
    return preprocessing.labels(mask, num_classes), np.argmax(restored, axis=-1)
