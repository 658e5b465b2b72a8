"""Scans in an ``.npz`` file of MedMNIST form, which acts as a folder of its parts.

Such an archive holds ``<part>_images`` ``(n, *spatial)`` or ``(n, *spatial, channels)`` and ``<part>_labels`` ``(n,)``
or ``(n, 1)``, with parts such as train, val and test (Yang et al. 2023, "MedMNIST v2"). Scan 17 of the training part
has the path ``<archive>.npz/train/00017``, which is no file of its own: `file_of` says which file it lies in.
"""

from __future__ import annotations

import functools
import math
import re
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.volumes import Header, Volume, as_float32, readable, with_channels
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.paths import check_file

SUFFIX = ".npz"
SUFFIXES = ()  # of files; a scan is a part of one
MASK_SUFFIXES = ()
HOLDS_VOLUMES = True
_IMAGES, _LABELS, _SUBJECTS = "_images", "_labels", ("_subject", "_patient")
_MIN_DIGITS = 5
_MOST_SCANS = 10_000_000
_RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: claims.DEFLATE}

Stamp = tuple[int, int]  # time of the last change in ns, and size: an archive that is written anew is read anew


@dataclass(frozen=True)
class Part:
    """The scans of one part of an archive.

    Args:
        archive: The ``.npz`` file.
        name: Name of the part, such as ``"train"``.
    """

    archive: Path
    name: str

    @classmethod
    def at(cls, folder: Path) -> Part:
        """Return the part that a path such as ``organ.npz/train`` names.

        Raises:
            UserError: The path names no part, or the archive cannot be read or does not have the part.
        """
        if is_scan(folder):
            raise UserError(f"{folder}: is a single scan of an archive. Give the part that it is in: {folder.parent}.")
        archive = folder if _is_archive(folder) else folder.parent
        if not _is_archive(archive):
            raise UserError(
                f"{folder}: expected an archive of MedMNIST form with one of its parts, such as organ.npz/train. "
                'Change the path, or to train on a folder of scans dataset_name, for example to "npy".'
            )
        names = _names(archive, _stamp(archive))
        parts = [name.removesuffix(_IMAGES) for name in names if name.endswith(_IMAGES)]
        if not parts:
            raise UserError(
                f"{archive}: holds {', '.join(names) or 'no arrays'}; expected arrays called <part>{_IMAGES}, such as "
                f"train{_IMAGES}."
            )
        if archive == folder:
            raise UserError(
                f"{archive}: is an archive with the parts {', '.join(parts)}. Say which, for example "
                f"{archive / parts[0]}."
            )
        if folder.name not in parts:
            raise UserError(
                f"{folder}: the archive has no {folder.name}{_IMAGES}; its parts are {', '.join(parts)}."
                + nearest(folder.name, parts)
            )
        return cls(archive, folder.name)

    def paths(self) -> list[Path]:
        """Return the paths of the scans, in their order.

        Raises:
            UserError: The array of images cannot be used.
        """
        shape, dtype = self._header(_IMAGES)
        if len(shape) < 3 or not shape[0] or dtype.kind not in "biuf":
            raise UserError(
                f"{self.archive}: {self.name}{_IMAGES} has shape {shape} and type {dtype}, expected one or more "
                "scans of integers or real numbers, (n, *spatial) or (n, *spatial, channels). Convert the array."
            )
        if shape[0] > _MOST_SCANS:
            raise UserError(
                f"{self.archive}: {self.name}{_IMAGES} has {shape[0]} scans, expected at most {_MOST_SCANS}. Split it."
            )
        digits = max(_MIN_DIGITS, len(str(shape[0] - 1)))
        return [self.archive / self.name / f"{number:0{digits}}" for number in range(shape[0])]

    def labels(self) -> list[int]:
        """Return the label of each scan.

        Raises:
            UserError: There are no labels, several per scan, or not as many as scans; or they are no integers.
        """
        if f"{self.name}{_LABELS}" not in _names(self.archive, _stamp(self.archive)):
            raise UserError(f"{self.archive}: has no {self.name}{_LABELS}; expected one class per scan. Add the array.")
        shape, dtype = self._header(_LABELS)
        where = f"{self.archive}: {self.name}{_LABELS} has shape {shape}"
        if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            raise UserError(
                f"{where}, expected one class per scan, (n,) or (n, 1). Sets with several labels per scan, such as "
                "ChestMNIST, cannot be learned; choose one column."
            )
        if dtype.kind not in "biu":
            raise UserError(f"{where} and type {dtype}, expected integers. Convert the array.")
        return self._of_each_scan(_LABELS).astype(int).tolist()

    def subjects(self) -> list[str] | None:
        """Return whose each scan is, where ``<part>_subject`` or ``<part>_patient`` says it, else None.

        Raises:
            UserError: There is not one subject per scan.
        """
        names = _names(self.archive, _stamp(self.archive))
        ending = next((ending for ending in _SUBJECTS if f"{self.name}{ending}" in names), None)
        alike = [name for name in names if name.startswith(f"{self.name}_") and re.search("subject|patient", name)]
        if ending is None and alike:
            logging.warning(
                "%s: %s is not used, and every scan counts as a subject of its own; call it %s%s if it says whose each "
                "scan is.",
                self.archive,
                ", ".join(alike),
                self.name,
                _SUBJECTS[0],
            )
        return None if ending is None else [str(subject) for subject in self._of_each_scan(ending).tolist()]

    def _header(self, ending: str) -> tuple[tuple[int, ...], np.dtype]:
        return _header(self.archive, _stamp(self.archive), f"{self.name}{ending}")

    def _of_each_scan(self, ending: str) -> np.ndarray:
        """Return an array with one entry per scan, ``(n,)``."""
        (shape, _), number = self._header(ending), self._header(_IMAGES)[0][0]
        if shape not in ((number,), (number, 1)):
            raise UserError(
                f"{self.archive}: {self.name}{ending} has shape {shape}, but {self.name}{_IMAGES} has {number} scans; "
                "expected one entry per scan."
            )
        return _array(self.archive, f"{self.name}{ending}").reshape(number)


