"""Which classes the masks of a sweep hold: what is averaged, and what its tables and warnings say."""

import json

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.finetuning import execution
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep

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
        paths = {"data_dir_train": str(tmp_path / "scans"), "base_workspace": str(tmp_path / "runs")}
        file.write_text(json.dumps(SETTINGS | paths | keys))
        return finetune_sweep.plan(load_experiment("finetune", file))

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


def test_each_test_mask_is_read_once_for_its_classes(sweep, monkeypatch):
    planned, read, names = sweep(num_classes=3), formats.read_mask, []
    monkeypatch.setattr(formats, "read_mask", lambda path, rank: names.append(path.name) or read(path, rank))
    for _ in range(3):
        assert sweep(num_classes=3).task.occurring(planned.test) == [1]
    assert sorted(names) == sorted(case.mask.name for case in planned.test)
    put_class(planned.test[0], 2)
    assert planned.task.occurring(planned.test) == [1, 2]
    assert names[len(planned.test) :] == [planned.test[0].mask.name]


def test_what_masks_do_not_hold_is_said_before_training(sweep, caplog, monkeypatch):
    trained = []
    monkeypatch.setattr(execution, "train", lambda plan, folder, store, jobs: trained.extend(jobs) or {})

    def warnings(**keys):
        caplog.clear()
        planned = sweep(**keys)
        finetune_sweep.run(planned, experiment_run.claim(planned.experiment, resume=False))
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert warnings(num_classes=2) == []
    (absent,) = warnings(num_classes=3)
    assert absent.startswith("num_classes: 3, but none of the 7 training scans has class 2")
    (alike,) = warnings(num_classes=2, exp_splits=[100, 20, 10])
    assert alike.startswith("exp_splits: 20% and 10% train on the same 1 scan(s)")
    (case,) = sweep(exp_splits=[10]).jobs[0].split.train
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 16), np.uint8), np.eye(4)), case.mask)
    empty, single = warnings(num_classes=2, exp_splits=[100, 10])
    assert empty == f"1 of 8 masks hold no foreground, such as that of {case.name}"
    assert single.startswith("exp_splits: the training scans of 10%, repetition 0 are of one class")
    count = len(trained)
    with pytest.raises(UserError, match="scans_labels, label_map: all 8 masks .* hold class 0 alone"):
        warnings(num_classes=2, label_map={"1": 0})
    assert len(trained) == count
