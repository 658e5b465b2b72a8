"""Scores in mm of a sweep: with the size of a voxel that the file of the scan says."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.downstream.segmentation import SegmentationTask
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder


def test_distances_are_in_mm_of_the_file(tmp_path, monkeypatch):
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[4:8, 4:8, 4:8] = 1
    for name, array in {"scan": mask.astype(np.float32), "mask": mask}.items():
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 1.0, 3.0, 1.0])), tmp_path / f"{name}.nii.gz")
    keys = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir_train": "-", "data_dim": 12, "num_classes": 2}
    (tmp_path / "sweep.json").write_text(
        json.dumps(keys | {"num_layers": 1, "epochs_initialized": 0, "scores": ["hd95", "nsd_3mm", "nsd_4mm"]})
    )
    task = SegmentationTask(load_experiment("finetune", tmp_path / "sweep.json"))
    answer = np.eye(2, dtype=np.float32)[np.roll(mask, 2, axis=0)][np.newaxis]
    monkeypatch.setattr(SegmentationTask, "predictor", lambda self, model: lambda batch: answer)
    case = Case("scan", tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", "scan")
    hd95, nsd_3mm, nsd_4mm = task.score(None, [case], task.read([case]), RunFolder(tmp_path))
    assert hd95 == ("scan", "hd95", 4.0)
    assert nsd_3mm.value < 1
    assert nsd_4mm.value == 1
