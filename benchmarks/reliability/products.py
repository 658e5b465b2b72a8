"""Whether two runs made the same: weights, tables, masks and pictures, without what is a time or a place."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

TIMES = ("seconds", "samples_per_second", "wait_share")
UNFINISHED = "/.unfinished-"
CACHE = "cache/"  # its names hold where and when a scan was written; it is no product
OF_A_START = ("environment.json", "status.json", ".lock")  # differ between two starts of one run


def difference(one: Path, other: Path, *, but: str = "") -> str | None:
    """Return the first file in which two folders differ, or None; ``one`` is how it must be, ``but`` a file of both."""
    wanted, found = ({path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (one, other))
    unfinished = {name for name in found if UNFINISHED in f"/{name}"}
    wanted, found = (
        {name for name in names if not name.endswith(OF_A_START) and not name.startswith(CACHE)}
        for names in (wanted, found - unfinished)
    )
    if wanted != found:
        lacking, more = sorted(wanted - found), sorted(found - wanted)
        return f"wrong result: {f'{lacking[0]} is missing' if lacking else f'{more[0]} is too many'}"
    for name in sorted(name for name in wanted - {but} if (one / name).is_file()):
        try:
            same = _same(content(one / name), content(other / name))
        except Exception as error:  # whatever a half-written file does to its reader
            return f"wrong result: {name} cannot be read: {error}"
        if not same:
            return f"wrong result: {name} is another"
    return f"{min(unfinished)} is left behind" if unfinished else None


def damage(folder: Path) -> str | None:
    """Return the first file of an interrupted run that is half-written though it has its name, or None."""
    for path in sorted(folder.rglob("*")):
        if UNFINISHED in path.as_posix() or not path.is_file():
            continue
        sums = path.with_name(f"{path.name}.sha256")
        try:
            content(path)
            if sums.exists() and sums.read_text().split()[0] != hashlib.sha256(path.read_bytes()).hexdigest():
                return f"half-written: {path.relative_to(folder)} and its checksum"
        except Exception as error:  # whatever a half-written file does to its reader
            return f"half-written: {path.relative_to(folder)}: {error}"
    return None


def content(path: Path):
    """Return what is in a file, as something to compare."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return _arrays(io.BytesIO(archive.read("model.weights.h5")))
    if path.suffix == ".h5":
        return _arrays(path)
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return [np.asarray(image.dataobj), image.affine]
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        kept = [place for place, column in enumerate(rows[0]) if column not in TIMES]
        return [[row[place] for place in kept] for row in rows]
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    # The archives hold the time at which they were made.
    return None if path.suffix == ".sha256" else path.read_bytes()


def _arrays(file) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(file) as weights:
        weights.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return found


def _without_times(value):
    if isinstance(value, dict):
        kept = {
            key: item
            for key, item in value.items()
            if key not in (*TIMES, "sha256", "base_workspace", "model_checkpoint")
        }
        return {key: _without_times(item) for key, item in kept.items()}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return type(one) is type(other) and (one == other or one != one and other != other)
