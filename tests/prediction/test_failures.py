"""One bad scan does not stop a folder."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks.errors import ScansFailed, UserError
from self_supervised_3d_tasks.prediction import load_predictor

GOOD = ("a", "d")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, write_run):
    return load_predictor(write_run(tmp_path_factory.mktemp("run"), jobs={"100_random_0": 0.3}))


def save(path, array):
    nib.save(nib.Nifti1Image(np.asarray(array, np.float32), np.eye(4)), path)


@pytest.fixture
def folder(tmp_path):
    """Two scans that are right, one with NaN, one with two channels and one that is no NIfTI file."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in GOOD:
        save(tmp_path / "in" / f"{name}.nii", rng.random((8, 9, 10)))
    save(tmp_path / "in" / "b.nii", np.full((8, 9, 10), np.nan))
    save(tmp_path / "in" / "c.nii", rng.random((8, 9, 10, 2)))
    (tmp_path / "in" / "e.nii").write_text("no scan")
    return tmp_path


def test_the_others_are_written_failures_are_told_and_resume_tries_them_again(folder, predictor):
    written = []
    with pytest.raises(ScansFailed) as caught:
        written.extend(predictor.predict_path(folder / "in", folder / "out"))
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.nii.gz", "d.nii.gz"]
    c, e, b = caught.value.reasons  # headers first
    assert c.startswith(f"{folder / 'in' / 'c.nii'}: has 2 channels")
    assert e.startswith(f"{folder / 'in' / 'e.nii'}: cannot be read")
    assert b == (
        f"{folder / 'in' / 'b.nii'}: 720 of 720 voxels are NaN or infinite; expected finite float32 values. "
        "Repair the file, remove it."
    )
    assert not any("on_bad_file" in reason for reason in caught.value.reasons)
    assert str(caught.value).splitlines()[0] == "3 scans could not be predicted; repair, and go on with --resume:"
    save(folder / "in" / "b.nii", np.random.default_rng(1).random((8, 9, 10)))
    again = []
    with pytest.raises(ScansFailed, match="2 scans could not"):
        for path in predictor.predict_path(folder / "in", folder / "out", resume=True):
            again.append(path)
    assert again == [folder / "out" / "b.nii.gz"]


def test_one_scan_alone_is_a_mistake(folder, predictor):
    for name, message in (("b", "NaN or infinite.*remove it.$"), ("c", "has 2 channels")):
        with pytest.raises(UserError, match=message):
            list(predictor.predict_path(folder / "in" / f"{name}.nii", folder / "out"))
    assert not (folder / "out").exists()


def test_a_plan_knows_the_headers_that_do_not_fit(folder, predictor):
    plan = predictor.plan(folder / "in", folder / "out")
    assert [case.name for case, _ in plan.jobs] == ["a", "b", "d"]
    assert len(plan.failures.reasons) == 2


def test_a_table_has_the_images_that_can_be_read(tmp_path, write_run):
    keys = {"dataset_name": "kaggle_retina", "csv_file": "t.csv", "data_dim": 16, "number_channels": 3}
    keys |= {"num_classes": 3, "prediction_architecture": "softmax", "volume_fitting": "resize", "batch_size": 2}
    predictor = load_predictor(write_run(tmp_path / "run", jobs={"100_random_0": 0.3}, **keys))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    whole = tmp_path / "in" / "b.png"
    content = whole.read_bytes()
    whole.write_bytes(content[:-200])  # the header is right
    target = tmp_path / "classes.csv"
    with pytest.raises(ScansFailed, match="1 scan could not be predicted") as caught:
        list(predictor.predict_path(tmp_path / "in", target))
    assert caught.value.reasons[0].startswith(str(whole))
    assert [line[:5] for line in target.read_text().splitlines()[1:]] == ["a.png", "c.png", "d.png"]
    whole.write_bytes(content)
    assert list(predictor.predict_path(tmp_path / "in", target, resume=True)) == [target]
    assert [line[:5] for line in target.read_text().splitlines()[1:]] == ["a.png", "c.png", "d.png", "b.png"]


def test_a_table_of_nothing_is_not_written(tmp_path, write_run):
    keys = {"dataset_name": "kaggle_retina", "csv_file": "t.csv", "data_dim": 16, "number_channels": 3}
    keys |= {"num_classes": 3, "prediction_architecture": "softmax", "volume_fitting": "resize"}
    predictor = load_predictor(write_run(tmp_path / "run", jobs={"100_random_0": 0.3}, **keys))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no image")
    with pytest.raises(ScansFailed):
        assert list(predictor.predict_path(tmp_path / "in", tmp_path / "classes.csv")) == []
    assert not (tmp_path / "classes.csv").exists()
