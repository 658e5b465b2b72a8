"""What a pretraining of many files takes before its first step."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import isolated, machine, table
from benchmarks.settings import Settings
from benchmarks.timing import per_call

TITLE = "Growth with the number of files"
COLUMNS = ("files", "number", "plan s", "ms per file", "first batch s", "ms per file read", "peak GiB", "KiB per file")
SIDE = 16
TEXT = f"""\
Files of {SIDE}³ voxels of int16. *plan*: listing and splitting, as `python train.py FILE.json --dry_run` begins.
*first batch*: the headers of all files are checked, all are decoded and kept, and four are drawn. *KiB per file*: the
peak above that of the smallest number, of which a decoded file is {SIDE**3 * 4 / 1024:.0f} KiB as float32."""


def write(folder: Path, kind: str, number: int) -> None:
    """Write tiny scans as ``.npy`` or ``.nii.gz`` files."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    for index in range(number):
        scan = rng.integers(0, 1000, (SIDE,) * 3, np.int16)
        path = folder / f"subject{index:05d}.{kind}"
        np.save(path, scan) if kind == "npy" else nib.save(nib.Nifti1Image(scan, np.eye(4)), path)


def measure(kind: str, number: int) -> dict[str, Any]:
    """Return one row of the table."""
    import tensorflow  # noqa: F401 - its loading is no part of a reading

    from self_supervised_3d_tasks.experiment.load import load_experiment
    from self_supervised_3d_tasks.pretraining import plan as plans
    from self_supervised_3d_tasks.pretraining.scans import read_scans

    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        scans.mkdir()
        write(scans, kind, number)
        experiment = {"algorithm": "rotation", "dataset_name": {"npy": "npy", "nii.gz": "nifti"}[kind]}
        experiment |= {"data_dir": str(scans), "data_dim": SIDE, "num_layers": 1, "batch_size": 4}
        path = Path(folder) / "experiment.json"
        path.write_text(json.dumps(experiment | {"number_channels": 1}))
        found: list[Any] = []
        planning = per_call(lambda: found.append(plans.plan(load_experiment("train", path))))
        (plan,) = found

        def first_batch() -> None:
            read = read_scans(plan.experiment, plan.algorithm, plan.train)
            next(iter(read.batches(plan.scans_per_step, training=True)))

        reading = per_call(first_batch)
    return {
        "files": f".{kind}",
        "number": number,
        "plan s": planning,
        "ms per file": 1000 * planning / number,
        "first batch s": reading,
        "ms per file read": 1000 * reading / len(plan.train),
        "peak GiB": machine.peak_gib(),
    }


def section(settings: Settings) -> str:
    """Return the text and the table."""
    least: dict[str, dict[str, Any]] = {}

    def fill(row: dict[str, Any]) -> None:
        kind, number = row["files"].removeprefix("."), row["number"]
        row.update(isolated.call(measure, {"kind": kind, "number": number}, {"CUDA_VISIBLE_DEVICES": ""}))
        first = least.setdefault(kind, row)
        if row is not first:
            more = row["peak GiB"] - first["peak GiB"]
            row["KiB per file"] = more * 2**20 / (number - first["number"])

    parts = (
        (f"{number} {kind}", {"files": f".{kind}", "number": number}, fill)
        for kind in ("npy", "nii.gz")
        for number in settings.numbers_of_files
    )
    return table.section(TEXT, COLUMNS, *table.measured(settings, COLUMNS, parts))
