"""Run folders of finetunings whose models have never been trained."""

from __future__ import annotations

import json
import shutil

import pytest

from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.json_files import write_json
from self_supervised_3d_tasks.files.models import save_model

EXPERIMENT = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dir_train": "scans",
    "data_dim": 16,
    "num_classes": 2,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "epochs_initialized": 0,
    "epochs_frozen": 0,
}
# Validation loss of each job; None is a job that has not finished.
JOBS = {"050_random_0": 0.1, "100_frozen_0": 0.5, "100_initialized_1": 0.3, "100_random_0": None}


@pytest.fixture(scope="session")
def write_run():
    """Write a run folder into a folder, with a model per job; a seed per job where they are to differ."""

    def write(folder, *, seeds=None, jobs=JOBS, **keys):
        folder.mkdir(exist_ok=True)
        (folder / "experiment.json").write_text(json.dumps(EXPERIMENT | keys))
        experiment = load_experiment("finetune", folder / "experiment.json")
        write_json(folder / "config.json", experiment.model_dump(mode="json"))
        for name, loss in jobs.items():
            job = folder / "jobs" / name
            job.mkdir(parents=True)
            if loss is not None:
                seed = (seeds or {}).get(name, 3)
                kept = folder / f"{seed}.keras"
                if not kept.exists():
                    save_model(build.make_model(experiment, seed=seed)[1], kept)
                shutil.copy(kept, job / "model.keras")
                write_json(job / "scores.json", {"best_val_loss": loss, "scores": []})
        return folder

    return write
