"""Where the prepared scans of a store are kept, what that takes, and how they get there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.data.store import disk, processes
from self_supervised_3d_tasks.data.store.entries import Entry, Loader
from self_supervised_3d_tasks.data.store.threads import map_in_threads
from self_supervised_3d_tasks.errors import UserError

MEMORY_LIMIT = 4 * 2**30  # bytes
NUM_MEASURED = 4  # scans that are decoded to see what the others take
PROCESSES_FROM = 20.0  # seconds of work: starting processes takes two or three
_GIB = 2**30

Shapes = Mapping[Case, tuple[int, ...]]
"""``(*spatial, channels)`` of the image of each case."""


class _Needs(NamedTuple):
    """What cases take: bytes in memory, bytes on the disk, and seconds of one process."""

    memory: float
    disk: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Filling:
    """What is left to do for a store.

    Args:
        loader: Prepares a case.
        found: The cases that are on the disk already.
        seconds: Expected work on all others, in one process; None: not known, as for memory.
    """

    loader: Loader
    found: Mapping[Case, Entry] = dataclasses.field(default_factory=dict)
    seconds: float | None = None

    def entries(self, cases: Shapes) -> Iterator[Entry | UserError]:
        """Yield every case in turn, or why it cannot be used.

        Raises:
            UserError: The disk is full.
        """
        missing = [case for case in cases if case not in self.found]
        with self._done(missing) as rest:
            for case in cases:
                yield self.found.get(case) or next(rest)

    @contextlib.contextmanager
    def _done(self, cases: list[Case]) -> Iterator[Iterator[Any]]:
        in_processes = _in_processes(cases, self.seconds)
        mapped = (processes.map_in_processes if in_processes else map_in_threads)(
            OrError(self.loader), cases, "reading scans"
        )
        try:
            with contextlib.closing(mapped):
                yield mapped
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"{self.loader.folder}: the disk is full. What was decoded is kept: free some space and start again, "
                "or choose another cache_dir."
            ) from error


@dataclasses.dataclass(frozen=True)
class OrError:
    """Gives a function's UserError as its result: one bad file must not end the loop over all of them."""

    function: Callable[[Case], Any]

    def __call__(self, case: Case) -> Any:
        """Return what the function makes of a case, or its error."""
        try:
            return self.function(case)
        except UserError as error:
            return error


def plan(loader: Loader, shapes: Shapes, cache: str, folder: Path | None) -> Filling:
    """Choose where cases are kept, and say before hours of decoding what a disk cache takes.

    Args:
        loader: Decodes a case.
        shapes: The cases.
        cache: ``"memory"``, ``"disk"``, or ``"auto"``: memory up to `MEMORY_LIMIT`.
        folder: Folder of a disk cache.

    Raises:
        UserError: The cases have no place, neither in memory nor on the disk.
    """
    at_most = sum(_num_voxels(shape) * np.dtype(np.float32).itemsize for shape in shapes.values())
    if loader.num_classes is not None:
        at_most += sum(_num_voxels(shape[:-1]) for shape in shapes.values())
    at_least, there = at_most / 4, machine.memory_bytes()  # integers of one byte stay so
    if cache == "memory" and at_least > there:
        raise UserError(
            f'cache: "memory", but the decoded scans take {at_least / _GIB:.1f} GiB or more, and there are '
            f'{there / _GIB:.1f} GiB. Set cache to "auto" or "disk".'
        )
    if cache == "memory" or (cache == "auto" and at_most <= MEMORY_LIMIT):
        return Filling(loader)
    kept = dataclasses.replace(loader, folder=folder)
    found = {} if folder is None else {case: entry for case in shapes if (entry := kept.find(case)) is not None}
    missing = {case: shape for case, shape in shapes.items() if case not in found}
    needs, files = _measure(kept, missing)
    in_memory = sum(entry.nbytes for entry in found.values()) + needs.memory
    if cache == "auto" and in_memory <= MEMORY_LIMIT:
        return Filling(loader)
    if folder is None:
        raise UserError(
            f"cache: the decoded scans need {in_memory / _GIB:.1f} GiB, the limit for memory is "
            f"{MEMORY_LIMIT / _GIB:.1f} GiB, and no cache_dir is given for the disk. Set cache_dir, or set "
            'cache to "memory".'
        )
    if missing:
        _announce(folder, len(found), missing, needs)
        kept.write(files)
    return Filling(kept, found, needs.seconds)


def _measure(loader: Loader, shapes: Shapes) -> tuple[_Needs, dict[Path, bytes]]:
    """Return what cases take, judged by a few of them, and the files of these, not yet written."""
    cases, files, measured, voxels = list(shapes), {}, [], 0
    began = time.perf_counter()
    for number in np.unique(np.linspace(0, len(cases) - 1, NUM_MEASURED).astype(int)) if cases else ():
        case = cases[number]
        with contextlib.suppress(UserError):  # raised again in its turn
            entry, packed = (loader.decode(case), {}) if loader.folder is None else loader.make(case)
            measured.append((entry.nbytes, sum(map(len, packed.values()))))
            voxels += _num_voxels(shapes[case])
            files |= packed
    if not measured:
        return _Needs(0, 0, 0), {}
    seconds = (time.perf_counter() - began) / voxels
    memory, on_disk = np.sum(measured, axis=0) / voxels
    everything = sum(map(_num_voxels, shapes.values()))
    return _Needs(everything * memory, everything * on_disk, everything * seconds), files


def _announce(folder: Path, num_found: int, missing: Shapes, needs: _Needs) -> None:
    """Say what a disk cache takes.

    Raises:
        UserError: The disk does not have so much.
    """
    free, number = disk.free_bytes(folder), len(missing)
    there = f" ({num_found} more are there already)" if num_found else ""
    if needs.disk > free:
        raise UserError(
            f"{folder}: the decoded scans need {needs.disk / _GIB:.1f} GiB for {number} scans{there}, "
            f"{free / _GIB:.1f} GiB are free. Choose another cache_dir or free some space."
        )
    workers = processes.count() if _in_processes(list(missing), needs.seconds) else 1
    logging.info(
        "%s: decoding %d scans%s takes about %.1f GiB (%.1f GiB are free) and about %s",
        *(folder, number, there, needs.disk / _GIB, free / _GIB, _duration(needs.seconds / workers)),
    )


def _in_processes(cases: list[Case], seconds: float | None) -> bool:
    """Return whether a disk cache is filled by processes; each would decompress the whole of an archive."""
    worth_it = seconds is not None and seconds >= PROCESSES_FROM and processes.count() > 1
    return worth_it and not any(archives.is_scan(case.image) for case in cases)


def _num_voxels(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
