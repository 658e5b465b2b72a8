"""The voxels of each scan that crops are centred on, found once for a cohort and kept on disk."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.formats import read_header
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.data.store.bad_files import MAX_REPORTED
from self_supervised_3d_tasks.data.store.threads import map_in_threads
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops.patches import FOREGROUND

Finder = Callable[[np.ndarray, Sequence[float]], np.ndarray]
"""``(image (*spatial, channels), spacing (rank,) in mm)`` to voxels ``(number, rank)``; its repr says all it does."""


def find(
    store: VolumeStore, finder: Finder, folder: Path, *, skip: bool = False
) -> tuple[VolumeStore, list[np.ndarray]]:
    """Find the centres in every scan of a store, in parallel and with progress.

    Args:
        store: Scans on the voxels of their files (``volume_fitting`` "crop" or "exact"), which tell the spacing.
        finder: Looks for them in one scan.
        folder: Folder of the cache, a file per scan. It may be shared by runs and processes, and deleted between them.
        skip: False: UserError for scans without any centre. True: warn, leave them out and remember them in
            ``store.skipped``.

    Returns:
        The store, or what is left of it; and for each of its cases the centres ``(number, rank)``, at least one.

    Raises:
        UserError: Scans have no centre (or with ``skip`` none has).
    """
    indices = {case: index for index, case in enumerate(store.cases)}  # a case may be listed twice
    look = functools.partial(_find_one, store, finder=finder, folder=folder)
    with contextlib.closing(map_in_threads(look, indices.values(), "finding supervoxels")) as voxels:
        found = dict(zip(indices, voxels, strict=True))
    bad = {case: _nothing_found(case, store.image(index)) for case, index in indices.items() if not len(found[case])}
    if bad and not skip:
        more = [f"{len(bad) - MAX_REPORTED} more scans have none."] if len(bad) > MAX_REPORTED else []
        raise UserError("\n".join([*list(bad.values())[:MAX_REPORTED], *more]))
    for case, reason in bad.items():
        store.skip(case, reason)
    if bad:
        store = store.subset([case for case in store.cases if case not in bad])
    return store, [found[case] for case in store.cases]


def _find_one(store: VolumeStore, index: int, *, finder: Finder, folder: Path) -> np.ndarray:
    """Return the centres of a scan, from the cache where it has them."""
    case, rank, shape = store.cases[index], store.preprocessing.rank, store.shape(index)[:-1]
    key = disk.fingerprint(case.images, store.preprocessing, finder)

    def is_valid(voxels: np.ndarray) -> bool:
        integers = voxels.ndim == 2 and voxels.shape[1] == rank and voxels.dtype.kind in "iu"
        return integers and bool(np.all((voxels >= 0) & (voxels < shape)))

    return disk.recall(
        folder / f"{case.name}-{key}.centres.npy",
        lambda: finder(store.image(index), read_header(case.image, rank).spacing),
        is_valid,
    )


def _nothing_found(case: Case, image: np.ndarray) -> str:
    share = np.mean((image > FOREGROUND).any(axis=-1))
    return (
        f"{case.image}: has no supervoxel to centre a crop on: in each, the share of voxels above {FOREGROUND} (of "
        f"intensities from 0 to 1) is below supervoxel_foreground; in the whole scan it is {share:.2%}. Reduce "
        "supervoxel_foreground, set intensity_window to the range of the tissue, remove the scan, or set on_bad_file "
        'to "skip".'
    )
