"""Files of the probabilities of all classes, on the grid of the scan."""

from pathlib import Path

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.decoding.grid import Grid
from self_supervised_3d_tasks.data.formats import nifti
from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.files.atomic import atomic_write

nib = lazy.load("nibabel")


def path_of(mask: Path, scan: Header) -> Path:
    """Return where the probabilities of a mask go: a NIfTI file where voxels have a place in space, else an array."""
    return _paths(mask)[scan.affine is None]


def find(mask: Path) -> Path | None:
    """Return the file of the probabilities of a mask, None where there is none."""
    return next((path for path in _paths(mask) if path.exists()), None)


def _paths(mask: Path) -> tuple[Path, Path]:
    """Return the two places where `path_of` may put the probabilities of a mask."""
    of_volume, of_array = (f"{formats.stem_of(mask)}_probabilities{suffix}" for suffix in (".nii.gz", ".npy"))
    return mask.with_name(of_volume), mask.with_name(of_array)


def write_probabilities(path: Path, probabilities: np.ndarray, scan: Header) -> None:
    """Write float32 probabilities; atomic.

    Args:
        path: File from `path_of`.
        probabilities: ``(*spatial, num_classes)`` on canonical axes. In a NIfTI file classes are the fourth axis, and
            the others lie as in the scan, if that is a NIfTI file too.
        scan: Header of the scan.
    """
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".npy":
            np.save(temporary, probabilities, allow_pickle=False)
            return
        stored, affine = probabilities, scan.affine
        if stored.ndim == 3:
            stored = stored[:, :, np.newaxis]
        if scan.path.name.lower().endswith(nifti.SUFFIXES):
            image = nib.load(scan.path)
            grid = Grid.of(image.shape, image.affine, scan.path, probabilities.ndim - 1)
            stored, affine = grid.to_stored(probabilities), image.affine
        written = nib.Nifti1Image(np.asarray(stored), affine)
        written.header.set_xyzt_units("mm")
        nib.save(written, temporary)
