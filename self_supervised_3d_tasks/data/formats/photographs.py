"""PNG, JPEG and TIFF files as arrays ``(rows, columns, channels)``, as the camera meant them to be seen.

What a reader could only guess at (colours of a print, several pages, pixels that are partly transparent) is refused.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels
from self_supervised_3d_tasks.errors import UserError

Image = lazy.load("PIL.Image")
ImageOps = lazy.load("PIL.ImageOps")

SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".png")
MASK_SUFFIXES = (".png",)  # for JPEG changes values
HOLDS_VOLUMES = False
WINDOW = (0.0, 255.0)
"""Intensities from black to white of 8-bit pixels."""

_MOST_PIXELS = 2**27  # 11,585 × 11,585
_FORMATS = ("PNG", "JPEG", "TIFF")  # also of files with a wrong suffix; none of Pillow's other parsers is needed
_ORIENTATION = 0x0112  # EXIF
_GREYSCALE = ("L", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")
_CONVERTED = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB"}
_MASKS = ("1", "P", *_GREYSCALE)


def is_photograph(path: Path) -> bool:
    """Return whether a file is a PNG, JPEG or TIFF file, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_header(path: Path, rank: int) -> Header:
    """Return the shape ``(rows, columns, channels)``; no pixel is decoded."""
    with _opened(path, labels=False) as image:
        return Header((*_size(image), 1 if _mode(image) in _GREYSCALE else 3), path)


def read_mask_header(path: Path, rank: int) -> Header:
    """Return the shape ``(rows, columns, 1)``; no pixel is decoded."""
    with _opened(path, labels=True) as image:
        return Header((*_size(image), 1), path)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(rows, columns, channels)`` float32: 0 to 255, or more where greyscale has 16 bits."""
    return Volume.without_affine(as_float32(_read_pixels(path, labels=False)), 2, path)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(rows, columns)`` int32: grey values, or of a palette the indices."""
    return Volume.without_affine(as_labels(_read_pixels(path, labels=True), path)[..., 0], 2, path)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write a PNG file of labels ``(rows, columns)``, uint8: the grey value of a pixel is its label."""
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f"a PNG file holds 2 axes and labels up to 255, but the mask has {mask.ndim} axes and labels up to "
            f"{mask.max(initial=0)}. Write .npy or .nii.gz."
        )
    Image.fromarray(mask).save(path, format="PNG", optimize=True)


def _read_pixels(path: Path, *, labels: bool) -> np.ndarray:
    """Return the pixels ``(rows, columns, channels)`` as stored.

    EXIF orientation is applied, colours of a palette are looked up, an opaque alpha channel is dropped. 16-bit colours
    come as 8-bit ones, which is how Pillow decodes them. With ``labels`` there is one channel, and JPEG is refused.
    """
    with _opened(path, labels) as image:
        is_turned = _is_turned(image)
        image.load()
        if is_turned:
            ImageOps.exif_transpose(image, in_place=True)
        if not labels:
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise UserError(f"{path}: has transparent pixels, expected opaque ones. Put the image on a background.")
            image = image.convert(_mode(image)) if image.mode in _CONVERTED else image
        pixels = np.array(image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


@contextlib.contextmanager
def _opened(path: Path, labels: bool) -> Iterator[Image.Image]:
    """Yield the image with its header read and its kind checked."""
    # Opened here: of a turned TIFF file that it opens itself, Pillow 13 maps the pixels with rows for columns.
    with open(path, "rb") as file:
        image = _opened_lazily(file, path)
        # The further pictures in a camera's JPEG (format MPO) are previews of the first.
        pages = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        if pages > 1:
            raise UserError(f"{path}: has {pages} pages, expected one image per file. Split the file.")
        if labels and image.format in ("JPEG", "MPO"):
            raise UserError(f"{path}: JPEG changes the values of pixels and cannot hold labels. Store masks as PNG.")
        if labels and image.mode not in _MASKS:
            channels = f"{len(image.getbands())} channels ({image.mode})"
            raise UserError(f"{path}: has {channels}, expected one integer label per pixel.")
        if not labels and _mode(image) not in (*_GREYSCALE, "RGB"):
            raise UserError(f"{path}: has colours of type {image.mode}, expected greyscale or RGB. Convert the file.")
        yield image


def _opened_lazily(file: BinaryIO, path: Path) -> Image.Image:
    """Return an image of which nothing but the header is read; `UserError` for one that is too large."""
    try:
        with warnings.catch_warnings():  # Pillow's limit is lower
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error} Shrink the image, or cut it into several.") from error
    if math.prod(image.size) > _MOST_PIXELS:
        columns, rows = image.size
        raise UserError(
            f"{path}: has {columns} × {rows} pixels, expected at most {_MOST_PIXELS:,}. Shrink the image, or cut it "
            "into several."
        )
    claims.check_memory(path, (*image.size, len(image.getbands())))
    return image


def _size(image: Image.Image) -> tuple[int, int]:
    """Return rows and columns after the turn that EXIF data ask for."""
    columns, rows = image.size
    turned = _is_turned(image) and image.getexif().get(_ORIENTATION, 1) >= 5
    # Of a TIFF file Pillow gives the turned size.
    return (columns, rows) if turned and image.format != "TIFF" else (rows, columns)


def _mode(image: Image.Image) -> str:
    return _CONVERTED.get(image.mode, image.mode)


def _is_turned(image: Image.Image) -> bool:
    """Return whether EXIF data count: in a PNG file only before the pixels, so that its header is enough."""
    return image.format != "PNG" or "exif" in image.info
