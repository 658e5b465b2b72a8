"""Which axes of the scans are prepared in ways that a network can tell apart, so that turns of them would show."""

import itertools
from collections.abc import Iterable

import numpy as np

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import read_header
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.keys import TrainExperiment


def unlike_axes(experiment: TrainExperiment, cases: Iterable[Case]) -> tuple[set[tuple[int, int]], set[int]]:
    """Return the pairs of axes that are not prepared alike in some scan, and the axes that are padded unevenly.

    From headers alone, which do not tell what a foreground crop leaves; one that cannot be read is told later.
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
        missing = np.maximum(0, data_dim - size)
        uneven |= set(np.flatnonzero(missing % 2).tolist())
        for a, b in itertools.combinations(range(len(shape)), 2):
            ratios = (enlarged[a] / enlarged[b], header.spacing[a] / header.spacing[b])
            if missing[a] != missing[b] or not np.allclose(ratios, 1, rtol=0, atol=1e-3):
                pairs.add((a, b))
    return pairs, uneven
