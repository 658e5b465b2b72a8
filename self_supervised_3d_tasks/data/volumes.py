"""Decoded files and what is known of them before: what every format gives, and the checks that the formats share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.errors import UserError, describe
from self_supervised_3d_tasks.files.paths import problem, shown

_LARGEST_LABEL = np.iinfo(np.int32).max
_LARGEST_FRACTION = 1e-3


@dataclass(frozen=True)
class Header:
    """What is known of a file without decoding its voxels.

    Args:
        shape: ``(*spatial, channels)`` on canonical axes.
        path: The file.
        affine: ``(4, 4)``, canonical voxel index to mm; None where the format does not say where voxels lie.
        spacing: Voxel size in mm, one number per spatial axis; ones without an affine.
    """

    shape: tuple[int, ...]
    path: Path
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Fill in the ones."""
        object.__setattr__(self, "spacing", tuple(self.spacing) or (1.0,) * self.rank)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.shape) - 1


@dataclass(frozen=True)
class Volume:
    """A decoded file.

    Args:
        array: Image ``(*spatial, channels)`` float32, or mask ``(*spatial)`` int32, on canonical axes.
        affine: ``(4, 4)``, canonical voxel index to mm; None where the format does not say where voxels lie.
        spacing: Voxel size in mm, one number per spatial axis; ones where the format does not say it.
        path: The file (of several, the first).
    """

    array: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    path: Path

    @classmethod
    def without_affine(cls, array: np.ndarray, rank: int, path: Path) -> Volume:
        """Return the volume of a format that knows neither directions nor the size of a voxel."""
        return cls(array, None, (1.0,) * rank, path)

    @property
    def header(self) -> Header:
        """Shape, affine and spacing of an image."""
        return Header(self.array.shape, self.path, self.affine, self.spacing)


def check_same_grid(image: Header, other: Header) -> None:
    """Check that a mask, or another channel, lies on the voxel grid of an image.

    Affines are compared by where they place the corners of the grid: headers of different programs differ by
    rounding, and a mask that is wrong by a whole voxel is further away than half of one.

    Raises:
        UserError: The shapes differ, or a corner lies more than half a voxel away.
    """
    shape = image.shape[:-1]
    if shape != other.shape[:-1]:
        raise UserError(
            f"{other.path}: its grid is {other.shape[:-1]}, but {image.path} has {shape}; expected the same "
            "grid. Resample one onto the other."
        )
    if image.affine is None or other.affine is None or image.rank < 3:
        return
    distance = corner_distance(shape, image.affine, other.affine)
    if distance > 0.5 * min(image.spacing):
        raise UserError(
            f"{other.path}: its affine places voxels up to {distance:.3g} mm from those of {image.path}. "
            "Expected the same grid: resample one onto the other, or copy the affine if only that is wrong."
        )


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart two affines ``(4, 4)`` place a corner of a grid ``(x, y, z)`` at most."""
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(shape)[:, None] - 1)
    offsets = (affine - other) @ np.vstack([corners, np.ones(8)])
    return float(np.linalg.norm(offsets[:3], axis=0).max())


@functools.cache
def tell_once(message: str) -> None:
    """Log a warning, once however often a file is read."""
    logging.warning("%s", message)


@contextlib.contextmanager
def readable(path: Path, suffix: str | None = None) -> Iterator[None]:
    """Turn what a library raises about a damaged file into one message with its name.

    Libraries agree on no exception: bytes changed at random in small files raised ten unrelated types.

    Args:
        path: The file.
        suffix: Its ending, such as ``.nii.gz``; default: what follows the last dot.

    Raises:
        UserError: The block raised an exception.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: {problem(path) or describe(error)}") from error
    except OSError as error:
        if error.errno:  # the system refused it; libraries say of a damaged file that it is an OSError, too
            raise UserError(f"{path}: cannot be read: {describe(OSError(error.errno, error.strerror))}") from error
        raise _damaged(path, suffix, error) from error
    except Exception as error:
        raise _damaged(path, suffix, error) from error


def _damaged(path: Path, suffix: str | None, error: Exception) -> UserError:
    reason = shown(" ".join(str(error).split()))  # some libraries write several lines
    return UserError(
        f"{path}: cannot be read ({type(error).__name__}: {reason}). Expected a complete "
        f'{suffix or path.suffix.lower()} file: copy it again, remove it, or set on_bad_file to "skip".'
    )


def with_channels(shape: tuple[int, ...], path: Path, rank: int) -> tuple[int, ...]:
    """Return ``(*spatial, channels)`` of a stored shape ``(*spatial)`` or ``(*spatial, channels)``.

    Raises:
        UserError: The shape has another number of axes, or an axis of length 0.
    """
    if len(shape) not in (rank, rank + 1) or min(shape) < 1:
        raise wrong_rank(shape, path, rank)
    return shape if len(shape) == rank + 1 else (*shape, 1)


def wrong_rank(shape: tuple[int, ...], path: Path, rank: int) -> UserError:
    """Return the error of a file whose shape does not have ``rank`` spatial axes."""
    return UserError(
        f"{path}: has shape {shape}, expected {rank} spatial axes, with or without one axis of channels "
        "after. Convert the file, or change data_dim (its length is the number of spatial axes)."
    )


def check_spacing(sizes: Sequence[float], path: Path, field: str) -> None:
    """Raise `UserError` if a voxel size of a header, whose ``field`` is named, is not positive."""
    if not all(size > 0 for size in sizes):
        found = ", ".join(f"{size:g}" for size in sizes)
        raise UserError(
            f"{path}: its voxel sizes ({field}) are {found}; expected positive numbers. Repair the header, or convert "
            "the scan again."
        )


def check_numbers(dtype: np.dtype, path: Path) -> None:
    """Raise `UserError` if the voxels of a file are neither integers nor real numbers."""
    if dtype.kind not in "biuf":
        raise UserError(f"{path}: voxels are of type {dtype}, expected integers or real numbers.")


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return a copy in memory (``array`` may map a file); what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C", subok=False)


def as_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """Return an int32 copy of stored labels; what a scale factor in a header adds to them is rounded off.

    Raises:
        UserError: A value is no label: NaN, infinite, beyond int32, or a fraction.
    """
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            rounded = np.rint(array)
            fractions = np.abs(array - rounded) > _LARGEST_FRACTION
        if fractions.any():
            raise UserError(
                f"{path}: has the value {array[fractions][0]:g}, expected whole numbers as labels. Is this a scan, or "
                "a mask that was interpolated? Give the mask itself."
            )
        array = rounded
    # NaN fails both comparisons, so it is refused as well.
    if not (array.min() >= -_LARGEST_LABEL and array.max() <= _LARGEST_LABEL):
        raise UserError(f"{path}: values range from {array.min()} to {array.max()}, expected integer labels.")
    return np.array(array, np.int32, order="C", subok=False)
