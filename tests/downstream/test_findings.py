"""Finetuning on findings, from a table in the form of ChestX-ray14 to the tables of scores, on tiny X-rays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.data.labels.findings import NIH_FINDINGS
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep
from self_supervised_3d_tasks.prediction import load_predictor
from self_supervised_3d_tasks.pretraining.run import plan as plan_pretraining
from self_supervised_3d_tasks.scores.report import read_long
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET

SIDE = 12
COMMON = {
    "algorithm": "rotation",
    "dataset_name": "chestxray",
    "data_dim": SIDE,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "normalization": "none",
    "batch_size": 4,
    "tensorboard": False,
}
FINETUNE = COMMON | {
    "prediction_architecture": "softmax",
    "global_pooling": "none",
    "exp_splits": [100],
    "repetitions": 1,
    "epochs_frozen": 0,
    "epochs_initialized": 0,
    "epochs_random": 1,
    "val_split": 0.2,
    "test_split": 0.4,
}
# Bright left half, bright right half; or both.
CELLS = ("No Finding", "Cardiomegaly", "Emphysema", "Cardiomegaly|Emphysema")


def write_table(path: Path, rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Image Index", "Finding Labels", "Follow-up #", "Patient ID"), *rows])


def write_images(folder: Path) -> None:
    """Two X-rays of each of twelve patients: mostly grey, some with colours that are shades of grey."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for number in range(24):
        patient, cell = number // 2 + 1, CELLS[(number // 2 + number) % 4]
        pixels = rng.integers(0, 60, (SIDE, SIDE))
        pixels[:, : SIDE // 2] += 150 * ("Cardiomegaly" in cell)
        pixels[:, SIDE // 2 :] += 150 * ("Emphysema" in cell)
        image = Image.fromarray(pixels.astype(np.uint8)).convert({0: "RGBA", 1: "RGB"}.get(number % 8, "L"))
        name = f"{patient:08}_{number % 2:03}.png"
        image.save(folder / "images" / name)
        rows.append((name, cell, number % 2, patient))
    write_table(folder / "entry.csv", rows)


def load(folder: Path, **keys):
    paths = {"data_dir_train": str(folder / "images"), "csv_file": str(folder / "entry.csv")}
    path = folder / "sweep.json"
    path.write_text(json.dumps(FINETUNE | paths | {"base_workspace": str(folder / "runs")} | keys))
    return load_experiment("finetune", path)


def sweep(folder: Path, **keys) -> SimpleNamespace:
    experiment = load(folder, **keys)
    plan = finetune_sweep.plan(experiment)
    run = experiment_run.claim(experiment, resume=False)
    finetune_sweep.run(plan, run)
    return SimpleNamespace(experiment=experiment, plan=plan, path=run.path, folder=run)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest")
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def finished(images):
    """A finished sweep with everything that the layout brings by itself."""
    return sweep(images, run_name="all")


def predictions(run: SimpleNamespace) -> SimpleNamespace:
    """The predictions of the job, with the names and subjects of its test cases."""
    job = run.path / "jobs" / "100_random_0"
    names, subjects = zip(*((row["case"], row["subject"]) for row in rows_of(job / "predictions.csv")), strict=True)
    return SimpleNamespace(
        names=list(names), subjects=list(subjects), **vars(run.plan.task.predictions(RunFolder(job)))
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_predictions(finished):
    found = predictions(finished)
    assert found.probabilities.shape == (len(finished.plan.test), 14)
    assert found.probabilities.min() > 0 and found.probabilities.max() < 1
    scores = {row.metric: row.value for row in read_long(finished.path / "results_long.csv")}
    assert {row.case for row in read_long(finished.path / "results_long.csv")} == {WHOLE_SET}
    assert list(scores) == ["mean_auroc", *(f"auroc_{finding}" for finding in NIH_FINDINGS)]
    occurring = [NIH_FINDINGS.index(name) for name in ("Cardiomegaly", "Emphysema")]
    areas = [roc_auc_score(found.truth[:, column], found.probabilities[:, column]) for column in occurring]
    assert [scores["auroc_Cardiomegaly"], scores["auroc_Emphysema"]] == pytest.approx(areas)
    assert scores["mean_auroc"] == pytest.approx(np.mean(areas))
    assert np.isnan([value for name, value in scores.items()]).sum() == 12
    header = (finished.path / "results.csv").read_text().splitlines()[0]
    assert header.startswith("Train Split,Weights_random_mean_auroc_min,")
    assert "Weights_random_auroc_Pleural_Thickening_avg" in header
    pictures = {path.name for path in (finished.path / "plots").iterdir()}
    assert pictures == {
        *("mean_auroc_over_fraction.png", "findings_100_percent.png"),
        *("val_loss_100_percent.png", "val_accuracy_100_percent.png"),
    }


def test_truth_is_that_of_the_table(finished):
    found, table = predictions(finished), rows_of(Path(finished.experiment.csv_file))
    cells = {Path(row["Image Index"]).stem: (row["Finding Labels"], row["Patient ID"]) for row in table}
    assert found.names == finished.folder.read_json("split.json")["test"]
    for name, subject, truth in zip(found.names, found.subjects, found.truth, strict=True):
        named = {finding for finding, present in zip(NIH_FINDINGS, truth, strict=True) if present}
        assert ("|".join(sorted(named)) or "No Finding", subject) == cells[name]
    labels = finished.folder.read_json("split.json")["labels"]
    assert labels == {name: cell for name, (cell, _) in cells.items()}


def test_patients_are_on_one_side(finished):
    (job,) = finished.plan.jobs
    parts = [job.split.train, job.split.validation, job.split.test]
    patients = [{case.subject for case in part} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 12
    assert sum(map(len, parts)) == 24


def test_logits_are_independent_and_colours_of_grey_are_grey(finished):
    """Of four-channel, three-channel and grey files alike, the kept model's sigmoids are what was written."""
    model = load_model(finished.path / "jobs" / "100_random_0" / "model.keras")
    assert model.output_shape == (None, 14)
    target = finished.path / "table.csv"
    predictor = load_predictor(finished.path)
    assert list(predictor.predict_path(Path(finished.experiment.data_dir_train), target)) == [target]
    rows = rows_of(target)
    assert list(rows[0]) == ["image", *(f"probability_{finding}" for finding in NIH_FINDINGS)]
    assert len(rows) == 24
    for row in rows[:9]:
        with Image.open(Path(finished.experiment.data_dir_train) / row["image"]) as file:
            image = np.asarray(file.convert("L"), np.float32) / 255
        logits = np.asarray(model.predict_on_batch(image[None, ..., None]), np.float64)[0]
        values = [float(row[f"probability_{finding}"]) for finding in NIH_FINDINGS]
        np.testing.assert_allclose(values, 1 / (1 + np.exp(-logits)), rtol=1e-4)
    found = predictions(finished)
    known = {Path(row["image"]).stem: float(row["probability_Hernia"]) for row in rows}
    np.testing.assert_allclose([known[name] for name in found.names], found.probabilities[:, -1], rtol=1e-4)


def test_a_table_of_predictions_is_continued_and_has_no_pictures(finished, tmp_path):
    predictor = load_predictor(finished.path)
    source, target = Path(finished.experiment.data_dir_train), tmp_path / "table.csv"
    list(predictor.predict_path(source / "00000003_001.png", target))
    assert len(predictor.plan(source, target, resume=True).jobs) == 23
    with pytest.raises(UserError, match="--overlay: this model gives findings of whole scans"):
        list(predictor.predict_path(source, target, overlay=True, resume=True))
    with pytest.raises(UserError, match=r"masks: this model gives findings of whole scans; .*\.csv"):
        predictor.plan(source, tmp_path / "masks")
    target.write_text("image,class\n")
    with pytest.raises(UserError, match="expected a table with the columns image,probability_Atelectasis"):
        predictor.plan(source, target, resume=True)


def test_official_lists_are_two_tables_of_one_folder(images, tmp_path):
    """The halves of an image stand for the findings: a few steps suffice, unless targets and outputs do not fit."""
    header, *lines = (images / "entry.csv").read_text().splitlines()
    for name, chosen in {"train.csv": lines[:16], "test.csv": lines[16:]}.items():
        (tmp_path / name).write_text("\n".join([header, *chosen]))
    keys = {"csv_file": str(tmp_path / "train.csv"), "csv_file_test": str(tmp_path / "test.csv")}
    keys |= {"class_names": ["Emphysema", "Cardiomegaly"], "base_workspace": str(tmp_path), "scores": ["mean_auroc"]}
    run = sweep(images, **keys, run_name="lists", epochs_random=24, lr=0.03)
    found = predictions(run)
    assert found.names == sorted(Path(line.split(",")[0]).stem for line in lines[16:])
    (row,) = read_long(run.path / "results_long.csv")
    assert row.metric == "mean_auroc" and row.value > 0.9
    history = training.read_history(run.folder.job("100_random_0"))
    assert max(row["val_accuracy"] for row in history) > 0.8


def test_folds_hold_patients_with_and_without_findings(images):
    plan = finetune_sweep.plan(load(images, do_cross_val=True, repetitions=3))
    assert len(plan.test) == 24
    for job in plan.jobs:
        assert {any(case.label) for case in job.split.test} == {True, False}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scores": ["qw_kappa"]}, "scores: 'qw_kappa' is no score of findings; known: mean_auroc"),
        ({"scores": ["auroc_mass"]}, "'auroc_mass' .* Did you mean 'auroc_Mass'"),
        ({"metrics": ["brats_metrics"]}, "metrics: 'brats_metrics' is no metric of findings; known: accuracy"),
        ({"class_weights": [1] * 14}, "class_weights: binary_crossentropy takes none; remove them$"),
        ({"label_column": "Labels"}, "label_column: there is no column 'Labels'.*'Finding Labels'"),
        ({"subject_column": "Patient"}, "subject_column: there is no column 'Patient'"),
        ({"class_names": ["Mass", "Edema"]}, r"entry\.csv: row \d+ has the finding 'Cardiomegaly'.*Mass, Edema"),
    ],
)
def test_a_mistake_is_named_before_training(images, keys, message):
    with pytest.raises(UserError, match=message):
        finetune_sweep.plan(load(images, **keys))


def test_tables_without_findings(images, tmp_path, caplog):
    header, *lines = (images / "entry.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    write_table(tmp_path / "none.csv", [(name, "", number, patient) for name, _, number, patient in rows])
    with pytest.raises(UserError, match=r"none\.csv has no finding for any of the 24 scans"):
        finetune_sweep.plan(load(images, csv_file=str(tmp_path / "none.csv")))
    finetune_sweep.plan(load(images))
    assert "no scan has Atelectasis or Effusion or" in caplog.text


@pytest.fixture
def warnings_of(images, tmp_path, caplog):
    """What is said of the splits of a sweep on three findings, where the cells of the table are changed before."""

    def say(cells: Callable[[int, str], str], **keys) -> tuple[finetune_sweep.Plan, str]:
        rows = rows_of(images / "entry.csv")
        table = [(row["Image Index"], cells(int(row["Patient ID"]), row["Finding Labels"])) for row in rows]
        patients = [row["Patient ID"] for row in rows]
        write_table(tmp_path / "t.csv", [(*row, 0, patient) for row, patient in zip(table, patients, strict=True)])
        names = {"class_names": ["Cardiomegaly", "Emphysema", "Hernia"]}
        plan = finetune_sweep.plan(load(images, csv_file=str(tmp_path / "t.csv"), **names, **keys))
        store = VolumeStore(plan.cases, plan.experiment.preprocessing, num_classes=None)
        caplog.clear()
        plan.task.check_splits(plan.splits, store)
        return plan, caplog.text

    return say


def test_findings_without_a_score_are_told_before_training(warnings_of):
    plan, text = warnings_of(lambda patient, cell: cell, exp_splits=[100, 50], repetitions=2)
    assert len(plan.splits) == 4 and text.count("no AUROC") == 1
    assert "  every split: Hernia; 2 of 3 findings are averaged" in text
    tested = {int(case.subject) for case in plan.test}
    cells = {True: "Cardiomegaly|Hernia", False: "Emphysema"}
    _, text = warnings_of(lambda patient, cell: cells[patient in tested])
    assert "  every split: Cardiomegaly, Emphysema, Hernia; 0 of 3 findings are averaged" in text


def test_folds_that_average_other_findings_are_named(warnings_of):
    keys = {"do_cross_val": True, "repetitions": 3, "exp_splits": [100, 50]}
    plan, _ = warnings_of(lambda patient, cell: cell, **keys)
    first, *_ = {int(case.subject) for case in plan.splits["100%, repetition 1"].test}
    rare = {first: "Hernia|Emphysema"}
    plan, text = warnings_of(lambda patient, cell: rare.get(patient, cell), **keys)
    expected = []
    for fold in range(3):
        name = f"100%, repetition {fold}"
        if not any(case.label[2] for case in plan.splits[name].test):
            expected.append(f"{name}; 50%, repetition {fold}: Hernia; 2 of 3 findings are averaged")
    assert len(expected) == 2
    assert text.count("no AUROC") == 1 and text.count("are averaged") == 2
    assert all(line in text for line in expected)


def test_all_findings_that_are_scored_need_no_word(warnings_of):
    _, text = warnings_of(lambda patient, cell: cell.replace("Cardiomegaly", "Cardiomegaly|Hernia"))
    assert not text


def test_colours_are_refused(images, tmp_path):
    write_images(tmp_path)
    Image.new("RGB", (SIDE, SIDE), (200, 0, 0)).save(tmp_path / "images" / "00000001_000.png")
    with pytest.raises(UserError, match=r"00000001_000\.png: has colours, expected shades of grey"):
        sweep(tmp_path)


def test_labels_that_change_stop_the_resumption(finished, images, tmp_path):
    header, *lines = (images / "entry.csv").read_text().splitlines()
    changed = [line.replace("No Finding", "Mass|Hernia") for line in lines]
    (tmp_path / "entry.csv").write_text("\n".join([header, *changed]))
    plan = finetune_sweep.plan(load(images, csv_file=str(tmp_path / "entry.csv")))
    with pytest.raises(
        UserError, match="the labels of 6 scans have changed .* from No Finding to Mass.Hernia; restore"
    ):
        finetune_sweep.run(plan, finished.folder)


def test_pretraining_takes_the_folder_alone(images):
    path = images / "train.json"
    keys = {"data_dir": str(images / "images"), "subject_pattern": "^([0-9]+)_", "epochs": 1, "head_units": [4]}
    path.write_text(json.dumps(COMMON | keys | {"base_workspace": str(images / "runs")}))
    plan = plan_pretraining(load_experiment("train", path))
    patients = [{case.subject for case in part} for part in (plan.train, plan.validation)]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 12