def is_scan(path: Path) -> bool:
    """Return whether a path is that of a scan in an archive."""
    return _is_archive(path.parent.parent) and path.name.isdecimal()


def contains(folder: Path) -> bool:
    """Return whether a path names an archive, or a part of one."""
    return any(_is_archive(path) and path.is_file() for path in (folder, folder.parent))


def file_of(path: Path) -> Path:
    """Return the file that holds a scan: its archive, or the path itself."""
    return path.parent.parent if is_scan(path) else path


def read_header(path: Path, rank: int) -> Header:
    """Return the shape of a scan; no voxel is decompressed."""
    archive = file_of(path)
    shape, _ = _header(archive, _stamp(archive), f"{path.parent.name}{_IMAGES}")
    return Header(with_channels(shape[1:], path, rank), path)


def read_image(path: Path, rank: int) -> Volume:
    """Read ``(*spatial, channels)`` float32.

    One scan cannot be decompressed alone. Its part stays decoded, for the other scans, until `release`, or until two
    more have been read.
    """
    archive = file_of(path)
    with _DECODING:  # the others wait for the first one that wants a part
        images = _decoded(archive, _stamp(archive), f"{path.parent.name}{_IMAGES}")
    shape = with_channels(images.shape[1:], path, rank)
    return Volume.without_affine(as_float32(images[int(path.name)]).reshape(shape), rank, path)


def read_mask_header(path: Path, rank: int) -> Header:
    """Raise `UserError`, because archives of this form hold no masks."""
    raise UserError(f"{path}: an archive has no masks, but masks are needed here. Use a folder of masks.")


read_mask = read_mask_header


def release() -> None:
    """Free the memory of decoded parts."""
    _decoded.cache_clear()


_DECODING = threading.Lock()


@functools.lru_cache(maxsize=2)
def _decoded(archive: Path, stamp: Stamp, name: str) -> np.ndarray:
    return _array(archive, name)


@functools.lru_cache(maxsize=32)
def _header(archive: Path, stamp: Stamp, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array, which its part of the archive can hold; its first bytes are decompressed."""
    with readable(archive), zipfile.ZipFile(archive) as file, file.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(member)
        info, held = file.getinfo(f"{name}.npy"), math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and member.tell() + held != info.file_size:
            raise ValueError(
                f"the header of {name} claims {' × '.join(map(str, shape))} numbers, "
                f"{machine.readable_bytes(held)}, but {machine.readable_bytes(info.file_size)} are stored"
            )
        stored = min(info.compress_size, archive.stat().st_size)
        claims.check(archive, shape, dtype.itemsize, stored, ratio=_RATIOS.get(info.compress_type, sys.maxsize))
    if dtype.hasobject:
        raise UserError(
            f"{archive}: {name} holds Python objects, which are pickled code and not read; expected an array of "
            "numbers or texts. Convert it, for example with array.astype(str)."
        )
    return shape, dtype


@functools.lru_cache(maxsize=8)
def _names(archive: Path, stamp: Stamp) -> list[str]:
    with readable(archive), zipfile.ZipFile(archive) as file:
        return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


def _array(archive: Path, name: str) -> np.ndarray:
    with readable(archive), np.load(archive, allow_pickle=False) as file:
        return file[name]


def _stamp(archive: Path) -> Stamp:
    with readable(archive):
        state = check_file(archive).stat()
        return state.st_mtime_ns, state.st_size


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX
