"""Every scan of a run, decoded, checked and preprocessed once, then read as often as training likes."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.formats import archives, read_header, read_mask_header
from self_supervised_3d_tasks.data.preparing.placement import Placement
from self_supervised_3d_tasks.data.preparing.spacing import warn_of_grids
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import disk, filling
from self_supervised_3d_tasks.data.store.bad_files import MAX_REPORTED, BadFiles
from self_supervised_3d_tasks.data.store.entries import Entry, Loader
from self_supervised_3d_tasks.data.store.filling import OrError
from self_supervised_3d_tasks.data.volumes import Header, check_same_grid
from self_supervised_3d_tasks.errors import UserError

MAX_NAMED = 5  # scans in a warning
LEAST_CONTRAST = 0.05


class VolumeStore:
    """The preprocessed images, and masks, of some cases.

    Headers of all files are checked first, then every file is decoded once, with progress.

    Args:
        cases: The cases to read.
        preprocessing: What is done to every case.
        num_classes: The masks are read, with labels below this; None: images only.
        cache: ``"memory"``, ``"disk"`` (compressed files in ``cache_dir``, of which a crop reads its part), or
            ``"auto"``: memory up to `filling.MEMORY_LIMIT`.
        cache_dir: Folder of the disk cache. It may be shared by runs and processes, and deleted between them.
        on_bad_file: ``"stop"``: UserError; ``"skip"``: warn, leave the case out and remember it in
            ``skipped``.
        part: What messages call the cases: the part of a split that they are.

    Attributes:
        cases: The usable cases, in the given order.
        headers: Those of the scans that could be opened.

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
        part: str = "",
    ) -> None:
        self.preprocessing = preprocessing
        self.num_classes = num_classes
        self._bad = BadFiles(skip=on_bad_file == "skip", part=part)
        check = OrError(functools.partial(check_case, preprocessing=preprocessing, num_classes=num_classes))
        headers = self._bad.good(cases, map(check, cases), max_errors=MAX_REPORTED)
        self.headers = list(headers.values())
        warn_of_grids(self.headers, preprocessing)
        shapes = {case: preprocessing.fitted_shape(header) for case, header in headers.items()}
        folder = None if cache_dir is None else Path(cache_dir)
        try:
            plan = filling.plan(Loader(preprocessing, num_classes), shapes, cache, folder)
            self._loader = plan.loader
            with contextlib.closing(plan.entries(shapes)) as loaded:
                self._entries = self._bad.good(shapes, loaded, max_errors=1)
        finally:
            archives.release()  # the store holds the scans now
        self.cases = list(self._entries)

    def check_contrast(self) -> None:
        """Warn of scans, or channels of them, in which little is left to see after scaling.

        Raises:
            UserError: Nothing is left to see in any of them.
        """
        found = {case.name: self._entry(index).scan.contrast for index, case in enumerate(self.cases)}
        found = {name: contrast for name, contrast in found.items() if contrast is not None}
        flat, clipped = defaultdict(list), []
        for name, (spread, shares) in found.items():
            for channel, width in enumerate(spread):
                if width < LEAST_CONTRAST:
                    flat[channel].append(name)
            if max(shares) > 0.5:
                clipped.append(name)
        key = "intensity_window" if self.preprocessing.intensity_window else "intensity_scaling"
        number = max((len(contrast.spread) for contrast in found.values()), default=1)
        if found and all(len(flat[channel]) == len(found) for channel in range(number)):
            raise UserError(
                f"{key}: nothing is left to see in {next(iter(found))}, nor in any other of the {len(found)} scans: "
                f"98 % of the voxels lie within {LEAST_CONTRAST:.0%} of the range after scaling. Give a window in the "
                "units of the files."
            )
        for channel, names in sorted(flat.items()):
            if names:
                where = f"channel {channel} of " if number > 1 else ""
                more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
                named = ", ".join(names[:MAX_NAMED]) + more
                logging.warning("%s: little is left to see in %s%s after scaling; check these files", key, where, named)
        if clipped and self.preprocessing.intensity_window:
            text = "intensity_window: clips more than half of %d of %d scans, such as %s"
            logging.warning(text, len(clipped), len(found), clipped[0])

    @property
    def skipped(self) -> list[dict[str, str]]:
        """The cases that are left out, ``{"case": name, "reason": message}``."""
        return self._bad.skipped

    def skip(self, case: Case, reason: str) -> None:
        """Warn that a case is left out, and remember it in ``skipped``."""
        self._bad.skip_case(case, reason)

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
        return self._entry(index).scan.shape

    def padding(self, index: int) -> tuple[tuple[int, int], ...]:
        """Return the voxels of a preprocessed image before and after each axis that show nothing of the scan."""
        scan = self._entry(index).scan
        return scan.padding or ((0, 0),) * self.preprocessing.rank

    def placement(self, index: int, shape: tuple[int, ...]) -> Placement:
        """Return what an image shows of a scan whose own grid is ``(*shape)``."""
        scan = self._entry(index).scan
        return Placement(shape, scan.box, scan.array.shape[:-1])

    def image(self, index: int) -> np.ndarray:
        """Return a preprocessed image ``(*spatial, channels)``, float32. It may be shared: do not write to it."""
        return self._read(index, lambda entry: entry.scan.image())

    def crop(self, index: int, place: Sequence[slice]) -> np.ndarray:
        """Return a part of an image, ``image(index)[place]``, as a new array; nothing else is read.

        Args:
            index: Number of the case.
            place: One slice per spatial axis, with a start and a stop within the image.
        """
        return self._read(index, lambda entry: entry.scan.crop(place))

    def mask(self, index: int) -> np.ndarray:
        """Return a preprocessed mask ``(*spatial)``, uint8. It may be shared: do not write to it."""
        return self._read(index, lambda entry: entry.mask[:])

    def mask_crop(self, index: int, place: Sequence[slice]) -> np.ndarray:
        """Return a part of a mask, ``mask(index)[place]``, as a new array; nothing else is read."""
        return self._read(index, lambda entry: np.array(entry.mask[tuple(place)], order="C"))

    def classes(self, index: int) -> set[int]:
        """Return the classes that the mask of a case has, background included; no mask is read for it."""
        return set(self._entry(index).foreground.classes)

    def content(self, index: int) -> list[str]:
        """Return a hash of each channel of the scan as it was read, see `content.hash_channels`."""
        return list(self._entry(index).scan.content)

    def mapped(self, index: int) -> set[int]:
        """Return the labels in the file of a mask that ``label_map`` turned into classes."""
        return set(self._entry(index).mapped)

    def foreground_voxel(self, index: int, position: float) -> np.ndarray | None:
        """Return a voxel ``(rank,)`` with a label above 0, chosen by ``position`` in [0, 1), or None.

        Each class of the mask is as likely as the others, however many voxels it has, see `Foreground.at`.
        """
        if self._entry(index).foreground is None:
            return None
        flat = self._read(index, lambda entry: entry.foreground.at(position))
        return None if flat is None else np.array(np.unravel_index(flat, self.shape(index)[:-1]))

    def _entry(self, index: int) -> Entry:
        return self._entries[self.cases[index]]

    def _read(self, index: int, read: Callable[[Entry], Any]) -> Any:
        """Return what is read of a case, whose files are made again where they cannot be read."""
        try:
            return read(self._entry(index))
        except disk.DamagedFileError as error:
            logging.warning("%s; it is decoded again.", error)
            case = self.cases[index]
            self._entries[case] = self._loader.renew(case)
            return read(self._entries[case])


def check_case(case: Case, preprocessing: Preprocessing, num_classes: int | None) -> Header:
    """Check the headers of a case and return that of the scan, with all its channels.

    Raises:
        UserError: Rank, channels, shape or grids are wrong, the mask is missing, or the memory does not hold the scan.
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
    header = replace(headers[0], shape=(*headers[0].shape[:-1], channels))
    claims.check_memory(header.path, preprocessing.fitted_shape(header))
    return header
