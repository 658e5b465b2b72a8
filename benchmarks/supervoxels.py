"""Seconds per scan that finding supervoxels takes on one core, against reading the same scan.

    OMP_NUM_THREADS=1 python benchmarks/supervoxels.py [--side 128] [--segments 20] [--repeats 5]

The scan is a .nii.gz file of a noisy ball of unequal parts; reading it is decoding, reorienting and normalising it.
Processor time of one thread; both in turn, the medians as a Markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from self_supervised_3d_tasks.data.formats import read_image
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.ops.supervoxels import PRESETS

COLUMNS = ("voxels", "segments", "preset", "centres", "supervoxels s", "reading s", "supervoxels / reading")
SPACING = (1.0, 1.0, 2.0)


def phantom(side: int) -> np.ndarray:
    """Return a ball of smooth structures in air, with noise, as scanners store it: ``(side, side, side)`` int16."""
    rng = np.random.default_rng(0)
    tissue = ndimage.gaussian_filter(rng.normal(size=(side,) * 3), side / 16)
    radius = np.linalg.norm(np.indices((side,) * 3) - (side - 1) / 2, axis=0)
    image = np.where(radius < 0.45 * side, 500 + 150 * tissue / tissue.std(), 0)
    return np.clip(image + 20 * rng.normal(size=image.shape), 0, None).astype(np.int16)


def seconds(function) -> float:
    """Return the processor time of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def main() -> None:
    """Measure each preset and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128, help="voxels per axis of the scan")
    parser.add_argument("--segments", type=int, default=20, help="supervoxels asked for")
    parser.add_argument("--repeats", type=int, default=5, help="calls timed per preset")
    options = parser.parse_args()
    preprocessing = Preprocessing((options.side,) * 3, 1, volume_fitting="crop")
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        nib.save(nib.Nifti1Image(phantom(options.side), np.diag([*SPACING, 1])), path)
        for name, preset in PRESETS.items():
            finder = dataclasses.replace(preset, num_segments=options.segments)
            image = preprocessing.image(read_image(path, 3))
            centres = finder(image, SPACING)
            calls = functools.partial(finder, image, SPACING), lambda: preprocessing.image(read_image(path, 3))
            times = np.median([[seconds(call) for call in calls] for _ in range(options.repeats)], axis=0)
            ratio = times[0] / times[1]
            row = (f"{options.side}³", options.segments, name, len(centres), *(f"{one:.2f}" for one in (*times, ratio)))
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
