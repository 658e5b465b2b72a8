"""Size, speed and memory of the disk cache of a cohort that does not fit into memory.

    OMP_NUM_THREADS=1 python benchmarks/cohort.py [--scans 500] [--crops 300] [--folder FOLDER]

The scans are .nii.gz files of noisy ellipsoids, 256 × 256 × 120 voxels of int16. The cache is filled for a tenth of
them and then for all, each in a process of its own, which also draws crops of 64³ voxels: from the cache, and from the
whole files, in turn. Peak resident memory is that of this process and of the largest one that it started. The table
is Markdown; the files are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.data.formats import read_image
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore

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


def measure(folder: Path, count: int, crops: int) -> dict:
    """Return one row of the table for the first scans of a folder."""
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
    values = (count, *(f"{one:.2f}" for one in (*gib, size / as_float32, filling, speed, slow, speed / slow)))
    return dict(zip(COLUMNS, (*values, *(f"{peak:.0f}" for peak in peaks)), strict=True))


def main() -> None:
    """Write the cohort, measure each number of scans in a fresh process and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="scans of the whole cohort, 10 or more")
    parser.add_argument("--crops", type=int, default=300, help="crops drawn from the cache")
    parser.add_argument("--folder", type=Path, help="where the files are written, about 13 MB a scan")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.folder, options.row, options.crops)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        scans = Path(folder) / "scans"
        scans.mkdir()
        write_scans(scans, options.scans)
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
        for count in (options.scans // 10, options.scans):
            command = [sys.executable, __file__, "--folder", folder, "--crops", str(options.crops), "--row", str(count)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output.splitlines()[-1])
            print("| " + " | ".join(str(row[column]) for column in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
