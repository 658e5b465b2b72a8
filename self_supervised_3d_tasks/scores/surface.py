"""How far apart the surfaces of two masks are, in mm: what Dice hardly sees where a class is large.

A surface passes between the voxel centres, as in Nikolov et al. 2018 ("Deep learning to achieve clinically applicable
segmentation of head and neck anatomy for radiotherapy", arXiv:1809.04430): an element of it lies at each corner of
voxels that are not all in the mask or all out of it, and counts by its area in mm², in 2D by its length. Their library
gives the areas, its distances need an older NumPy.

A class in neither the truth nor the prediction has distance 0 and surface Dice 1. A class in one of them only has
surface Dice 0, and in place of a distance the diagonal of the scan's field of view, which none exceeds: 373 mm in a
BraTS scan, the penalty of that challenge. As for Dice, every case has a score, whatever was predicted. Where a format
does not say the size of a voxel, and in 2D, a mm is a voxel.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.scores.base import Distance, Predictions, Score
from self_supervised_3d_tasks.scores.segmentation import mean_over_foreground

ndimage, spatial = lazy.load("scipy.ndimage"), lazy.load("scipy.spatial")
lookup_tables = lazy.load("surface_distance.lookup_tables")

TASK = "segmentation"
TOLERANCES = range(1, 11)  # mm
ROUNDING = 1e-6  # mm, of positions in floating point: what is as far as the tolerance is within it
# A voxel takes a distance transform about 1/20 of the time that a point takes a search tree.
_DENSE = 1 / 20


class Surface(NamedTuple):
    """The elements of one surface.

    Attributes:
        distances: From each element to the nearest one of the other surface, ``(number,)`` in mm.
        areas: Of each element, ``(number,)`` in mm², in 2D in mm.
    """

    distances: np.ndarray
    areas: np.ndarray

    def percentile(self, share: float) -> float:
        """Return the least distance that at least a share of the surface, in (0, 1), does not exceed, in mm."""
        order = np.argsort(self.distances)
        reached = np.cumsum(self.areas[order])
        position = np.searchsorted(reached, share * reached[-1])
        return float(self.distances[order[min(position, len(order) - 1)]])


def scores(outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return the scores of surfaces by name.

    ``hd95`` is the 95th percentile of the distances, the larger of both directions, in mm: less is better.
    ``nsd_2mm``, with any whole number from 1 to 10, is the normalized surface Dice in [0, 1]: the share of both
    surfaces that lies within 2 mm of the other. Both are means over the foreground classes that the test set has;
    ``hd95_class_K`` and ``nsd_2mm_class_K`` are those of label K, and ``hd95_class`` and ``nsd_2mm_class`` stand for
    one per foreground class.

    Args:
        outputs: Names of the classes, background included.
    """
    foreground = range(1, len(outputs))
    kinds: dict[str, Callable[[Sequence[int]], Score]] = {"hd95": hd95_of}
    kinds |= {f"nsd_{tolerance}mm": functools.partial(nsd_of, tolerance=tolerance) for tolerance in TOLERANCES}
    known = {}
    for name, of in kinds.items():
        mean = mean_over_foreground(of, foreground)
        per_class = {f"{name}_class_{label}": of((label,)) for label in foreground}
        known[name] = {name: Distance(mean) if of is hd95_of else mean}
        known[f"{name}_class"] = per_class
        known |= {single: {single: score} for single, score in per_class.items()}
    return known


def hd95_of(labels: Sequence[int]) -> Distance:
    """Return the score that is the 95th percentile of the distances of the union of some labels, in mm."""

    def score(found: Predictions) -> float:
        pair = _surfaces(found, tuple(labels))
        if pair is None:
            return 0.0
        if not all(len(surface.distances) for surface in pair):
            return float(np.linalg.norm(np.multiply(found.truth.shape, _spacing(found))))
        return max(surface.percentile(0.95) for surface in pair)

    return Distance(score)


