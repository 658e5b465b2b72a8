"""Seconds per scan that finding supervoxels takes on one core, against reading the same scan.

The scan is a .nii.gz file of a noisy ball of unequal parts; reading it is decoding, reorienting and normalising it.
Processor time of one thread; both in turn, medians.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks import isolated, table
from benchmarks.settings import Settings
from self_supervised_3d_tasks.data.formats import read_image
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.ops.supervoxels import PRESETS

TITLE = "Supervoxels"
TEXT = """\
TCPC centres its crops on supervoxels, which are found once per scan and kept in the cache. Processor time per scan on
one core; a scan is a `.nii.gz` file of a noisy ball, reading it is decoding, reorienting and normalising. The aim for
128³ is less than 3 s. A larger scan costs little more, since at most 64³ blocks of voxels are clustered. Supervoxels
of air have no centre."""
COLUMNS = ("voxels", "segments", "preset", "centres", "supervoxels s", "reading s", "supervoxels / reading")
SEGMENTS, REPEATS = 20, 3
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


def measure(side: int) -> list[dict[str, Any]]:
    """Return the row of each preset."""
    preprocessing, rows = Preprocessing((side,) * 3, 1, volume_fitting="crop"), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        nib.save(nib.Nifti1Image(phantom(side), np.diag([*SPACING, 1])), path)
        for name, preset in PRESETS.items():
            finder = dataclasses.replace(preset, num_segments=SEGMENTS)
            image = preprocessing.image(read_image(path, 3))
            centres = finder(image, SPACING)
            calls = functools.partial(finder, image, SPACING), lambda: preprocessing.image(read_image(path, 3))
            times = np.median([[seconds(call) for call in calls] for _ in range(REPEATS)], axis=0).tolist()
            values = (f"{side}³", SEGMENTS, name, len(centres), *times, times[0] / times[1])
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def section(settings: Settings) -> str:
    """Return the text and the table."""
    rows = [row for side in (128, 256) for row in isolated.call(measure, {"side": side}, {"OMP_NUM_THREADS": "1"})]
    return f"{TEXT}\n\n{table.markdown(COLUMNS, rows)}"
