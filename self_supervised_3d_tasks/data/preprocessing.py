"""What happens to every scan once, before training: intensities to [0, 1], borders off, grid to the model's shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.foreground_box import ForegroundCrop, foreground_box
from self_supervised_3d_tasks.data.formats import photographs
from self_supervised_3d_tasks.data.resampling import resize_labels, resize_linear
from self_supervised_3d_tasks.data.resized_rows import resize_rows
from self_supervised_3d_tasks.data.scaling import Scaling, bounds
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.errors import UserError

_MAX_CLASSES = 256  # masks are kept as uint8


@dataclass(frozen=True)
class Preprocessing:
    """Normalise and fit images and masks; the inverse of the fitting for predictions.

    Args:
        data_dim: ``(*spatial)`` that the model sees, in voxels.
        number_channels: Channels that every scan must have.
        intensity_window: Low and high, mapped to 0 and 1 and clipped (CT).
        intensity_scaling: What becomes 0 and 1, per channel, see `scaling.bounds`; the rest is clipped. None: the
            window or, without one, minimum and maximum.
        foreground_crop: What is cut off before the fitting, see `foreground_box.foreground_box`.
        volume_fitting: ``"resize"``: to ``data_dim``; ``"crop"``: original size, zero-padded symmetrically to
            ``data_dim`` where smaller (crops are drawn later); ``"exact"``: must already have ``data_dim``.
        label_map: Source label to class, for the labels that change.
        grey: With one channel, a photograph in colours that are all shades of grey counts as its grey values.
    """

    data_dim: tuple[int, ...]
    number_channels: int
    intensity_window: tuple[float, float] | None = None
    intensity_scaling: Scaling | None = None
    foreground_crop: ForegroundCrop = "none"
    volume_fitting: str = "resize"
    label_map: Mapping[int, int] = field(default_factory=dict)
    grey: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.data_dim)

    def fitted_shape(self, shape: Sequence[int], path: Path) -> tuple[int, ...]:
        """Return the shape that a scan has after `image`; the check of a header.

        Args:
            shape: ``(*spatial, channels)`` of the scan.
            path: The file, which the message names.

        Raises:
            UserError: Another number of channels; or "exact" and another shape than ``data_dim``.
        """
        *spatial, channels = shape
        channels = 1 if self._counts_as_grey(channels, path) else channels
        if channels != self.number_channels:
            raise UserError(
                f"{path}: has {channels} channels (shape {tuple(shape)}), expected number_channels = "
                f'{self.number_channels}. Convert the file, set on_bad_file to "skip", or change number_channels if '
                f"all files have {channels} channels."
            )
        if self.volume_fitting == "exact" and tuple(spatial) != self.data_dim:
            raise UserError(
                f"{path}: has shape {tuple(spatial)}, expected data_dim = {self.data_dim} because "
                'volume_fitting is "exact". Set volume_fitting to "resize", convert the file, set on_bad_file to '
                '"skip", or change data_dim if all files have this shape.'
            )
        return (*self._fitted(spatial), channels)

    def _fitted(self, spatial: Sequence[int]) -> tuple[int, ...]:
        if self.volume_fitting == "resize":
            return self.data_dim
        return tuple(max(pair) for pair in zip(spatial, self.data_dim, strict=True))

    def normalize(self, array: np.ndarray, name: str = "array") -> np.ndarray:
        """Scale each channel to [0, 1].

        A constant channel has no range: it becomes zeros, with a warning. An intensity window gives it a
        value.

        Args:
            array: ``(*spatial, channels)``, finite.
            name: What the warning calls the scan.

        Returns:
            ``(*spatial, channels)``, float32.
        """
        array = array.astype(np.float32, copy=False)
        axes = tuple(range(array.ndim - 1))
        if np.any(constant := array.min(axis=axes) == array.max(axis=axes)):
            channels = ", ".join(map(str, np.flatnonzero(constant)))
            logging.warning("%s: channel %s is constant (every voxel has the same value).", name, channels)
        scaling = self.intensity_scaling or ("window" if self.intensity_window else "min_max")
        channels = np.moveaxis(array, -1, 0)
        # float64 for the few bounds only: the difference of two large float32 can overflow.
        low, high = np.array([bounds(channel, scaling, self.intensity_window) for channel in channels], np.float64).T
        span = np.where(high > low, high - low, 1.0)
        if np.any(span > np.finfo(np.float32).max) or np.any(span < np.finfo(np.float32).tiny):
            array = array.astype(np.float64)
        scaled = array - low.astype(array.dtype)
        scaled /= span.astype(array.dtype)
        return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32, copy=False)

    def image(self, volume: Volume) -> np.ndarray:
        """Return the normalised, cropped and fitted image ``(*spatial, channels)``, float32 in [0, 1]."""
        return self.prepare(volume)[0]

    def prepare(self, volume: Volume) -> tuple[np.ndarray, tuple[slice, ...]]:
        """Return the image, see `image`, and the box of the scan's own grid that it shows, one slice per spatial axis.

        Raises:
            UserError: As `fitted_shape`, or a photograph has more than the 8 bits of its intensity window, or colours
                where it should be grey.
        """
        array = volume.array
        self.fitted_shape(array.shape, volume.path)
        # Layouts of photographs set a window for 8 bits by themselves, which would cut off 16.
        is_for_8_bits = self.intensity_window == photographs.WINDOW and photographs.is_photograph(volume.path)
        if is_for_8_bits and (highest := array.max()) > photographs.WINDOW[1]:
            raise UserError(
                f"{volume.path}: has values up to {highest:g}, but intensity_window is [0, 255]. Set it to the range "
                "of the images, such as [0, 65535] for 16 bits."
            )
        if self._counts_as_grey(array.shape[-1], volume.path):
            if np.any(array != array[..., :1]):
                raise UserError(
                    f"{volume.path}: has colours, expected shades of grey (number_channels = 1). Convert or remove the "
                    'file, or set on_bad_file to "skip".'
                )
            array = array[..., :1]
        array = self.normalize(array, str(volume.path))
        box = foreground_box(array, self.foreground_crop, str(volume.path))
        array = array[box]
        if self.volume_fitting == "resize":
            return resize_linear(array, self.data_dim), box
        spatial = array.shape[:-1]
        return np.pad(array, [*_padding(spatial, self._fitted(spatial)), (0, 0)]), box

    def _counts_as_grey(self, channels: int, path: Path) -> bool:
        return self.grey and self.number_channels == 1 and channels == 3 and photographs.is_photograph(path)

    def labels(self, volume: Volume, num_classes: int) -> np.ndarray:
        """Return the relabelled mask ``(*spatial)`` on its own grid, uint8 below ``num_classes``.

        Raises:
            UserError: A label is negative or not below ``num_classes`` after ``label_map``.
        """
        if num_classes > _MAX_CLASSES:
            raise UserError(f"num_classes: expected at most {_MAX_CLASSES}, received {num_classes}.")
        relabelled = volume.array.copy()
        for source, target in self.label_map.items():
            relabelled[volume.array == source] = target  # compared with the source: 1 -> 2, 2 -> 1 swaps
        wrong = np.unique(relabelled[(relabelled < 0) | (relabelled >= num_classes)])
        if wrong.size:
            raise UserError(
                f"{volume.path}: has label {', '.join(map(str, wrong[:5]))}, expected 0 to {num_classes - 1} "
                f"(num_classes = {num_classes}). Change num_classes, or map the label with label_map."
            )
        return relabelled.astype(np.uint8)

    def mask(self, volume: Volume, num_classes: int, box: tuple[slice, ...] = ()) -> np.ndarray:
        """Return the relabelled and fitted mask ``(*spatial)``, uint8 below ``num_classes``.

        Args:
            volume: The mask as it was read.
            num_classes: Classes, background included.
            box: The box that the image shows, from `prepare`; all of the mask by default.

        Raises:
            UserError: As `labels`.
        """
        labels = self.labels(volume, num_classes)[box]
        if self.volume_fitting == "resize":
            return resize_labels(labels, self.data_dim)
        return np.pad(labels, _padding(labels.shape, self._fitted(labels.shape)))

    def restore(
        self,
        probabilities: np.ndarray,
        shape: Sequence[int],
        box: tuple[slice, ...] | None = None,
        rows: slice | None = None,
    ) -> np.ndarray:
        """Undo the fitting and the crop of a prediction; what was cut off is background, class 0.

        Args:
            probabilities: ``(*spatial, num_classes)`` on the fitted grid.
            shape: Spatial shape of the scan before `prepare`.
            box: The box that the image shows; None: all of it.
            rows: Part of the first axis of the scan, with start and stop, that is returned; None: all of it.

        Returns:
            ``(rows, *shape[1:], num_classes)``, float32.
        """
        box = box or tuple(slice(0, size) for size in shape)
        rows = rows or slice(0, shape[0])
        whole = np.zeros((rows.stop - rows.start, *shape[1:], probabilities.shape[-1]), np.float32)
        whole[..., 0] = 1.0
        first, last = max(rows.start, box[0].start), min(rows.stop, box[0].stop)
        if first >= last:
            return whole
        inner = tuple(side.stop - side.start for side in box)
        wanted = slice(first - box[0].start, last - box[0].start)
        shift = self.shift(box, probabilities.shape[:-1])
        if shift is None:
            restored = resize_rows(probabilities, inner, wanted)
        else:
            inside = [slice(side.start - by, side.stop - by) for side, by in zip(box, shift, strict=True)]
            restored = probabilities[slice(first - shift[0], last - shift[0]), *inside[1:]]
        whole[slice(first - rows.start, last - rows.start), *box[1:]] = restored
        return whole

    def shift(self, box: Sequence[slice], fitted_shape: Sequence[int]) -> tuple[int, ...] | None:
        """Return what is added to the number of a fitted voxel along each axis to have that of the scan's own voxel.

        None: both grids have voxels of different sizes.

        Args:
            box: The box of the scan that the image shows.
            fitted_shape: ``(*spatial)`` of the image.
        """
        if self.volume_fitting == "resize":
            return None
        padding = _padding([side.stop - side.start for side in box], fitted_shape)
        return tuple(side.start - before for side, (before, _) in zip(box, padding, strict=True))


def _padding(shape: Sequence[int], padded_shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the voxels to add before and after each axis; an odd one goes to the end."""
    missing = [padded - size for size, padded in zip(shape, padded_shape, strict=False)]
    return [(count // 2, count - count // 2) for count in missing]
