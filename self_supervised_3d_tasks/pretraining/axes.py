"""Which axes of the scans are prepared in ways that a network can tell apart, so that turns of them would show."""

import copy
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from self_supervised_3d_tasks.algorithms.kinds import TurningAlgorithm
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import read_header
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.keys import TrainExperiment

Padding = Sequence[tuple[int, int]]  # voxels before and after each axis


def unlike_axes(experiment: TrainExperiment, cases: Iterable[Case]) -> tuple[set[tuple[int, int]], set[int]]:
    """Return the pairs of axes that are not prepared alike in some scan, and the axes that are padded unevenly.

    From headers alone, which do not tell what a foreground crop leaves, see `check_boxes`; one that cannot be read is
    told later.
    """
    if experiment.foreground_crop != "none" and experiment.fitting == "resize":
        return set(itertools.combinations(range(experiment.rank), 2)), set()  # each box has its own shape
    pairs, uneven, preprocessing = set(), set(), experiment.preprocessing
    data_dim = np.array(preprocessing.data_dim)
    for case in cases:
        try:
            header = read_header(case.image, experiment.rank)
            shape = np.array(header.shape[:-1])
            size = np.array(preprocessing.size_of(shape, header))
        except UserError:
            continue
        # Not size / shape: whole numbers of voxels are rounded, what is resampled is not.
        resampled = np.divide(header.spacing, preprocessing.target_spacing or header.spacing)
        enlarged = data_dim / shape if experiment.fitting == "resize" else resampled
        padding = preprocessing.padding(size)
        uneven |= _uneven(padding)
        pairs |= _unlike(padding)
        for a, b in itertools.combinations(range(len(shape)), 2):
            ratios = (enlarged[a] / enlarged[b], header.spacing[a] / header.spacing[b])
            if not np.allclose(ratios, 1, rtol=0, atol=1e-3):
                pairs.add((a, b))
    return pairs, uneven


def check_boxes(algorithm: TurningAlgorithm, store: VolumeStore) -> None:
    """Check that no scan, its borders cut off, is padded in a way that tells a turn which the task offers.

    Raises:
        UserError: One is; where the task insists on all turns, this is a warning.
    """
    paddings = [store.padding(index) for index in range(len(store))]
    trial = copy.copy(algorithm)
    trial.kept_apart, is_insisting = "", False
    try:
        trial.keep_apart(set().union(*map(_unlike, paddings)), set().union(*map(_uneven, paddings)))
        is_insisting = trial.settings() == algorithm.settings()
    except UserError:
        trial.kept_apart = "no turn is left"
    if not trial.kept_apart:
        return
    first = next(index for index, padding in enumerate(paddings) if _unlike(padding) or _uneven(padding))
    shape = store.shape(first)[:-1]
    left = [size - sum(ends) for size, ends in zip(shape, paddings[first], strict=True)]
    message = (
        f"foreground_crop, data_dim: of {store.cases[first].name} {left} voxels are left and padded to {list(shape)}, "
        'which tells turns without the anatomy; reduce data_dim until every scan fills it, or set "foreground_crop": '
        '"none"'
    )
    if not is_insisting:
        raise UserError(message)
    logging.warning("%s", message)


def _unlike(padding: Padding) -> set[tuple[int, int]]:
    """Return the pairs of axes that are padded by different numbers of voxels."""
    missing = [sum(ends) for ends in padding]
    return {(a, b) for a, b in itertools.combinations(range(len(missing)), 2) if missing[a] != missing[b]}


def _uneven(padding: Padding) -> set[int]:
    """Return the axes that are padded by more on one side than on the other."""
    return {axis for axis, (before, after) in enumerate(padding) if before != after}
