"""The demo cohort: synthetic brain scans with lesions, made from the MNI152 template inside nilearn.

Nothing is downloaded. Every subject is the template's anatomy under its own smooth deformation, tissue
contrast, bias field, noise and lesion, on an oblique grid of 192 mm per side. Labels: 0 background (with
cerebrospinal fluid), 1 grey matter, 2 white matter, 3 lesion. Some axial slices of every scan lie beside the
volumes as PNG, for the 2D tasks.
"""

import gzip
import io
from pathlib import Path

import numpy as np
from absl import logging
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import lock
from self_supervised_3d_tasks.files.atomic import atomic_folder, atomic_write_bytes
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.preparation import _synthetic_brain as brain

nib = lazy.load("nibabel")

# Folder, whether it has masks in <folder>_labels, and the option that says how many.
FOLDERS = (("images", False, "num_unlabelled"), ("labelled", True, "num_labelled"), ("test", True, "num_test"))
SLICES = "slices"
MANIFEST = "cohort.json"

README = """\
Demo cohort of self_supervised_3d_tasks (python prepare.py demo)
================================================================

Synthetic scans for trying the software out. They are no patients and prove nothing about patients.

images/                      {num_unlabelled} scans for pretraining
labelled/, labelled_labels/  {num_labelled} scans and masks of the same names for finetuning
test/, test_labels/          {num_test} scans and masks of the same names for testing
slices/                      the same folders in 2D: {num_slices} axial slices of each scan, as <scan>_<slice>.png

Each file is another subject: the MNI152 template under a random smooth deformation, tissue contrast,
bias field, Rician noise and one lesion. Grid {size} x {size} x {size}, voxels of {spacing:g} mm.
Channels: {channels}. Seed: {seed}.
Labels: 0 background and cerebrospinal fluid, 1 grey matter, 2 white matter, 3 lesion.

Source of the anatomy: ICBM 152 nonlinear template of 2009, release a, and its tissue maps, as carried by
the nilearn package (BSD-3-Clause; nilearn lists the licence of the template as unknown). The notice that
the template's authors publish with it:

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
McGill University. Permission to use, copy, modify, and distribute this software and its documentation for
any purpose and without fee is hereby granted, provided that the above copyright notice appear in all
copies. The authors and McGill University make no representations about the suitability of this software
for any purpose. It is provided "as is" without express or implied warranty. The authors are not
responsible for any data loss, equipment damage, property loss, or injury to subjects or patients resulting
from the use or misuse of this software package.

V. S. Fonov et al.: Unbiased nonlinear average age-appropriate brain templates from birth to adulthood.
NeuroImage 47, 2009.
"""


class Options(BaseModel):
    """What the cohort looks like. The same options give the same scans."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_unlabelled: int = Field(40, ge=1, description="scans without masks, for pretraining")
    num_labelled: int = Field(16, ge=1, description="scans with masks, for finetuning")
    num_test: int = Field(8, ge=1, description="scans with masks, for testing")
    size: int = Field(48, ge=16, le=192, description="voxels per axis; the grid always covers 192 mm")
    channels: int = Field(1, ge=1, le=2, description="1: T1-like; 2: T1-like and FLAIR-like")
    num_slices: int = Field(6, ge=0, le=8, description="axial slices of each scan as PNG; T1-like only")
    seed: int = Field(0, ge=0, description="seed of the whole cohort")


def prepare(output: Path, options: Options) -> None:
    """Make the cohort in the folder ``output``; where it is there already, do nothing.

    It is made beside ``output`` and renamed when complete, so that an interrupted run leaves nothing that
    looks like a cohort.

    Raises:
        UserError: ``output`` holds anything else or cannot be written, or nilearn is not installed.
    """
    output = as_path(output).resolve()
    with lock.beside(output, "wait until it has ended, or choose another --output"):
        _prepare(output, options)


def _prepare(output: Path, options: Options) -> None:
    if _is_complete(output, options):
        logging.info("%s: this cohort is there already", output)
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"{output}: expected a new or empty folder, but it holds something else than this complete "
            "cohort; remove it or choose another --output"
        )
    with atomic_folder(output) as cohort:
        _write_cohort(cohort, options)


def _write_cohort(folder: Path, options: Options) -> None:
    spacing = brain.FIELD_OF_VIEW / options.size
    template = brain.load_template(spacing)
    for paths, seed in tqdm(_files(options), desc="demo cohort", unit="scan", disable=None):
        rng = np.random.default_rng(seed)
        array, labels, affine = brain.make_subject(template, options.size, options.channels, rng)
        grey = np.uint8(np.round(array[..., 0] * (255 / array[..., 0].max())))
        image = array if options.channels > 1 else array[..., 0]
        for path, volume, shown in zip(paths, (image, labels), (grey, labels), strict=False):
            _write_nifti(folder / path, volume, affine)
            for index in _slices(options):
                _write_picture(folder / _slice_path(path, index), shown[:, :, index])
    names = ", ".join(brain.CHANNEL_NAMES[: options.channels])
    text = README.format(**options.model_dump() | {"channels": names, "spacing": spacing})
    atomic_write_bytes(folder / "README.txt", text.encode())
    write_json(folder / MANIFEST, options.model_dump())


def _files(options: Options) -> list[tuple[list[str], tuple[int, int, int]]]:
    """Return for every subject the path of its image, that of its mask if it has one, and its seed.

    The seed holds the folder and the number in it, so that a larger pool for pretraining leaves the other
    scans as they are.
    """
    files = []
    for stream, (folder, labelled, count) in enumerate(FOLDERS):
        for number in range(getattr(options, count)):
            name = f"{folder}_{number:03d}.nii.gz"
            paths = [f"{folder}/{name}", f"{folder}_labels/{name}"] if labelled else [f"{folder}/{name}"]
            files.append((paths, (options.seed, stream, number)))
    return files


def _is_complete(output: Path, options: Options) -> bool:
    manifest = output / MANIFEST
    if not manifest.is_file() or read_json(manifest) != options.model_dump():
        return False
    paths = [path for own, _ in _files(options) for path in own]
    paths += [_slice_path(path, index) for path in paths for index in _slices(options)]
    return all((output / path).is_file() for path in paths)


def _slices(options: Options) -> list[int]:
    """Return the axial planes that are also written as pictures: evenly spaced in the middle half of the grid."""
    return np.unique(np.linspace(options.size / 4, 3 * options.size / 4, options.num_slices, dtype=int)).tolist()


def _slice_path(volume: str, index: int) -> str:
    return f"{SLICES}/{volume.removesuffix('.nii.gz')}_{index:03d}.png"


def _write_picture(path: Path, plane: np.ndarray) -> None:
    """Write a plane ``(x, y)`` as a grey picture with x to the right and y up."""
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane.T[::-1].astype(np.uint8))).save(picture, format="PNG")
    atomic_write_bytes(path, picture.getbuffer())


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    atomic_write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
