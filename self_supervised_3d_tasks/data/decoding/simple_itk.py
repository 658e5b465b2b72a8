"""MetaImage and NRRD files by SimpleITK, whose directions are LPS: left, posterior and superior are positive."""

from __future__ import annotations

import contextlib
import locale
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.decoding.stored import StoredScan
from self_supervised_3d_tasks.data.volumes import check_numbers, check_spacing, wrong_rank

sitk = lazy.load("SimpleITK")

MM = {"um": 0.001, "µm": 0.001, "micron": 0.001, "micrometer": 0.001, "nm": 1e-6}
MM |= {"cm": 10.0, "centimeter": 10.0, "m": 1000.0, "meter": 1000.0}
_UNIT = "ITK_VoxelUnits"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie, in ITK's terms.

    Args:
        spacing: Voxel size along each axis.
        origin: Place of the first voxel, LPS.
        direction: ``(rank, rank)``; a column is the direction of an axis, LPS.
        unit: Of spacing and origin, as the file writes it; one that `MM` does not have is taken for mm.
    """

    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray
    unit: str = ""

    @classmethod
    def from_affine(cls, affine: np.ndarray | None, rank: int) -> Geometry:
        """Return the geometry of an affine ``(4, 4)`` in mm; in 2D, where a third axis is left out, that of pixels."""
        if affine is None or rank == 2:
            return cls(np.ones(rank), np.zeros(rank), np.eye(rank))
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        return cls(spacing, _LPS_TO_RAS @ affine[:3, 3], _LPS_TO_RAS @ affine[:3, :3] / spacing)

    def affine(self) -> np.ndarray:
        """Return the affine ``(4, 4)``, voxel index to mm in RAS directions; a plane lies in the first two."""
        rank, affine = min(len(self.spacing), 3), np.eye(4)
        affine[:rank, :rank] = self.direction[:rank, :rank] * self.spacing[:rank]
        affine[:rank, 3] = self.origin[:rank]
        affine[:3] = _LPS_TO_RAS @ affine[:3]
        return np.diag([*(MM.get(self.unit, 1.0),) * 3, 1]) @ affine


def scan_of(
    path: Path, size: Sequence[int], channels: int, geometry: Geometry, rank: int, decode: Callable[[], np.ndarray]
) -> StoredScan:
    """Return the scan of an image; a fourth axis, or several channels in a voxel, are its channels.

    Args:
        path: The file.
        size: Length of each axis, (x, y), (x, y, z) or (x, y, z, t).
        channels: How many there are in a voxel.
        geometry: Where the voxels lie.
        rank: Number of spatial axes that are expected.
        decode: Gives the voxels ``(*size, channels)``.

    Raises:
        UserError: There are fewer axes, or voxel sizes that are not positive.
    """
    if len(size) < rank:
        raise wrong_rank(tuple(size), path, rank)
    check_spacing(geometry.spacing, path, "spacing")
    shape = tuple(size) if channels == 1 else (*size, *(1,) * (3 - len(size)), channels)
    # Numbers or none is all that has to be known of the voxels' type.
    return StoredScan(path, shape, geometry.affine(), np.dtype(float), lambda dtype: decode().reshape(shape))


def open_scan(
    path: Path, image_io: str, rank: int, unit: str | None = None, *, stored: int | None = None, ratio: int = 1
) -> tuple[StoredScan, Geometry]:
    """Open a file; its header is read, its voxels when they are asked for.

    Args:
        path: The file.
        image_io: ITK's reader, such as ``NrrdImageIO``.
        rank: Number of spatial axes that are expected.
        unit: Of lengths; default: what ITK knows of it.
        stored: Bytes in which the voxels are, see `claims.check`; None: not known.
        ratio: How many bytes of voxels a stored byte holds at most.

    Raises:
        UserError: As `scan_of`, the voxels are complex numbers, or the memory does not hold them.
        ValueError: ITK cannot read the header, or the file cannot hold the voxels.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints to stderr, past every log
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    with _one_line_errors():
        reader.ReadImageInformation()
    if unit is None:
        unit = reader.GetMetaData(_UNIT) if _UNIT in reader.GetMetaDataKeys() else ""
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))
    geometry = Geometry(np.array(reader.GetSpacing()), np.array(reader.GetOrigin()), direction, unit)
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        check_numbers(np.dtype(complex), path)

    if stored is None:
        claims.check_memory(path, (*size, channels))
    else:
        bits = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(reader.GetPixelID()))
        claims.check(path, (*size, channels), int(bits[1]) // 8 if bits else 1, stored, ratio=ratio)

    def decode() -> np.ndarray:
        with _one_line_errors():
            array = sitk.GetArrayFromImage(reader.Execute())
        array = array.reshape(*size[::-1], channels)
        return array.transpose(*range(len(size))[::-1], len(size))

    return scan_of(path, size, channels, geometry, rank, decode), geometry


def write_mask(path: Path, mask: np.ndarray, geometry: Geometry, image_io: str) -> None:
    """Write a mask ``(*spatial)`` as stored, compressed, with the directions, origin, spacing and unit of a scan."""
    rank = min(len(geometry.spacing), 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.reshape(mask.shape[:rank]).T))
    image.SetSpacing(geometry.spacing[:rank].tolist())
    image.SetOrigin(geometry.origin[:rank].tolist())
    image.SetDirection(geometry.direction[:rank, :rank].ravel().tolist())
    if geometry.unit:
        image.SetMetaData(_UNIT, geometry.unit)
    written = path.with_suffix(path.suffix.lower())  # ITK does not know .MHA, and takes another name
    with _one_line_errors():
        sitk.WriteImage(image, str(written), useCompression=True, imageIO=image_io)
    written.replace(path)


@contextlib.contextmanager
def locale_kept() -> Iterator[None]:
    """Undo what GDCM does to the locale: after JPEG slices, files of the whole process would be read as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn ITK's reports, which name its source files and addresses in memory, into their last sentence.

    Raises:
        ValueError: ITK raised an error.
    """
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # What the operating system said last, which may have been about anything.
        lines = [line for line in lines if not line.startswith("Reason:")]
        raise ValueError(lines[-1].split("): ", 1)[-1]) from None
