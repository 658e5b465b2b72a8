"""How much sooner a sweep of small trainings has ended with several workers, as a ratio measured in one run.

    python benchmarks/sweep_scaling.py [--jobs 8] [--epochs 60] [--side 32] [--workers 2] [--repeats 1]

The same sweep, scans of a box in noise and a U-Net, is run by ``finetune.py`` with one worker and with several, one
after the other and in turn, each process with one thread. Of each run: seconds in all, until the first training
begins, from there to the end of the last one, and after that; and the seconds of processor time of all its processes.
The ratio is that of the seconds in all; on as many idle cores as workers it shows what the imports in each worker and
the serial part in the leading process cost. The table is Markdown; the files are deleted at the end.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parents[1]
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
    subprocess.run([*command, "--set", f"run_name={name}"], cwd=folder, env=os.environ | THREADS, check=True)
    ended, now = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = folder / "runs" / name / "jobs"
    first = min(path.stat().st_mtime for path in jobs.glob("*/learning_rate.png"))  # drawn as a training begins
    last = max(path.stat().st_mtime for path in jobs.glob("*/scores.json"))
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    values = (workers, ended - began, first - began, last - first, ended - last, processor)
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    """Measure and print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, help="trainings of the sweep")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of a training")
    parser.add_argument("--side", type=int, default=32, help="voxels per axis of a scan")
    parser.add_argument("--workers", type=int, default=2, help="processes that are compared with one")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, of which the fastest counts")
    options = parser.parse_args()
    rows = {1: [], options.workers: []}
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scans(folder, options.side)
        keys = {"repetitions": options.jobs, "epochs_random": options.epochs, "data_dim": options.side}
        (folder / "sweep.json").write_text(json.dumps(EXPERIMENT | keys))
        for repeat in range(options.repeats):
            for workers, found in rows.items():
                found.append(measure(folder, "sweep.json", workers, f"{workers}_{repeat}"))
                print("| " + " | ".join(f"{value:.3g}" for value in found[-1].values()) + " |", flush=True)
    one, several = (min(row["seconds"] for row in found) for found in rows.values())
    print(f"\nratio {one / several:.2f}: {one:.1f} s with one worker, {several:.1f} s with {options.workers}")


if __name__ == "__main__":
    main()
