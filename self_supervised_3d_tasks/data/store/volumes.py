"""Every scan of a run, decoded, checked and preprocessed once, then read as often as training likes."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data import content
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import archives, read_channels, read_header, read_mask, read_mask_header
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.data.store.foreground import Foreground
from self_supervised_3d_tasks.data.store.threads import map_in_threads
from self_supervised_3d_tasks.data.volumes import check_same_grid
from self_supervised_3d_tasks.errors import UserError

MEMORY_LIMIT = 4 * 2**30  # bytes
MAX_REPORTED = 10
NUM_LOOKED_AT = 16
LEAST_CONTRAST = 0.05


class _Entry(NamedTuple):
    """A preprocessed case: arrays in memory, or the .npy files that hold them."""

    shape: tuple[int, ...]
    arrays: list[np.ndarray] | list[Path]  # of the image, and of the mask where it is read
    foreground: Foreground | None  # None without mask
    content: np.ndarray  # a hash of each channel as it was read


class VolumeStore:
    """The preprocessed images, and masks, of some cases.

    Headers of all files are checked first, then every file is decoded once, with progress.

    Args:
        cases: The cases to read.
        preprocessing: What is done to every case.
        num_classes: The masks are read, with labels below this; None: images only.
        cache: ``"memory"``, ``"disk"`` (.npy files in ``cache_dir``, read through memory maps), or
            ``"auto"``: memory up to `MEMORY_LIMIT`.
        cache_dir: Folder of the disk cache. It may be shared by runs and processes, and deleted between them.
        on_bad_file: ``"stop"``: UserError; ``"skip"``: warn, leave the case out and remember it in
            ``skipped``.

    Attributes:
        cases: The usable cases, in the given order.
        skipped: ``{"case": name, "reason": message}`` of the others.

    Raises:
        UserError: A file cannot be used (or with "skip" none can), or the disk cache has no place.
    """

    def __init__(
        self,
        cases: Collection[Case],
        preprocessing: Preprocessing,
        *,
        num_classes: int | None = None,
        cache: str = "auto",
        cache_dir: Path | None = None,
        on_bad_file: str = "stop",
    ) -> None:
        self.preprocessing = preprocessing
        self.num_classes = num_classes
        self.skipped: list[dict[str, str]] = []
        self._skip = on_bad_file == "skip"
        options = {"preprocessing": preprocessing, "num_classes": num_classes}
        check = functools.partial(_or_error, functools.partial(check_case, **options))
        shapes = self._keep_good(cases, map(check, cases), max_errors=MAX_REPORTED)
        folder = _cache_folder(cache, cache_dir, _num_bytes(shapes.values(), num_classes))
        load = functools.partial(_or_error, functools.partial(_load, **options, folder=folder))
        try:
            with contextlib.closing(map_in_threads(load, shapes, "reading scans")) as loaded:
                self._entries = self._keep_good(shapes, loaded, max_errors=1)
        finally:
            archives.release()  # the store holds the scans now
        self.cases = list(self._entries)

    def check_contrast(self) -> None:
        """Warn of scans in which little is left to see after scaling; looks at a few of them.

        Raises:
            UserError: Nothing is left to see in any of them.
        """
        flat, clipped = [], []
        seen = range(0, len(self.cases), max(1, len(self.cases) // NUM_LOOKED_AT))
        for index in seen:
            image = self.image(index)[(slice(None, None, 2),) * self.preprocessing.rank]
            low, high = np.percentile(image, (1, 99))
            if high - low < LEAST_CONTRAST:
                flat.append(self.cases[index].name)
            if np.mean((image <= 0) | (image >= 1)) > 0.5:
                clipped.append(self.cases[index].name)
        keys = "intensity_window" if self.preprocessing.intensity_window else "intensity_scaling"
        if len(flat) == len(seen):
            raise UserError(
                f"{keys}: nothing is left to see in {flat[0]}, nor in any other of the {len(seen)} scans looked at: "
                f"98 % of the voxels lie within {LEAST_CONTRAST:.0%} of the range after scaling. Give a window in the "
                "units of the files."
            )
        if flat:
            logging.warning("%s: little is left to see in %s after scaling; check these files", keys, ", ".join(flat))
        if clipped and self.preprocessing.intensity_window:
            logging.warning(
                "intensity_window: clips more than half of %d of %d scans looked at, such as %s",
                len(clipped),
                len(seen),
                clipped[0],
            )

    def skip(self, case: Case, reason: str) -> None:
        """Warn that a case is left out, and remember it in ``skipped``."""
        logging.warning("Skipped %s: %s", case.name, reason)
        self.skipped.append({"case": case.name, "reason": reason})

    def _keep_good(self, cases: Collection[Case], results: Iterable[Any], *, max_errors: int) -> dict[Case, Any]:
        """Return the results that are no errors; with "stop", raise the first ``max_errors`` errors."""
        good, errors = {}, []
        for case, result in zip(cases, results, strict=True):
            if not isinstance(result, UserError):
                good[case] = result
                continue
            errors.append(str(result))
            if self._skip:
                self.skip(case, str(result))
            elif len(errors) == max_errors:
                break
        if errors and not self._skip:
            raise UserError("\n".join(errors))
        if not good:
            raise UserError("\n".join([f"None of {len(cases)} scans can be used.", *errors[:MAX_REPORTED]]))
        return good

    def __len__(self) -> int:
        """Return the number of usable cases."""
        return len(self.cases)

    def subset(self, cases: Iterable[Case]) -> VolumeStore:
        """Return a store of some of the cases that shares the arrays; skipped cases stay out.

        Raises:
            UserError: None of the cases is usable.
        """
        view = copy.copy(self)
        view.cases = [case for case in cases if case in self._entries]
        if not view.cases:
            raise UserError("None of the scans of this part of the split can be used. See the warnings above.")
        return view

    def shape(self, index: int) -> tuple[int, ...]:
        """Return ``(*spatial, channels)`` of a preprocessed image."""
        return self._entry(index).shape

    def image(self, index: int) -> np.ndarray:
        """Return a preprocessed image ``(*spatial, channels)``, float32. Shared: do not write to it."""
        return disk.open_array(self._entry(index).arrays[0])

    def mask(self, index: int) -> np.ndarray:
        """Return a preprocessed mask ``(*spatial)``, uint8. Shared: do not write to it."""
        return disk.open_array(self._entry(index).arrays[1])

    def content(self, index: int) -> list[str]:
        """Return a hash of each channel of the scan as it was read, see `content.hash_channels`."""
        return content.as_text(self._entry(index).content)

    def foreground_voxel(self, index: int, position: float) -> np.ndarray | None:
        """Return a voxel ``(rank,)`` with a label above 0, chosen by ``position`` in [0, 1), or None.

        Each class of the mask is as likely as the others, however many voxels it has, see `Foreground.at`.
        """
        entry = self._entry(index)
        flat = None if entry.foreground is None else entry.foreground.at(position)
        return None if flat is None else np.array(np.unravel_index(flat, entry.shape[:-1]))

    def _entry(self, index: int) -> _Entry:
        return self._entries[self.cases[index]]


def check_case(case: Case, preprocessing: Preprocessing, num_classes: int | None) -> tuple[int, ...]:
    """Check the headers of a case and return the shape that its image will have.

    Raises:
        UserError: Rank, channels, shape or grids are wrong, or the mask is missing.
    """
    headers = [read_header(path, preprocessing.rank) for path in case.images]
    masks = []
    if num_classes is not None:
        if case.mask is None:
            raise UserError(f"{case.image}: has no mask, but masks are needed here.")
        if any(case.mask.exists() and path.exists() and case.mask.samefile(path) for path in case.images):
            raise UserError(f"{case.mask}: is the scan itself, expected its mask. Check label_dir_train.")
        masks = [read_mask_header(case.mask, preprocessing.rank)]
    for header in (*headers[1:], *masks):
        check_same_grid(headers[0], header)
    channels = sum(header.shape[-1] for header in headers)
    return preprocessing.fitted_shape((*headers[0].shape[:-1], channels), case.image)


def _or_error(function: Callable[[Case], Any], case: Case) -> Any:
    """Return what a function makes of a case, or its UserError: one bad file must not end the loop over all of them."""
    try:
        return function(case)
    except UserError as error:
        return error


def _load(case: Case, preprocessing: Preprocessing, num_classes: int | None, folder: Path | None) -> _Entry:
    def decode() -> list[np.ndarray]:
        volume = read_channels(case.images, preprocessing.rank)
        hashes = content.hash_channels(volume)
        image, box = preprocessing.prepare(volume)
        if num_classes is None:
            return [hashes, image]
        return [hashes, image, preprocessing.mask(read_mask(case.mask, preprocessing.rank), num_classes, box)]

    if folder is None:
        arrays = decode()
    else:
        kinds = ["content", "image"] if num_classes is None else ["content", "image", "mask"]
        name = f"{case.name}-{disk.fingerprint(case, preprocessing, num_classes)}"
        arrays = disk.keep([folder / f"{name}.{kind}.npy" for kind in kinds], decode)
    hashes, image, *masks = map(disk.open_array, arrays)
    return _Entry(image.shape, arrays[1:], Foreground.of(masks[0]) if masks else None, np.array(hashes))


def _num_bytes(shapes: Iterable[tuple[int, ...]], num_classes: int | None) -> int:
    masks = num_classes is not None
    return sum(4 * int(np.prod(shape)) + masks * int(np.prod(shape[:-1])) for shape in shapes)


def _cache_folder(cache: str, cache_dir: Path | None, num_bytes: int) -> Path | None:
    """Return the folder of a disk cache, or None for memory."""
    if cache == "memory" or (cache == "auto" and num_bytes <= MEMORY_LIMIT):
        return None
    if cache_dir is None:
        raise UserError(
            f"cache: the decoded scans need {num_bytes / 2**30:.1f} GiB, the limit for memory is "
            f"{MEMORY_LIMIT / 2**30:.1f} GiB, and no cache_dir is given for the disk. Set cache_dir, or set "
            'cache to "memory".'
        )
    disk.check_space(Path(cache_dir), num_bytes)
    return Path(cache_dir)
