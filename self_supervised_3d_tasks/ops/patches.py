"""Patches on a regular grid: where they lie, and cutting them out of an image ``(*spatial, channels)``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import tf
from self_supervised_3d_tasks.ops import seeds

Axes = tuple[int, ...]
# Of the range [0, 1]: what is above is taken for tissue, what is not for the air or the border around it.
FOREGROUND = 0.05


class PatchGrid:
    """A grid of equal patches, ``patches_per_side`` along each axis; neighbours share ``overlap`` voxels.

    Pure Python. Cells are named by one index per axis; the raster order has axis 0 slowest. Voxels that do
    not fill a cell, at the upper end of each axis, belong to no patch.

    Args:
        spatial_shape: ``(*spatial)`` of the image, in voxels.
        patches_per_side: Patches along each axis.
        overlap: Voxels that neighbouring patches share, per axis.
    """

    def __init__(self, spatial_shape: Axes, patches_per_side: int, overlap: Axes):
        self.patches_per_side = patches_per_side
        self.overlap = overlap
        pairs = list(zip(spatial_shape, overlap, strict=True))
        self.stride = tuple((size - shared) // patches_per_side for size, shared in pairs)
        self.patch_shape = tuple(step + shared for step, shared in zip(self.stride, overlap, strict=True))

    def cells(self, rows: Iterable[int] | None = None) -> list[tuple[int, ...]]:
        """Return the cells in raster order, of all rows (axis 0) or of the given ones."""
        side = range(self.patches_per_side)
        others = [side] * (len(self.stride) - 1)
        return list(itertools.product(side if rows is None else rows, *others))

    def origin(self, cell: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of a cell's patch."""
        return tuple(index * stride for index, stride in zip(cell, self.stride, strict=True))


