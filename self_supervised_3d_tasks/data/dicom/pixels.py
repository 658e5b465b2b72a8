"""Decoded pixels of a DICOM file, rescaled to what they measure.

pydicom decodes them where it has a decoder for their compression, and else SimpleITK, which brings those of JPEG.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.decoding.simple_itk import locale_kept
from self_supervised_3d_tasks.data.dicom.headers import SUFFIX, read
from self_supervised_3d_tasks.data.volumes import readable
from self_supervised_3d_tasks.errors import UserError

pydicom = lazy.load("pydicom")
sitk = lazy.load("SimpleITK")

_RESCALING = "PixelValueTransformationSequence"


def pixels(file: Path) -> np.ndarray:
    """Return ``(rows, columns)`` float32 of a file of one slice, rescaled by slope and intercept or by its table.

    Raises:
        UserError: The pixels are missing or damaged, or nothing can decode them.
    """
    image = read(file)
    with readable(file, SUFFIX):
        if not _has_decoder(image):
            return _by_simpleitk(file, image)
        stored = _decoded(image, file)
        if "ModalityLUTSequence" in image:
            return pydicom.pixels.apply_modality_lut(stored, image).astype(np.float32)
        return _rescaled(stored, image, file)


def frames(file: Path) -> np.ndarray:
    """Return ``(frames, rows, columns)`` float32 of a multi-frame file, each rescaled as its functional groups say.

    Raises:
        UserError: As `pixels`.
    """
    image = read(file)
    stored = stored_frames(image, file)
    with readable(file, SUFFIX):
        shared = (image.get("SharedFunctionalGroupsSequence") or [{}])[0]
        groups = image.PerFrameFunctionalGroupsSequence
        rescaling = [(group.get(_RESCALING) or shared.get(_RESCALING) or [image])[0] for group in groups]
        if len(stored) != len(groups):
            raise UserError(f"{file}: has {len(stored)} frames, but its header tells of {len(groups)}. Copy it again.")
        return np.stack([_rescaled(frame, header, file) for frame, header in zip(stored, rescaling, strict=True)])


def stored_frames(image: pydicom.Dataset, file: Path) -> np.ndarray:
    """Return ``(frames, rows, columns)`` as stored in a multi-frame file.

    Raises:
        UserError: As `pixels`.
    """
    with readable(file, SUFFIX):
        if not _has_decoder(image):
            raise _no_decoder(file, image)
        return _decoded(image, file).reshape(-1, image.Rows, image.Columns)


def _decoded(image: pydicom.Dataset, file: Path) -> np.ndarray:
    claims.check_memory(file, [int(image.get(keyword) or 1) for keyword in ("Columns", "Rows", "NumberOfFrames")])
    try:
        return image.pixel_array
    except Exception as error:  # decoders agree on no exception
        raise UserError(
            f"{file}: its pixels cannot be decoded ({error}). Copy the file again, or repair it."
        ) from error


def _rescaled(stored: np.ndarray, header: pydicom.Dataset, file: Path) -> np.ndarray:
    slope, intercept = (header.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = float(1 if slope is None else slope), float(0 if intercept is None else intercept)
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise UserError(
            f"{file}: RescaleSlope is {slope:g} and RescaleIntercept {intercept:g}, expected finite numbers and no "
            "slope of 0. Repair the header."
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        return (stored * slope + intercept).astype(np.float32)


def _has_decoder(image: pydicom.Dataset) -> bool:
    syntax = image.file_meta.TransferSyntaxUID
    if syntax == pydicom.uid.JPEGExtended12Bit and image.BitsStored > 8:
        return False  # what pydicom counts as its decoder stops at 8 bits
    try:
        return pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _by_simpleitk(file: Path, image: pydicom.Dataset) -> np.ndarray:
    """Return the pixels of one slice, which SimpleITK rescales itself."""
    try:
        with locale_kept():
            decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        raise _no_decoder(file, image) from error
    return decoded.reshape(decoded.shape[-2:]).astype(np.float32)


def _no_decoder(file: Path, image: pydicom.Dataset) -> UserError:
    syntax = image.file_meta.TransferSyntaxUID
    try:
        needed = "; or ".join(pydicom.pixels.get_decoder(syntax).missing_dependencies)
    except NotImplementedError:
        needed = "none that pydicom knows"
    return UserError(
        f"{file}: its pixels are compressed ({syntax.name}), and no decoder for that is installed; pydicom takes: "
        f"{needed}. Install one with pip, or decompress the series, for example with gdcmconv --raw."
    )
