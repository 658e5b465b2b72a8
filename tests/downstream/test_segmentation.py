"""Which classes the masks of a sweep hold: what is averaged, and what its tables and warnings say."""

import json

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.finetuning.plan import plan

SETTINGS = {
    **{"algorithm": "rotation", "dataset_name": "nifti", "data_dim": 16, "enc_filters": 2, "num_layers": 1},
    **{
        "epochs_initialized": 0,
        "epochs_frozen": 0,
        "epochs_random": 1,
        "exp_splits": [100],
        "repetitions": 1,
        "pooling": "none",
    },
}


@pytest.fixture
def sweep(tmp_path, write_scans):
    """Function from more keys to a plan over ten scans whose masks have class 1."""

    def make(**keys):
        if not (tmp_path / "scans").exists():
            write_scans(tmp_path / "scans", 10)
        file = tmp_path / "sweep.json"
        file.write_text(json.dumps(SETTINGS | {"data_dir_train": str(tmp_path / "scans")} | keys))
        return plan(load_experiment("finetune", file))

    return make


def put_class(case, label):
    mask = np.asarray(nib.load(case.mask).dataobj).copy()
    mask[0, 0, :] = label
    nib.save(nib.Nifti1Image(mask, np.eye(4)), case.mask)


def test_classes_of_the_test_masks(sweep):
    planned = sweep(num_classes=5)
    assert planned.task.occurring(planned.test) == [1]
    assert planned.task.notes(planned.test) == ["in no test mask: class 2, 3, 4"]
    put_class(planned.test[1], 3)
    assert planned.task.occurring(planned.test) == [1, 3]
    assert planned.task.notes(planned.test) == ["in no test mask: class 2, 4"]
    assert sweep(num_classes=5, label_map={"3": 2, "1": 2}).task.occurring(planned.test) == [2]
    assert sweep(num_classes=3, label_map={"3": 2}).task.notes(planned.test) == []
