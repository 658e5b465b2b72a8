"""Size, speed and memory of the disk cache of a cohort that does not fit into memory.

The scans are .nii.gz files of noisy ellipsoids, 256 × 256 × 120 voxels of int16, about 13 MB each with their cache. The
cache is filled for a tenth of them and then for all, each in a process of its own, which also draws crops of 64³
voxels: from the cache, and from the whole files, in turn. Peak resident memory is that of this process and of the
largest one that it started. The files are deleted at the end.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks import isolated, table
from benchmarks.settings import Settings
from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.data.formats import read_image
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore

TITLE = "Cohorts that do not fit into memory"
TEXT = """\
The disk cache against the float32 arrays of before and against the files themselves: `.nii.gz` scans of noisy
ellipsoids, 256 × 256 × 120 voxels of int16, crops of 64³. Seven minutes, so it is measured by name only: `python -m
benchmarks --subject cohort --output docs/benchmarks.md`.

* *cache / float32*: the aim is at most ½. Half of it is that int16 stays int16, the rest is compression, which the
  noise limits.
* *ratio*: crops from the cache against reading and scaling the whole file for each; the aim is at least 5.
* *peak*: resident memory of the process that fills the cache and draws crops, without TensorFlow; of its largest
  worker it is an upper bound, since a new process begins with the peak of the one that started it. It does not grow
  with the number of scans."""
SCANS, CROPS = 500, 300
SHAPE = (256, 256, 120)
CROP = (64, 64, 64)
WHOLE_FILES = 20  # crops that are drawn by reading the whole file
COLUMNS = (
    *("scans", ".nii.gz GiB", "float32 GiB", "cache GiB", "cache / float32", "filling s per scan"),
    *("crops/s", "crops/s of whole files", "ratio", "peak MiB", "peak MiB of a worker"),
)


def write_scans(folder: Path, count: int) -> None:
    """Write ellipsoids of smooth structures in air, with noise, as scanners store them."""
    rng = np.random.default_rng(0)
    tissue = ndimage.zoom(rng.normal(size=(16, 16, 8)), (16, 16, 15), order=1).astype(np.float32)
    axes = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in SHAPE)]
    inside = sum(axis**2 for axis in axes) < 0.8
    body = np.where(inside, 500 + 150 * tissue / tissue.std(), 0).astype(np.int16)
    noise = (20 * rng.standard_normal(SHAPE, np.float32)).astype(np.int16)
    for number in range(count):
        # Each scan is a shift of one body with a shift of one field of noise, which is quick to make.
        parts = (np.roll(part, rng.integers(-20, 20, 3), (0, 1, 2)) for part in (body, noise))
        scan = np.maximum(sum(parts), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(scan, np.eye(4)), folder / f"scan_{number:04d}.nii.gz")


def measure(folder: str, count: int, crops: int) -> dict[str, Any]:
    """Return one row of the table for the first scans below a folder, in which their cache lies too."""
    folder = Path(folder)
    preprocessing = Preprocessing(CROP, 1, intensity_scaling="percentiles", volume_fitting="crop")
    cases = find_cases("nifti", folder / "scans")[:count]
    cache = folder / "cache"
    there = len(list(cache.iterdir())) if cache.exists() else 0
    began = time.perf_counter()
    store = VolumeStore(cases, preprocessing, cache="disk", cache_dir=cache)
    filling = (time.perf_counter() - began) / (count - there)
    rng, seconds = np.random.default_rng(1), {"cache": [], "file": []}
    for number in range(crops):
        index = int(rng.integers(count))
        place = tuple(
            slice(first, first + edge)
            for first, edge in zip((rng.random(3) * (np.subtract(SHAPE, CROP) + 1)).astype(int), CROP, strict=True)
        )
        began = time.perf_counter()
        crop = store.crop(index, place)
        seconds["cache"].append(time.perf_counter() - began)
        if number % max(1, crops // WHOLE_FILES) == 0:
            began = time.perf_counter()
            same = preprocessing.image(read_image(cases[index].image, 3))[place]
            seconds["file"].append(time.perf_counter() - began)
            np.testing.assert_array_equal(crop, same)
    size = sum(path.stat().st_size for path in cache.iterdir())
    as_float32 = 4 * np.prod(SHAPE) * count
    speed, slow = (1 / np.mean(seconds[kind]) for kind in ("cache", "file"))
    peaks = [resource.getrusage(who).ru_maxrss / 2**10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    gib = [sum(case.image.stat().st_size for case in cases) / 2**30, as_float32 / 2**30, size / 2**30]
    values = (count, *map(float, (*gib, size / as_float32, filling, speed, slow, speed / slow, *peaks)))
    return dict(zip(COLUMNS, values, strict=True))


def section(settings: Settings) -> str:
    """Write the cohort and return the text and the table."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scans").mkdir()
        write_scans(Path(folder) / "scans", SCANS)
        sizes = [{"folder": folder, "count": count, "crops": CROPS} for count in (SCANS // 10, SCANS)]
        rows = [isolated.call(measure, size, {"OMP_NUM_THREADS": "1"}) for size in sizes]
    return f"{TEXT}\n\n{table.markdown(COLUMNS, rows)}"
