"""Supervoxels: connected regions of similar intensity, and the voxels at their centres.

SLIC clusters few enough blocks of voxels that a large scan takes no longer than a small one; centres and shares are
exact all the same, since they are sums over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.ops.patches import FOREGROUND

ndimage = lazy.load("scipy.ndimage")
segmentation = lazy.load("skimage.segmentation")

_MAX_BLOCKS = 64**3
_ITERATIONS = 10  # the paper's


@dataclass(frozen=True)
class Supervoxels:
    """Finds supervoxels with SLIC (Achanta et al., 2012; scikit-image's) and the centres of those that show tissue.

    SLIC is k-means on intensity and place: the squared distance is ``|ΔI|² + (compactness / S)² · |Δx|²``, where S is
    the side of a cube (in 2D: square) of the mean size of a supervoxel. Intensities are first stretched to [0, 1], over
    all channels together.

    Args:
        num_segments: Supervoxels asked for, about as many come: unconnected parts are split, small ones merged.
        compactness: A high one gives blocks, a low one regions that follow the intensities.
        sigma: Width of the Gaussian that smooths the scan first, in voxels, or in their mean side if they are no cubes.
        min_foreground: Supervoxels with a smaller share of voxels above `patches.FOREGROUND`, in [0, 1], have no
            centre: they are air.
    """

    num_segments: int = 15
    compactness: float = 0.1
    sigma: float = 1.0
    min_foreground: float = 0.15

    def __call__(self, image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Return the centres of the supervoxels that show tissue: ``(number, rank)`` int32; there may be none.

        A centre is the voxel of its supervoxel that is nearest to the centroid, which may itself lie outside.

        Args:
            image: ``(*spatial, channels)`` in [0, 1], 2 or 3 spatial axes.
            spacing: ``(rank,)`` size of a voxel, in any unit.
        """
        blocks = Blocks.of(image.shape[:-1], spacing)
        labels = self.clusters(blocks, blocks.means(image))
        foreground = blocks.sums((image > FOREGROUND).any(axis=-1))
        shares = np.bincount(labels.ravel(), foreground.ravel())[1:] / blocks.sizes(labels)
        return blocks.central_voxels(labels)[shares >= self.min_foreground]

    def clusters(self, blocks: Blocks, image: np.ndarray) -> np.ndarray:
        """Return the supervoxel of each block, from 1 on without gaps."""
        # Lengths relative to the mean side of a block: SLIC measures S in voxels, and so expects them to be of size 1.
        side = math.prod(blocks.spacing) ** (1 / len(blocks.spacing))
        spacing = [length / side for length in blocks.spacing]
        voxel_side = side / math.prod(blocks.factors) ** (1 / len(blocks.factors))
        labels = segmentation.slic(
            image,
            n_segments=self.num_segments,
            compactness=self.compactness,
            max_num_iter=_ITERATIONS,
            sigma=[self.sigma * voxel_side / length for length in blocks.spacing],
            spacing=spacing,
            convert2lab=False,  # three channels of a scan are no colours
            enforce_connectivity=True,
            start_label=1,
            channel_axis=-1,
        )
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1


PRESETS = {
    "ours": Supervoxels(),
    # "Gaussian parameter 10": read as sigma. It could also be the compactness, whose scale is that of the intensities.
    "paper": Supervoxels(sigma=10.0),
}


@dataclass(frozen=True)
class Blocks:
    """The voxels of a scan in equal blocks, smaller at the upper ends of the axes.

    Args:
        shape: ``(*spatial)`` of the scan.
        factors: Voxels of a block along each axis.
        spacing: Size of a block along each axis.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, shape: Sequence[int], spacing: Sequence[float]) -> Blocks:
        """Return blocks of which a scan has few enough; voxels are joined along the axis where blocks are shortest."""
        factors = [1] * len(shape)
        while math.prod(math.ceil(size / factor) for size, factor in zip(shape, factors, strict=True)) > _MAX_BLOCKS:
            divisible = [axis for axis, size in enumerate(shape) if factors[axis] < size]
            factors[min(divisible, key=lambda axis: factors[axis] * spacing[axis])] += 1
        lengths = [factor * float(length) for factor, length in zip(factors, spacing, strict=True)]
        return cls(tuple(shape), tuple(factors), tuple(lengths))

    def _first(self, axis: int) -> np.ndarray:
        """Return the first voxel of each block along an axis."""
        return np.arange(0, self.shape[axis], self.factors[axis])

    def _last(self, axis: int) -> np.ndarray:
        """Return the last voxel of each block along an axis."""
        return np.append(self._first(axis)[1:], self.shape[axis]) - 1

    def _volumes(self) -> np.ndarray:
        """Return the voxels of each block: ``(*blocks)`` float64."""
        lengths = [self._last(axis) - self._first(axis) + 1.0 for axis in range(len(self.shape))]
        return math.prod(np.ix_(*lengths))

    def sums(self, array: np.ndarray) -> np.ndarray:
        """Return the sum over each block of ``(*spatial)`` or ``(*spatial, channels)``, float32."""
        for axis in range(len(self.shape)):
            array = np.add.reduceat(array, self._first(axis), axis, dtype=np.float32)
        return array

    def means(self, image: np.ndarray) -> np.ndarray:
        """Return the mean of each block and channel of ``(*spatial, channels)``, float32."""
        return self.sums(image) / self._volumes()[..., None].astype(np.float32)

    def sizes(self, labels: np.ndarray) -> np.ndarray:
        """Return the voxels of each segment: ``(segments,)``."""
        return np.bincount(labels.ravel(), self._volumes().ravel())[1:]

    def central_voxels(self, labels: np.ndarray) -> np.ndarray:
        """Return the voxel of each segment that is nearest to its centroid: ``(segments, rank)`` int32.

        The nearest voxel of a block is found along each axis by itself, so that no array of voxels is needed.

        Args:
            labels: Segments of the blocks, from 1 on without gaps.
        """
        sizes, volumes = self.sizes(labels), self._volumes()
        distances = np.zeros(labels.shape)
        nearest = []
        for axis, length in enumerate(np.divide(self.spacing, self.factors)):
            first, last = self._first(axis), self._last(axis)
            position = np.arange(len(first)).reshape([-1 if other == axis else 1 for other in range(labels.ndim)])
            moments = volumes * ((first + last) / 2)[position]
            centroids = np.bincount(labels.ravel(), moments.ravel())[1:] / sizes
            voxels = np.clip(np.rint(centroids)[:, None], first, last)  # (segments, blocks along this axis)
            distances += (((voxels - centroids[:, None]) * length) ** 2)[labels - 1, position]
            nearest.append(voxels)
        blocks = np.array(ndimage.minimum_position(distances, labels, np.arange(1, len(sizes) + 1)))
        segments = np.arange(len(sizes))
        columns = [voxels[segments, block] for voxels, block in zip(nearest, blocks.T, strict=True)]
        return np.stack(columns, axis=-1).astype(np.int32)
