"""A scan is done when everything exists that was asked for, and a model that gives no numbers predicts nothing."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks import plots
from self_supervised_3d_tasks.errors import ScansFailed, UserError
from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.prediction import load_predictor

ONE_JOB = {"100_random_0": 0.3}
EVERYTHING = {"overlay": True, "probabilities": True}
PRODUCTS = (".nii.gz", ".png", "_probabilities.nii.gz")
RETINA = {
    "dataset_name": "kaggle_retina",
    "csv_file": "t.csv",
    "data_dim": 16,
    "number_channels": 3,
    "num_classes": 3,
    "prediction_architecture": "softmax",
    "batch_size": 2,
}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, write_run):
    return load_predictor(write_run(tmp_path_factory.mktemp("run"), jobs=ONE_JOB))


def write_scans(folder, names="abc"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        array = rng.random((8, 9, 10)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, predictor):
    """Scans, and the bytes of everything that comes of them."""
    folder = tmp_path_factory.mktemp("whole")
    scans = write_scans(folder / "in")
    list(predictor.predict_path(scans, folder / "out", **EVERYTHING))
    return scans, content(folder / "out")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "missing", [(".png",), (".nii.gz",), ("_probabilities.nii.gz",), (".png", ".nii.gz"), PRODUCTS], ids="+".join
)
def test_a_scan_of_which_a_file_is_missing_is_not_done(missing, tmp_path, whole, predictor):
    scans, expected = whole
    assert sorted(expected) == sorted(f"{name}{ending}" for name in "abc" for ending in PRODUCTS)
    for name, data in expected.items():
        if name not in {f"b{ending}" for ending in missing}:
            (tmp_path / name).write_bytes(data)
    plan = predictor.plan(scans, tmp_path, **EVERYTHING, resume=True)
    assert [case.name for case, _ in plan.jobs] == ["b"]
    assert list(predictor.predict_path(scans, tmp_path, **EVERYTHING, resume=True)) == [tmp_path / "b.nii.gz"]
    assert content(tmp_path) == expected
    assert list(predictor.predict_path(scans, tmp_path, **EVERYTHING, resume=True)) == []


def test_what_is_not_asked_for_is_not_missing(tmp_path, whole, predictor):
    scans, expected = whole
    for name in expected:
        if name.endswith(".nii.gz") and "_" not in name:
            (tmp_path / name).write_bytes(expected[name])
    assert predictor.plan(scans, tmp_path, resume=True).jobs == []
    assert len(predictor.plan(scans, tmp_path, overlay=True, resume=True).jobs) == 3


@pytest.mark.parametrize("moment", range(3))
def test_stopped_while_drawing_and_resumed_everything_is_the_same(moment, tmp_path, whole, predictor, monkeypatch):
    scans, expected = whole
    calls, overlay = [], plots.overlay

    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) == moment + 1:
            raise KeyboardInterrupt
        return overlay(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(plots, "overlay", stop)
        with pytest.raises(KeyboardInterrupt):
            list(predictor.predict_path(scans, tmp_path, **EVERYTHING))
    assert len(content(tmp_path)) == 3 * moment + 2
    list(predictor.predict_path(scans, tmp_path, **EVERYTHING, resume=True))
    assert content(tmp_path) == expected


def break_weights(path, value):
    model = load_model(path)
    kernel = next(variable for variable in model.trainable_variables if variable.name == "kernel")
    kernel.assign(np.full(kernel.shape, value))
    save_model(model, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_end_the_command(value, tmp_path, write_run, run_command):
    run, scans = write_run(tmp_path / "run", jobs=ONE_JOB), write_scans(tmp_path / "in")
    model = run / "jobs" / "100_random_0" / "model.keras"
    break_weights(model, value)
    ended = run_command("predict", run, scans, tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {model}: expected weights that are numbers, but ")
    assert ended.err.count("\n") == 1 and not (tmp_path / "out").exists()


def with_nan(predictor, row):
    """The predictor, one of whose outputs is no number for the image that is seen as number ``row``."""
    seen = []

    def predict(batch):
        outputs = np.array(predict_before(batch))
        for each in outputs:
            if len(seen) == row:
                each.flat[-1] = np.nan
            seen.append(1)
        return outputs

    predictor = dataclasses.replace(predictor)
    (group,) = predictor.groups
    predict_before = group.predict
    predictor.groups[:] = [dataclasses.replace(group, predict=predict)]
    return predictor


def test_probabilities_that_are_no_numbers_are_a_failure_of_that_scan(tmp_path, predictor):
    scans = write_scans(tmp_path / "in")
    with pytest.raises(ScansFailed) as caught:
        list(with_nan(predictor, 1).predict_path(scans, tmp_path / "out", **EVERYTHING))
    (reason,) = caught.value.reasons
    assert reason.startswith(f"{scans / 'b.nii.gz'}: {predictor.members[0].path}: gives NaN instead of probabilities")
    assert sorted(content(tmp_path / "out")) == sorted(f"{name}{ending}" for name in "ac" for ending in PRODUCTS)
    with pytest.raises(UserError, match="gives NaN"):
        list(with_nan(predictor, 0).predict_path(scans / "a.nii.gz", tmp_path / "one"))


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_line_of_a_table_has_numbers_or_is_a_failure(row, tmp_path, write_run):
    predictor = load_predictor(write_run(tmp_path / "run", jobs=ONE_JOB, **RETINA))
    (tmp_path / "in").mkdir()
    for name in "abc":
        picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "in" / f"{name}.png")
    with pytest.raises(ScansFailed, match="gives NaN") as caught:
        list(with_nan(predictor, row).predict_path(tmp_path / "in", tmp_path / "classes.csv"))
    assert len(caught.value.reasons) == 1
    lines = (tmp_path / "classes.csv").read_text().splitlines()[1:]
    assert [line[0] for line in lines] == ["a", "b", "c"][:row] + ["a", "b", "c"][row + 1 :]
    assert "nan" not in "".join(lines)