class PatchCells:
    """Equal patches, one at a random place in each cell of a grid, so that the gap to the next one varies.

    Edges that always touch would tell which patches are neighbours. A patch is shorter than its cell by gap
    and jitter, and begins gap // 2 plus a draw from 0 .. jitter behind the cell's first voxel: neighbours are
    gap .. gap + 2 · jitter voxels apart on each axis. Voxels that do not fill a cell, at the upper end of each
    axis, belong to none.

    Args:
        spatial_shape: ``(*spatial)`` of the image, in voxels.
        patches_per_side: Cells along each axis: one number for all, or one per axis, as ``gap`` and ``jitter`` too.
        gap: Smallest distance of neighbouring patches, in voxels; None: a quarter of the cell, at most 3.
        jitter: Largest shift of a patch within its cell, in voxels; None: an eighth of the cell, at most 3.

    Raises:
        UserError: No voxel is left for a patch, or not one number per axis; names the keys of the patch tasks.
    """

    def __init__(
        self,
        spatial_shape: Axes,
        patches_per_side: int | Axes,
        gap: int | Axes | None = None,
        jitter: int | Axes | None = None,
    ):
        self.rank = len(spatial_shape)
        self.sides = per_axis(patches_per_side, self.rank, "patches_per_side")
        self.cell_shape = tuple(size // number for size, number in zip(spatial_shape, self.sides, strict=True))
        gap = tuple(min(3, max(1, size // 4)) for size in self.cell_shape) if gap is None else gap
        jitter = tuple(min(3, size // 8) for size in self.cell_shape) if jitter is None else jitter
        self.gaps = per_axis(gap, self.rank, "patch_gap")
        self.jitters = per_axis(jitter, self.rank, "patch_jitter")
        axes = zip(self.cell_shape, self.gaps, self.jitters, strict=True)
        self.patch_shape = tuple(size - gap - jitter for size, gap, jitter in axes)
        if min(self.patch_shape) < 1:
            raise UserError(
                f"patches_per_side, patch_jitter, patch_gap, data_dim: {patches_per_side} patches per side of "
                f"{list(spatial_shape)} voxels lie in cells of {list(self.cell_shape)}, where a jitter of {jitter} "
                f"and a gap of {gap} leave no voxel; reduce one of the three or enlarge data_dim"
            )

    def cells(self) -> list[tuple[int, ...]]:
        """Return the cells in raster order, one index per axis, axis 0 slowest."""
        return list(itertools.product(*map(range, self.sides)))

    def draw_origins(self, seed: tf.Tensor) -> tf.Tensor:
        """Return the first voxel of a patch in each cell, drawn apart: ``(cells, rank)`` int32 in raster order."""
        cells = tf.constant(self.cells())
        offsets = draw_offsets(seed, len(self.cells()), self.jitters)
        return cells * self.cell_shape + [gap // 2 for gap in self.gaps] + offsets

    def assemble(self, tiles: np.ndarray) -> np.ndarray:
        """Join patches ``(cells, *patch, channels)`` in raster order to one image, without the gaps."""
        rank, channels = self.rank, tiles.shape[-1]
        axes = [axis for index in range(rank) for axis in (index, rank + index)]
        edges = [number * size for number, size in zip(self.sides, self.patch_shape, strict=True)]
        tiles = tiles.reshape(*self.sides, *self.patch_shape, channels)
        return tiles.transpose(*axes, 2 * rank).reshape(*edges, channels)


def per_axis(value: int | Sequence[int], rank: int, key: str) -> tuple[int, ...]:
    """Return one integer per axis from one for all axes or ``rank`` of them.

    Args:
        value: One integer or several.
        rank: Number of spatial axes.
        key: The JSON key, for the message.

    Raises:
        UserError: Another number of integers.
    """
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        raise UserError(f"{key}: expected one number or one for each of {rank} axes, received {list(values)}")
    return values


def extract(image: tf.Tensor, origins: tf.Tensor, patch_shape: Sequence[int]) -> tf.Tensor:
    """Cut equal patches out of an image.

    Args:
        image: ``(*spatial, channels)`` with a static channel count.
        origins: First voxel of each patch: ``(number, rank)`` integers, possibly random; static number.
        patch_shape: ``(*spatial)`` of a patch.

    Returns:
        ``(number, *patch_shape, channels)``.
    """
    size = (*patch_shape, image.shape[-1])
    starts = tf.pad(tf.convert_to_tensor(origins, tf.int32), [[0, 0], [0, 1]])
    return tf.stack([tf.slice(image, start, size) for start in tf.unstack(starts)])


def draw_offsets(seed: tf.Tensor, number: int, limits: Sequence[int]) -> tf.Tensor:
    """Return ``(number, rank)`` int32 offsets, uniform in ``0 .. limit`` (inclusive) along each axis."""
    # Integer draws accept only a scalar bound, hence one draw per axis.
    columns = [
        tf.random.stateless_uniform((number,), seeds.fold(seed, axis), 0, limit + 1, tf.int32)
        for axis, limit in enumerate(limits)
    ]
    return tf.stack(columns, axis=-1)


def mirror_to(tensor: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Extend a tensor of static shape to ``shape`` by mirroring it at its ends, evenly; an odd one comes after it.

    Args:
        tensor: Of at least a third of ``shape`` along each axis.
        shape: At least that of the tensor.
    """
    missing = [target - size for target, size in zip(shape, tensor.shape, strict=True)]
    return tf.pad(tensor, [[count // 2, count - count // 2] for count in missing], mode="SYMMETRIC")


def random_crop(image: tf.Tensor, spatial_shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return a uniformly placed crop ``(*spatial_shape, channels)`` of an image of static shape."""
    limits = [size - crop for size, crop in zip(image.shape[:-1], spatial_shape, strict=True)]
    return extract(image, draw_offsets(seed, 1, limits), spatial_shape)[0]


def standardize(patches: tf.Tensor) -> tf.Tensor:
    """Give each channel of each patch zero mean and unit standard deviation; a constant one becomes zeros.

    Args:
        patches: ``(number, *spatial, channels)`` float32.
    """
    axes = list(range(1, patches.shape.rank - 1))
    # From the minimum, since the mean of a constant patch is rounded and the rest would be blown up.
    shifted = patches - tf.reduce_min(patches, axes, keepdims=True)
    centred = shifted - tf.reduce_mean(shifted, axes, keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True))
    return tf.where(deviation > 1e-6, centred / tf.maximum(deviation, 1e-6), 0.0)


def filled_share(patches: tf.Tensor) -> tf.Tensor:
    """Return the share of each patch's voxels that show tissue, ``(number,)``.

    Those do that are above `FOREGROUND` in some channel, and dark ones between them: holes and clefts of up to two
    voxels (a closing with a cube of three). Dark tissue is no air, and scans with a dark voxel are not to be lost.

    Args:
        patches: ``(number, *spatial, channels)`` in [0, 1], of static shape.
    """
    bright = tf.reduce_any(patches > FOREGROUND, axis=-1)
    air = _grown(~_grown(bright))
    return 1 - tf.reduce_mean(tf.cast(air, tf.float32), list(range(1, air.shape.rank)))


def _grown(masks: tf.Tensor) -> tf.Tensor:
    """Grow boolean masks ``(number, *spatial)`` by a voxel to all sides, diagonals among them."""
    for axis in range(1, masks.shape.rank):
        size = masks.shape[axis]
        margin = [[int(other == axis)] * 2 for other in range(masks.shape.rank)]
        padded = tf.pad(masks, margin, constant_values=False)
        shifted = [padded[(slice(None),) * axis + (slice(start, start + size),)] for start in range(3)]
        masks = shifted[0] | shifted[1] | shifted[2]
    return masks
