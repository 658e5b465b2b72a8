"""NumPy arrays, ``(*spatial)`` or ``(*spatial, channels)``, which say nothing of directions and voxel sizes."""

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, as_labels, check_numbers, with_channels
from self_supervised_3d_tasks.errors import UserError

SUFFIXES = (".npy",)
MASK_SUFFIXES = (".npy",)
HOLDS_VOLUMES = True


def read_header(path: Path, rank: int) -> Header:
    """Return the shape; an array of ``rank`` axes has one channel."""
    return Header(with_channels(_open(path).shape, path, rank), path)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32."""
    stored = _open(path)
    return Volume.without_affine(as_float32(stored).reshape(with_channels(stored.shape, path, rank)), rank, path)


def read_mask(path: Path, rank: int) -> Volume:
    """Read ``(*spatial)`` int32."""
    stored = _open(path)
    return Volume.without_affine(as_labels(stored, path).reshape(stored.shape[:rank]), rank, path)


def write_mask(path: Path, mask: np.ndarray, reference: Header) -> None:
    """Write the array as it is."""
    with open(path, "wb") as file:  # to another name than *.npy NumPy would add that
        np.save(file, mask, allow_pickle=False)


def _open(path: Path) -> np.ndarray:
    """Return the array as a read-only map: opening checks the header and the length, not the voxels."""
    with open(path, "rb") as file:
        start = file.read(len(np.lib.format.MAGIC_PREFIX))
    if start.startswith(b"PK"):
        raise ValueError("this is an .npz archive")
    if start != np.lib.format.MAGIC_PREFIX:  # NumPy would take it for a pickle, and advise to run that
        raise ValueError("it does not begin as a .npy file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise UserError(
            f"{path}: holds Python objects, which are pickled code and not read; expected an array of numbers. Convert "
            "it, for example with array.astype(float)."
        ) from error
    check_numbers(array.dtype, path)
    claims.check(path, array.shape, array.itemsize, path.stat().st_size - array.offset, is_end=True)
    return array
