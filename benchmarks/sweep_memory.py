"""Memory, threads and open files of a process that runs one tiny training of a sweep after the other.

    OMP_NUM_THREADS=1 python benchmarks/sweep_memory.py [--jobs 12] [--folder FOLDER]

Each job trains for one epoch on two scans of 8³ voxels and is scored on one, so that what grows from job to job is what
a job leaves behind, not what it works on. The first three jobs are left out: they load libraries and fill pools of
memory. Resident memory is read after each job. The table is Markdown; the files are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import sweep
from self_supervised_3d_tasks.finetuning.job import run_job

WARM_UP = 3  # jobs
EXPERIMENT = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dim": 8,
    "num_classes": 2,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "batch_size": 1,
    "exp_splits": [100],
    "epochs_initialized": 0,
    "epochs_frozen": 0,
    "epochs_random": 1,
    "tensorboard": False,
    "log_level": "ERROR",
}


def write_scans(folder: Path) -> None:
    """Write three labelled scans of a box in noise, and two to test on."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 3), ("test", 2)):
        for number in range(count):
            mask = np.zeros((8, 8, 8), np.uint8)
            mask[2:6, 1 + number : 6, 2:7] = 1
            image = (mask + rng.normal(0, 0.3, mask.shape)).astype(np.float32)
            for path, array in ((folder / name, image), (folder / f"{name}_labels", mask)):
                path.mkdir(exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.eye(4)), path / f"{name}{number}.nii.gz")


def measure(folder: Path, jobs: int) -> list[dict[str, float]]:
    """Train the jobs of a sweep in this process and return what it holds after each job.

    Args:
        folder: Empty folder for scans and run.
        jobs: Number of trainings.
    """
    write_scans(folder)
    settings = {"data_dir_train": str(folder / "train"), "data_dir_test": str(folder / "test"), "repetitions": jobs}
    path = folder / "experiment.json"
    path.write_text(json.dumps(EXPERIMENT | settings))
    plan, process, rows = sweep.plan(load_experiment("finetune", path)), psutil.Process(), []
    store = plan.task.read(plan.cases)
    for job in plan.jobs:
        run_job(plan.experiment, job, store, RunFolder(folder / "runs").job(job.name))
        rows.append(
            {
                "MiB": process.memory_info().rss / 2**20,
                "threads": process.num_threads(),
                "files": process.num_fds(),
                "processes": len(process.children(recursive=True)),
            }
        )
    return rows


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return what each number of `measure` grew by per job, warm-up left out."""
    first, last = rows[WARM_UP], rows[-1]
    return {name: (last[name] - first[name]) / (len(rows) - 1 - WARM_UP) for name in first}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=12, help=f"trainings of the sweep, more than {WARM_UP + 1}")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(Path(folder), options.jobs)
    grown = growth(rows)
    print("| | " + " | ".join(grown) + " |\n|" + " --- |" * (len(grown) + 1))
    for name, values in (("after job 4", rows[WARM_UP]), (f"after job {len(rows)}", rows[-1]), ("per job", grown)):
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values.values()) + " |")


if __name__ == "__main__":
    main()
