"""What is found out before any scan is read: whether the batches are large enough for the task and its head."""

import json
import shutil

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.pretraining import plan as planning


@pytest.fixture
def plan(tmp_path, write_scans):
    """Plan a pretraining on eight scans."""
    folder = write_scans(tmp_path / "scans", 8)

    def make(**keys):
        values = {"dataset_name": "nifti", "data_dir": str(folder), "data_dim": 16, "train_val_split": 0.5}
        values |= {"num_layers": 1, "enc_filters": 2, "pooling": "none", **keys}
        path = tmp_path / "experiment.json"
        path.write_text(json.dumps(values))
        return planning.plan(load_experiment("train", path))

    return make


@pytest.mark.parametrize("scans", [1, 2])
@pytest.mark.parametrize("name", ["rotation", "jigsaw", "relative_patch_location", "rubiks_cube"])
def test_a_head_that_normalizes_over_the_batch_needs_three_scans(plan, name, scans):
    keys = {"algorithm": name, "batch_size": scans}
    message = (
        f"^batch_size: {name} normalizes codes over the batch in its head and needs at least 3 scans per step, "
        f'received {scans}; raise batch_size, or .*"normalization": "group"'
    )
    with pytest.raises(UserError, match=message):
        plan(**keys, normalization="batch")
    assert plan(**keys, normalization="group").scans_per_step == scans
    assert plan(**keys).scans_per_step == scans
    assert plan(**keys | {"batch_size": 3}, normalization="batch").scans_per_step == 3


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "relative_patch_location"])
def test_a_single_dense_layer_normalizes_nothing(plan, name):
    keys = {"algorithm": name, "top_architecture": "softmax", "normalization": "batch", "batch_size": 1}
    assert plan(**keys).scans_per_step == 1


def test_a_task_that_compares_scans_says_so(plan):
    with pytest.raises(
        UserError, match="^batch_size: exemplar compares the scans of a batch and needs at least 2 scans"
    ):
        plan(algorithm="exemplar", batch_size=1)


def test_masks_beside_scans_are_no_scans(plan, tmp_path, caplog):
    for number in range(8):
        scan = tmp_path / "scans" / f"case{number}.nii.gz"
        shutil.copy(scan, scan.with_name(f"case{number}_seg.nii.gz"))
    found = plan(algorithm="rotation", label_stem="_seg")
    assert len(found.train) == len(found.validation) == 4
    assert "look like masks" not in caplog.text
    assert len(plan(algorithm="rotation").train) == 8
    assert "8 files look like masks beside their scans" in caplog.text


def test_one_persons_scans_on_two_sides_are_told(plan, tmp_path, caplog):
    for number in range(8):
        (tmp_path / "scans" / f"case{number}.nii.gz").rename(
            tmp_path / "scans" / f"p{number // 2}_visit{number}.nii.gz"
        )
    plan(algorithm="rotation")
    assert len(caplog.records) == 1 and "look like those of one person" in caplog.text
    caplog.clear()
    plan(algorithm="rotation", subject_pattern="^(p[0-9])_")
    assert not caplog.records


@pytest.mark.parametrize(
    ("batch_size", "accumulated", "steps"), [(1, 1, 4), (2, 1, 2), (1, 3, 6), (2, 2, 2), (3, 2, 2), (3, 1, 2)]
)
def test_an_epoch_ends_with_an_update_and_meets_every_scan(plan, batch_size, accumulated, steps):
    """Of four scans; the last update is filled up with the next epoch's."""
    made = plan(algorithm="rotation", batch_size=batch_size, gradient_accumulation_steps=accumulated)
    assert made.steps_per_epoch == steps
    assert (f"{accumulated} steps make an update" in made.describe()) == (accumulated > 1)


def test_a_warmup_as_long_as_the_training_is_refused(plan):
    keys = {"algorithm": "rotation", "batch_size": 1, "gradient_accumulation_steps": 2, "epochs": 3}
    assert plan(**keys, lr_warmup_steps=5).steps_per_epoch == 4
    with pytest.raises(UserError, match="lr_warmup_steps: 6 must be below the number of updates, .* training has 6"):
        plan(**keys, lr_warmup_steps=6)