def nsd_of(labels: Sequence[int], *, tolerance: float) -> Score:
    """Return the score that is the normalized surface Dice of the union of some labels, in [0, 1].

    Args:
        labels: The classes.
        tolerance: Up to how many mm from the other surface an element is right.
    """

    def score(found: Predictions) -> float:
        pair = _surfaces(found, tuple(labels))
        if pair is None:
            return 1.0
        right = sum(surface.areas[surface.distances <= tolerance + ROUNDING].sum() for surface in pair)
        return float(right / sum(surface.areas.sum() for surface in pair))

    return score


def surfaces(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> tuple[Surface, Surface] | None:
    """Return the surface of the truth and that of the prediction, or None if both masks are empty.

    Where one of them is empty it has no elements, and the distances of the other are infinite.

    Args:
        truth: Mask ``(*spatial)`` with two or three axes, bool.
        prediction: Mask of the same shape.
        spacing: Size of a voxel in mm along each axis.
    """
    boxes = ndimage.find_objects((truth | prediction).astype(np.uint8))
    if not boxes:
        return None
    codes = [_neighbour_codes(mask[boxes[0]]) for mask in (truth, prediction)]
    borders = [(code > 0) & (code < 2 ** (2**truth.ndim) - 1) for code in codes]
    areas = _areas(tuple(spacing))
    return tuple(
        Surface(_nearest(here, there, spacing), areas[code[here]])
        for code, here, there in zip(codes, borders, reversed(borders), strict=True)
    )


def _neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Return for each corner of the voxels, ``(*spatial + 1)``, which of the voxels around it are in the mask.

    Each has a bit, of the weight that it has in the tables of areas.
    """
    kernels = {2: lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL, 3: lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL}
    padded, codes = np.pad(mask, 1).view(np.uint8), np.zeros(np.add(mask.shape, 1), np.uint8)
    for offset in itertools.product((0, 1), repeat=mask.ndim):
        window = tuple(slice(first, first + size) for first, size in zip(offset, codes.shape, strict=True))
        codes += padded[window] * np.uint8(kernels[mask.ndim][offset])
    return codes


@functools.lru_cache(maxsize=8)
def _areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the area in mm² (in 2D the length in mm) of the element of each neighbour code."""
    if len(spacing) == 2:
        return lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    return lookup_tables.create_table_neighbour_code_to_surface_area(spacing)


def _nearest(here: np.ndarray, there: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return for each true place of one array, in their order, the distance in mm to the nearest one of another.

    Surfaces are searched, since the box around two of them that are far apart can be the whole scan; what is no
    surface but noise fills the box, and is looked up in a distance transform.
    """
    if not there.any():
        return np.full(np.count_nonzero(here), np.inf)
    if np.count_nonzero(here) > _DENSE * here.size:
        return ndimage.distance_transform_edt(~there, sampling=spacing)[here]
    distances = np.zeros(np.count_nonzero(here))
    apart = ~there[here]
    # A tree of points on a lattice is built and searched faster where it need not be balanced.
    tree = spatial.KDTree(np.argwhere(there) * spacing, balanced_tree=False, compact_nodes=False)
    distances[apart] = tree.query(np.argwhere(here)[apart] * spacing)[0]
    return distances


# Several scores ask for the same surfaces, which take longer than all else of a score. They go with the predictions.
_KEPT: weakref.WeakKeyDictionary[Predictions, dict] = weakref.WeakKeyDictionary()


def _surfaces(found: Predictions, labels: tuple[int, ...]) -> tuple[Surface, Surface] | None:
    """Return the `surfaces` of the union of some labels, found once."""
    kept = _KEPT.setdefault(found, {})
    if labels not in kept:
        masks = (np.isin(labelled, labels) for labelled in (found.truth, found.prediction))
        kept[labels] = surfaces(*masks, _spacing(found))
    return kept[labels]


def _spacing(found: Predictions) -> Sequence[float]:
    return found.spacing or (1.0,) * found.truth.ndim
