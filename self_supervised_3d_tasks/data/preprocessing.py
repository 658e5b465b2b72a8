"""What happens to every scan once, before training: intensities to [0, 1], borders off, grid to the model's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.formats import photographs
from self_supervised_3d_tasks.data.preparing.fitted_scan import FittedScan, as_integers
from self_supervised_3d_tasks.data.preparing.foreground_box import ForegroundCrop, foreground_box
from self_supervised_3d_tasks.data.preparing.placement import Placement, padding_to
from self_supervised_3d_tasks.data.preparing.resampling import Interpolation, resize, resize_labels
from self_supervised_3d_tasks.data.preparing.scaling import Contrast, IntensityRange, Scaling, bounds
from self_supervised_3d_tasks.data.volumes import Header, Volume
from self_supervised_3d_tasks.errors import UserError

MAX_CLASSES = 256  # masks are kept as uint8
_LONGEST_AXIS = 8192  # of a resampled scan; longer ones come from a spacing in the wrong unit


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
        target_spacing: Voxel size in mm, one number per spatial axis, to which scans are resampled before they are
            padded; with ``"crop"`` only. None: voxels stay as they are.
        interpolation: Between voxels, where images are resized or resampled.
        volume_fitting: ``"resize"``: to ``data_dim``; ``"crop"``: the size it has then, zero-padded symmetrically to
            ``data_dim`` where smaller (crops are drawn later); ``"exact"``: must already have ``data_dim``.
        label_map: Source label to class, for the labels that change.
        grey: With one channel, a photograph in colours that are all shades of grey counts as its grey values.
    """

    data_dim: tuple[int, ...]
    number_channels: int
    intensity_window: tuple[float, float] | None = None
    intensity_scaling: Scaling | None = None
    foreground_crop: ForegroundCrop = "none"
    target_spacing: tuple[float, ...] | None = None
    interpolation: Interpolation = "linear"
    volume_fitting: str = "resize"
    label_map: Mapping[int, int] = field(default_factory=dict)
    grey: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.data_dim)

    def fitted_shape(self, header: Header) -> tuple[int, ...]:
        """Return the shape ``(*spatial, channels)`` that a scan has after `image`, at most: the check of a header.

        Args:
            header: Of the scan, with all its channels.

        Raises:
            UserError: Another number of channels; "exact" and another shape than ``data_dim``; or a spacing is asked
                for, and the scan has none or one that cannot be meant.
        """
        *spatial, channels = header.shape
        channels = 1 if self._counts_as_grey(channels, header.path) else channels
        if channels != self.number_channels:
            raise UserError(
                f"{header.path}: has {channels} channels (shape {header.shape}), expected number_channels = "
                f'{self.number_channels}. Convert the file, set on_bad_file to "skip", or change number_channels if '
                f"all files have {channels} channels."
            )
        if self.volume_fitting == "exact" and tuple(spatial) != self.data_dim:
            raise UserError(
                f"{header.path}: has shape {tuple(spatial)}, expected data_dim = {self.data_dim} because "
                'volume_fitting is "exact". Set volume_fitting to "resize", convert the file, set on_bad_file to '
                '"skip", or change data_dim if all files have this shape.'
            )
        return (*self._padded(self.size_of(spatial, header)), channels)

    def size_of(self, box_shape: Sequence[int], header: Header) -> tuple[int, ...]:
        """Return the voxels that show a box of a scan, before padding.

        Args:
            box_shape: Voxels of the scan's own grid along each axis of the box.
            header: Of the scan.

        Raises:
            UserError: A spacing is asked for, and the scan has none or one that cannot be meant.
        """
        if self.volume_fitting == "resize":
            return self.data_dim
        if self.target_spacing is None:
            return tuple(box_shape)
        if header.affine is None:
            raise UserError(
                f"{header.path}: target_spacing is set, but a {header.path.suffix} file says nothing of the size of "
                "its voxels. Remove target_spacing, or convert the scans to a format with a header, such as NIfTI."
            )
        length = zip(box_shape, header.spacing, self.target_spacing, strict=True)
        wanted = [voxels * spacing / target for voxels, spacing, target in length]
        size = tuple(max(1, round(min(axis, 1e18))) for axis in wanted)  # of infinity too
        if max(size) > _LONGEST_AXIS:
            raise UserError(
                f"{header.path}: at target_spacing {millimetres(self.target_spacing)} it would have {size} voxels, "
                f"since its own are {millimetres(header.spacing)}. Check the unit of its header."
            )
        return size

    def _padded(self, size: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(pair) for pair in zip(size, self.data_dim, strict=True))

    def padding_share(self, header: Header) -> float:
        """Return the share, in [0, 1), of a scan's voxels after `image` that are padding, if nothing is cut off it."""
        size = self.size_of(header.shape[:-1], header)
        return 1.0 - float(np.prod(np.divide(size, self._padded(size))))

    def normalize(self, array: np.ndarray, name: str = "array") -> np.ndarray:
        """Scale each channel to [0, 1], see `intensity_range`.

        Args:
            array: ``(*spatial, channels)``, finite.
            name: What the warning calls the scan.

        Returns:
            ``(*spatial, channels)``, float32.
        """
        array = array.astype(np.float32, copy=False)
        return self.intensity_range(array, name).scale(array)

    def intensity_range(self, array: np.ndarray, name: str = "array") -> IntensityRange:
        """Return what becomes 0 and 1 in each channel of a whole scan.

        A constant channel has no range: it becomes zeros, with a warning. An intensity window gives it a
        value.

        Args:
            array: ``(*spatial, channels)``, finite float32.
            name: What the warning calls the scan.
        """
        axes = tuple(range(array.ndim - 1))
        if np.any(constant := array.min(axis=axes) == array.max(axis=axes)):
            channels = ", ".join(map(str, np.flatnonzero(constant)))
            logging.warning("%s: channel %s is constant (every voxel has the same value).", name, channels)
        scaling = self.intensity_scaling or ("window" if self.intensity_window else "min_max")
        found = [bounds(channel, scaling, self.intensity_window) for channel in np.moveaxis(array, -1, 0)]
        return IntensityRange(*(tuple(map(float, ends)) for ends in zip(*found, strict=True)))

    def image(self, volume: Volume) -> np.ndarray:
        """Return the normalised, cropped and fitted image ``(*spatial, channels)``, float32 in [0, 1]."""
        return self.fit(volume).image()

    def prepare(self, volume: Volume) -> tuple[np.ndarray, Placement]:
        """Return the image, see `image`, and what it shows of the scan's own grid.

        Raises:
            UserError: As `fit`.
        """
        fitted = self.fit(volume)
        return fitted.image(), Placement(volume.array.shape[:-1], fitted.box, fitted.array.shape[:-1])

    def fit(self, volume: Volume) -> FittedScan:
        """Return the cropped and fitted scan as it is kept: what the files hold stays so, until a crop is read.

        Raises:
            UserError: As `fitted_shape`, or a photograph has more than the 8 bits of its intensity window, or colours
                where it should be grey.
        """
        name, array = str(volume.path), self._checked(volume).astype(np.float32, copy=False)
        intensities = self.intensity_range(array, name)
        scaled = intensities.scale(array)
        box = foreground_box(scaled, self.foreground_crop, name)
        size = self.size_of(array[box].shape[:-1], volume.header)
        contrast = Contrast.of(scaled[box], is_photograph=photographs.is_photograph(volume.path))
        padding = self.padding(size)
        kept = as_integers(array[box]) if size == array[box].shape[:-1] else None
        if kept is None:  # fractions take as much place scaled as they do unscaled
            resized = np.ascontiguousarray(resize(scaled[box], size, self.interpolation))
            return FittedScan(resized, box, padding, contrast=contrast)
        return FittedScan(kept, box, padding, intensities, contrast)

    def padding(self, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return the voxels that are added before and after each axis of a scan of `size_of` its box."""
        return tuple(padding_to(size, self._padded(size)))

    @property
    def of_scans(self) -> Preprocessing:
        """The settings with everything left out that does not change the array of a `FittedScan`."""
        is_resized = self.volume_fitting == "resize"
        shape = self.data_dim if is_resized else (0,) * self.rank
        return replace(self, data_dim=shape, volume_fitting="resize" if is_resized else "crop", label_map={})

    def _checked(self, volume: Volume) -> np.ndarray:
        """Return the voxels ``(*spatial, number_channels)``, see `fit`."""
        array = volume.array
        self.fitted_shape(volume.header)
        # Layouts of photographs set a window for 8 bits by themselves, which would cut off 16.
        is_for_8_bits = self.intensity_window == photographs.WINDOW and photographs.is_photograph(volume.path)
        if is_for_8_bits and (highest := array.max()) > photographs.WINDOW[1]:
            raise UserError(
                f"{volume.path}: has values up to {highest:g}, but intensity_window is [0, 255]. Set it to the range "
                "of the images, such as [0, 65535] for 16 bits."
            )
        if not self._counts_as_grey(array.shape[-1], volume.path):
            return array
        if np.any(array != array[..., :1]):
            raise UserError(
                f"{volume.path}: has colours, expected shades of grey (number_channels = 1). Convert or remove the "
                'file, or set on_bad_file to "skip".'
            )
        return array[..., :1]

    def _counts_as_grey(self, channels: int, path: Path) -> bool:
        return self.grey and self.number_channels == 1 and channels == 3 and photographs.is_photograph(path)

    def labels(self, volume: Volume, num_classes: int) -> np.ndarray:
        """Return the relabelled mask ``(*spatial)`` on its own grid, uint8 below ``num_classes``.

        Raises:
            UserError: A label is negative or not below ``num_classes`` after ``label_map``.
        """
        if num_classes > MAX_CLASSES:
            raise UserError(f"num_classes: expected at most {MAX_CLASSES}, received {num_classes}.")
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

    def mask(self, volume: Volume, num_classes: int, placement: Placement | None = None) -> np.ndarray:
        """Return the relabelled and fitted mask ``(*spatial)``, uint8 below ``num_classes``.

        Args:
            volume: The mask as it was read.
            num_classes: Classes, background included.
            placement: What the image shows, from `prepare`; by default all of the scan.

        Raises:
            UserError: As `labels`.
        """
        placement = placement or self.whole(volume)
        labels = resize_labels(self.labels(volume, num_classes)[placement.box], placement.size)
        return np.pad(labels, padding_to(placement.size, self._padded(placement.size)))

    def whole(self, volume: Volume) -> Placement:
        """Return what an image shows of which nothing is cut off.

        Args:
            volume: The scan, or its mask.
        """
        shape = volume.array.shape[: self.rank]
        size = self.size_of(shape, replace(volume.header, shape=(*shape, 1)))
        return Placement(shape, tuple(slice(0, length) for length in shape), size)


def millimetres(spacing: Sequence[float]) -> str:
    """Return a voxel size for people, such as "0.7 × 0.7 × 2.5 mm"."""
    return " × ".join(f"{size:.3g}" for size in spacing) + " mm"
