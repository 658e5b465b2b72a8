"""How a case gets into a store: decoded into memory, or into files that are found again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.content import hash_channels
from self_supervised_3d_tasks.data.formats import read_channels, read_mask, stem_of
from self_supervised_3d_tasks.data.preparing.fitted_scan import FittedScan
from self_supervised_3d_tasks.data.preparing.placement import Placement
from self_supervised_3d_tasks.data.preparing.scaling import Contrast, IntensityRange
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.data.store.disk import DiskArray
from self_supervised_3d_tasks.data.store.foreground import Foreground


class Entry(NamedTuple):
    """A prepared case: arrays in memory, or the files that hold them.

    Attributes:
        scan: The scan.
        mask: ``(*spatial)`` uint8 on the grid of the image; None where masks are not read.
        foreground: What the mask shows; None without mask.
        mapped: The labels that the file of the mask has of those that ``label_map`` turns into classes.
    """

    scan: FittedScan
    mask: np.ndarray | DiskArray | None = None
    foreground: Foreground | None = None
    mapped: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays in memory, without the few voxels that are remembered of a mask."""
        return self.scan.array.nbytes + (0 if self.mask is None else self.mask.nbytes)


@dataclass(frozen=True)
class Loader:
    """Prepares cases.

    Args:
        preprocessing: What is done to each of them.
        num_classes: The masks are read, with labels below this; None: images only.
        folder: Where their files are kept; None: they are decoded into memory.
    """

    preprocessing: Preprocessing
    num_classes: int | None
    folder: Path | None = None

    def __call__(self, case: Case) -> Entry:
        """Return a case, from its files where they are there.

        Raises:
            UserError: A scan or a mask cannot be used.
        """
        if self.folder is None:
            return self.decode(case)
        found = self.find(case)
        if found is None:
            self.write(self.make(case)[1])
            found = self.find(case)
        if found is None:
            raise disk.DamagedFileError(f"{self.folder}: the files of {case.name} vanish as soon as they are written.")
        return found

    def make(self, case: Case) -> tuple[Entry, dict[Path, bytes]]:
        """Return a case, decoded as far as its files are not there, and the files that are missing, not yet written."""
        scan = self._find_scan(case)
        entry = self.decode(case, scan)
        return entry, self._pack(case, entry, with_scan=scan is None)

    def decode(self, case: Case, scan: FittedScan | None = None) -> Entry:
        """Return a case in memory; a scan that is given is not decoded again."""
        scan = scan or self._read(case)
        if self.num_classes is None:
            return Entry(scan)
        labels = read_mask(case.mask, self.preprocessing.rank)
        place = Placement(labels.array.shape, scan.box, scan.array.shape[:-1])
        mask = self.preprocessing.mask(labels, self.num_classes, place)
        mapped = tuple(label for label in self.preprocessing.label_map if np.any(labels.array == label))
        return Entry(scan, mask, Foreground.of(mask), mapped)

    def _read(self, case: Case) -> FittedScan:
        volume = read_channels(case.images, self.preprocessing.rank)
        return replace(self.preprocessing.fit(volume), content=tuple(hash_channels(volume)))

    def find(self, case: Case) -> Entry | None:
        """Return a case whose files are all there; no voxel is read."""
        scan = self._find_scan(case)
        if scan is None or self.num_classes is None:
            return None if scan is None else Entry(scan)
        mask, voxels = (disk.find(path) for path in self._mask_paths(case))
        if mask is None or voxels is None:
            return None
        flat, notes = voxels
        found = Foreground(flat, np.array(notes["borders"]), tuple(notes["classes"]))
        # Of files that were written before these were noted, nothing is said.
        return Entry(scan, mask[0], found, tuple(mask[1].get("mapped", self.preprocessing.label_map)))

    def renew(self, case: Case) -> Entry:
        """Make the files of a case again."""
        for path in [self._scan_path(case), *self._mask_paths(case)]:
            path.unlink(missing_ok=True)
        return self(case)

    @staticmethod
    def write(files: dict[Path, bytes]) -> None:
        """Write what `make` gave."""
        for path, content in files.items():
            disk.write(path, content)

    def _pack(self, case: Case, entry: Entry, *, with_scan: bool) -> dict[Path, bytes]:
        """Return the files of a case in memory and their contents, in the order in which they are written."""
        scan, rank, files = entry.scan, self.preprocessing.rank, {}
        if with_scan:
            box = [[side.start, side.stop] for side in scan.box]
            ranges = None if scan.intensities is None else [list(ends) for ends in scan.intensities]
            notes = {"box": box, "intensities": ranges, "content": list(scan.content)}
            notes |= {"contrast": None if scan.contrast is None else [list(values) for values in scan.contrast]}
            files[self._scan_path(case)] = disk.pack(scan.array, rank, notes)
        if entry.foreground is not None:
            flat, borders, classes = entry.foreground
            mask_path, voxels_path = self._mask_paths(case)
            files[voxels_path] = disk.pack(flat, 1, {"borders": borders.tolist(), "classes": list(classes)})
            files[mask_path] = disk.pack(entry.mask, rank, {"mapped": list(entry.mapped)})
        return files

    def _find_scan(self, case: Case) -> FittedScan | None:
        found = disk.find(self._scan_path(case))
        if found is None:
            return None
        array, notes = found
        box = tuple(slice(*ends) for ends in notes["box"])
        ranges = notes["intensities"]
        intensities = None if ranges is None else IntensityRange(*map(tuple, ranges))
        padding = self.preprocessing.padding(array.shape[:-1])
        contrast = notes.get("contrast")  # of files that were written before it was noted, nothing is said
        contrast = None if contrast is None else Contrast(*map(tuple, contrast))
        return FittedScan(array, box, padding, intensities, contrast, tuple(notes["content"]))

    def _scan_path(self, case: Case) -> Path:
        """Return the file of a scan, which is the same whatever else is done with the case."""
        key = disk.fingerprint(case.images, self.preprocessing.of_scans)
        return self.folder / f"{stem_of(case.image)}-{key}.image{disk.SUFFIX}"

    def _mask_paths(self, case: Case) -> list[Path]:
        """Return the files of a mask and of its voxels; none where masks are not read."""
        if self.num_classes is None:
            return []
        key = disk.fingerprint([*case.images, case.mask], self.preprocessing, self.num_classes)
        return [self.folder / f"{stem_of(case.mask)}-{key}.{kind}{disk.SUFFIX}" for kind in ("mask", "foreground")]
