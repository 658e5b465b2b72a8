"""Memory, threads and open files of a process that runs one tiny training of a sweep after the other.

Each job trains for one epoch on two scans of 8³ voxels and is scored on one, so that what grows from job to job is what
a job leaves behind, not what it works on. The first three jobs are left out: they load libraries and fill pools of
memory. Resident memory is read after each job; the files are deleted at the end.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from benchmarks import isolated, table
from benchmarks.settings import Settings
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import sweep
from self_supervised_3d_tasks.finetuning.job import run_job

TITLE = "Memory of a sweep"
JOBS = 12
WARM_UP = 3  # jobs
TEXT = """\
Resident memory, threads and open files of a process that runs one tiny training after the other, scans of 8³ voxels,
so that what grows is what a training leaves behind. The aim is less than 5 MiB per job. Before the graphs of a
training were freed with it, a process grew by 26.88 MiB per job: Keras' optimizers give every traced training step a
gradient of its own (`CustomGradient-…`), which TensorFlow keeps for as long as the process lives, and with it the
whole graph of the step."""
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


def measure(jobs: int) -> list[dict[str, float]]:
    """Train the jobs of a sweep in this process and return what it holds after each job."""
    process, rows = psutil.Process(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scans(folder)
        settings = {"data_dir_train": str(folder / "train"), "data_dir_test": str(folder / "test"), "repetitions": jobs}
        path = folder / "experiment.json"
        path.write_text(json.dumps(EXPERIMENT | settings))
        plan = sweep.plan(load_experiment("finetune", path))
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


def section(settings: Settings) -> str:
    """Return the text and the table."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    rows = isolated.call(measure, {"jobs": JOBS}, one_thread)
    shown = {f"after job {WARM_UP + 1}": rows[WARM_UP], f"after job {JOBS}": rows[-1], "per job": growth(rows)}
    return f"{TEXT}\n\n{table.markdown(('', *rows[0]), ({'': name} | row for name, row in shown.items()))}"
