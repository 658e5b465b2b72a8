"""Regular grids of patches: where they lie, and cutting them out of an image ``(*spatial, channels)``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.ops import seeds

tf = lazy.load("tensorflow")


@dataclass(frozen=True)
class PatchGrid:
    """A grid of equal patches, ``patches_per_side`` along each axis; neighbours share ``overlap`` voxels.

    Pure Python. Cells are named by one index per axis; the raster order has axis 0 slowest. Voxels that do
    not fill a cell, at the upper end of each axis, belong to no patch.

    Args:
        spatial_shape: ``(*spatial)`` of the image, in voxels.
        patches_per_side: Patches along each axis.
        overlap: Voxels that neighbouring patches share, per axis.
    """

    spatial_shape: tuple[int, ...]
    patches_per_side: int
    overlap: tuple[int, ...]

    @property
    def stride(self) -> tuple[int, ...]:
        """Distance between the origins of neighbours, per axis."""
        pairs = zip(self.spatial_shape, self.overlap, strict=True)
        return tuple((size - overlap) // self.patches_per_side for size, overlap in pairs)

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """``(*spatial)`` of a patch."""
        return tuple(stride + overlap for stride, overlap in zip(self.stride, self.overlap, strict=True))

    def cells(self, rows: Iterable[int] | None = None) -> list[tuple[int, ...]]:
        """Return the cells in raster order, of all rows (axis 0) or of the given ones."""
        side = range(self.patches_per_side)
        others = [side] * (len(self.spatial_shape) - 1)
        return list(itertools.product(side if rows is None else rows, *others))

    def origin(self, cell: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of a cell's patch."""
        return tuple(index * stride for index, stride in zip(cell, self.stride, strict=True))


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


def pad_to(tensor: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Surround a tensor of static shape with zeros up to ``shape``, evenly; an odd one comes after it."""
    missing = [target - size for target, size in zip(shape, tensor.shape, strict=True)]
    return tf.pad(tensor, [[count // 2, count - count // 2] for count in missing])


def random_crop(image: tf.Tensor, spatial_shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return a uniformly placed crop ``(*spatial_shape, channels)`` of an image of static shape."""
    limits = [size - crop for size, crop in zip(image.shape[:-1], spatial_shape, strict=True)]
    return extract(image, draw_offsets(seed, 1, limits), spatial_shape)[0]
