from __future__ import annotations

import csv
import math

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.prediction import Scoring, load_predictor

NAMES = ("a", "b", "c")


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, write_run):
    keys = {"num_classes": 3, "scores": ["dice", "dice_class_2"], "label_map": {"7": 2}}
    return load_predictor(write_run(tmp_path_factory.mktemp("run"), jobs={"100_random_0": 0.3}, **keys))


@pytest.fixture
def folder(tmp_path):
    """Three scans with masks of labels 0, 1 and 7, which is class 2."""
    rng = np.random.default_rng(0)
    for kind in ("in", "truth"):
        (tmp_path / kind).mkdir()
    affine = np.diag([1.0, -1.0, 2.0, 1.0])
    for name in NAMES:
        nib.save(nib.Nifti1Image(rng.random((8, 9, 10)).astype(np.float32), affine), tmp_path / "in" / f"{name}.nii.gz")
        truth = np.array([0, 1, 7], np.uint8)[rng.integers(0, 3, (8, 9, 10))]
        nib.save(nib.Nifti1Image(truth, affine), tmp_path / "truth" / f"{name}.nii.gz")
    return tmp_path


def dice(truth, mask):
    return 2 * np.sum(truth & mask) / (truth.sum() + mask.sum())


def test_masks_are_scored_per_case(folder, predictor):
    scoring = Scoring.of(predictor, folder / "in", folder / "out", folder / "truth")
    list(predictor.predict_path(folder / "in", folder / "out"))
    lines = scoring.write()
    expected = {}
    for name in NAMES:
        truth, mask = (np.asarray(nib.load(folder / kind / f"{name}.nii.gz").dataobj) for kind in ("truth", "out"))
        each = [dice(truth == stored, mask == label) for stored, label in ((1, 1), (7, 2))]
        expected[name] = np.mean(each), each[1]
    rows = rows_of(folder / "out" / "scores.csv")
    assert [row["case"] for row in rows] == list(NAMES)
    for row in rows:
        np.testing.assert_allclose([float(row["dice"]), float(row["dice_class_2"])], expected[row["case"]])
    means = np.mean(list(expected.values()), axis=0)
    assert lines == [f"dice {means[0]:.3f} (3 of 3 scans)", f"dice_class_2 {means[1]:.3f} (3 of 3 scans)"]
    with pytest.raises(UserError, match=r"scores\.csv: exists already"):
        Scoring.of(predictor, folder / "in", folder / "out", folder / "truth")
    Scoring.of(predictor, folder / "in", folder / "out", folder / "truth", resume=True)


def test_what_was_not_predicted_or_lies_elsewhere_is_left_out(folder, predictor):
    scoring = Scoring.of(predictor, folder / "in", folder / "out", folder / "truth")
    list(predictor.predict_path(folder / "in", folder / "out"))
    (folder / "out" / "a.nii.gz").unlink()
    nib.save(nib.Nifti1Image(np.ones((8, 9, 11), np.uint8), np.eye(4)), folder / "truth" / "b.nii.gz")
    assert scoring.write()[0].endswith("(1 of 3 scans)")
    assert [row["case"] for row in rows_of(scoring.path)] == ["c"]
    (reason,) = scoring.failures.reasons
    assert f"{folder / 'truth' / 'b.nii.gz'}: its grid is (8, 9, 11)" in reason
    assert scoring.failures.what == "scored"


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        ("in/a.nii.gz", "truth", "--scores: .* give the folder as INPUT"),
        ("in", "nothing", "--scores: .*nothing is no folder; expected the folder of the masks"),
        ("in", "in/empty", "3 of 3 scans have no mask|expected a flat folder"),
    ],
)
def test_what_cannot_be_scored_is_told_before_anything_is_predicted(folder, predictor, source, labels, message):
    (folder / "in" / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        Scoring.of(predictor, folder / source, folder / "out", folder / labels)


def test_tables_are_scored_as_a_whole(tmp_path, write_run):
    keys = {"dataset_name": "kaggle_retina", "csv_file": "t.csv", "data_dim": 16, "number_channels": 3}
    keys |= {"num_classes": 3, "prediction_architecture": "softmax", "volume_fitting": "resize"}
    keys |= {"scores": ["balanced_accuracy", "roc_auc"], "image_column": "file", "label_column": "grade"}
    keys |= {"suffix": ".png"}
    predictor = load_predictor(write_run(tmp_path / "run", jobs={"100_random_0": 0.3}, **keys))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(1)
    for number in range(9):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8) // (1 + number % 4)
        Image.fromarray(pixels).save(tmp_path / "in" / f"eye{number}.png")
    truth = [number % 3 for number in range(9)]
    lines = [f"eye{number},{label}" for number, label in enumerate(truth)]
    (tmp_path / "truth.csv").write_text("\n".join(["file,grade", *lines]))
    target = tmp_path / "grades.csv"
    scoring = Scoring.of(predictor, tmp_path / "in", target, tmp_path / "truth.csv")
    assert scoring.path == tmp_path / "grades_scores.csv"
    list(predictor.predict_path(tmp_path / "in", target))
    lines = scoring.write()
    rows = rows_of(target)
    prediction = [int(row["class"]) for row in rows]
    probabilities = np.array([[float(row[f"probability_{label}"]) for label in range(3)] for row in rows])
    (row,) = rows_of(scoring.path)
    assert row["case"] == "all"
    assert float(row["balanced_accuracy"]) == pytest.approx(balanced_accuracy_score(truth, prediction))
    area = roc_auc_score(truth, probabilities / probabilities.sum(1, keepdims=True), multi_class="ovr")
    assert math.isclose(float(row["roc_auc"]), area, abs_tol=1e-6)
    assert lines[0].endswith(" (the set as a whole)")
    with pytest.raises(UserError, match="this table does not exist"):
        Scoring.of(predictor, tmp_path / "in", target, tmp_path / "nothing.csv", resume=True)
