"""How much sooner a sweep of small trainings has ended with two workers than with one, measured in one run.

The same sweep, scans of a box in noise and a U-Net, is run by ``finetune.py`` with one worker and with two, one after
the other, each process with one thread. The files are deleted at the end.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks import table
from benchmarks.isolated import ROOT, Failed
from benchmarks.settings import Settings

TITLE = "A sweep with one worker and with two"
JOBS, EPOCHS, SIDE = 8, 60, 32
TEXT = f"""\
`finetune.py` on a sweep of {JOBS} small trainings of {EPOCHS} epochs on volumes of {SIDE}³, with `"workers": 1` and
with `"workers": 2`, one thread per process. The aim is a ratio of 1.7.

* *seconds*: of the whole command; *before*: until the first training begins; *trainings*: from there to the last score;
  *after*: tables and pictures.
* *processor s*: of all its processes. It grows where two cores share what one of them had alone."""
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
COLUMNS = ("workers", "seconds", "before", "trainings", "after", "processor s")
EXPERIMENT = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dir_train": "train",
    "num_classes": 2,
    "enc_filters": 8,
    "num_layers": 2,
    "pooling": "none",
    "batch_size": 2,
    "exp_splits": [100],
    "epochs_initialized": 0,
    "epochs_frozen": 0,
    "val_split": 0.25,
    "test_split": 0.25,
    "tensorboard": False,
    "log_level": "ERROR",
}


def write_scans(folder: Path, side: int) -> None:
    """Write eight labelled scans of a box in noise."""
    rng = np.random.default_rng(0)
    for number in range(8):
        mask = np.zeros((side,) * 3, np.uint8)
        mask[tuple(slice(first, first + side // 3) for first in rng.integers(0, side // 2, 3))] = 1
        image = (mask + rng.normal(0, 0.3, mask.shape)).astype(np.float32)
        for name, array in (("train", image), ("train_labels", mask)):
            (folder / name).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / name / f"case{number}.nii.gz")


def measure(folder: Path, file: str, workers: int, name: str) -> dict[str, float]:
    """Run the sweep once and return a row of the table."""
    command = [sys.executable, str(ROOT / "finetune.py"), file, "--set", f"workers={workers}"]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    command += ["--set", f"run_name={name}"]
    done = subprocess.run(command, cwd=folder, env=os.environ | THREADS, capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr[-300:])
    ended, now = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = folder / "runs" / name / "jobs"
    first = min(path.stat().st_mtime for path in jobs.glob("*/learning_rate.png"))  # drawn as a training begins
    last = max(path.stat().st_mtime for path in jobs.glob("*/scores.json"))
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    values = (workers, ended - began, first - began, last - first, ended - last, processor)
    return dict(zip(COLUMNS, values, strict=True))


def section(settings: Settings) -> str:
    """Return the text, the table and the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scans(folder, SIDE)
        keys = {"repetitions": JOBS, "epochs_random": EPOCHS, "data_dim": SIDE}
        (folder / "sweep.json").write_text(json.dumps(EXPERIMENT | keys))
        rows = [measure(folder, "sweep.json", workers, f"{workers}_workers") for workers in (1, 2)]
    one, two = (row["seconds"] for row in rows)
    return f"{TEXT}\n\n{table.markdown(COLUMNS, rows)}\n\nThe ratio is {one / two:.2f}."
