"""Finetuning on one class per scan, from the table of labels to the confusion matrix, on tiny scans and photographs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.downstream.classification import ClassificationTask
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import execution
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep
from self_supervised_3d_tasks.finetuning.baseline import check_baseline
from self_supervised_3d_tasks.finetuning.job import steps_per_epoch
from self_supervised_3d_tasks.prediction import load_predictor
from self_supervised_3d_tasks.scores.report import read_long
from self_supervised_3d_tasks.scores.statistics import WHOLE_SET

MODES = ("frozen", "initialized", "random")
COMMON = {
    "algorithm": "rotation",
    "csv_file": "labels.csv",
    "image_column": "file",
    "label_column": "grade",
    "subject_column": "patient",
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "normalization": "none",
    "dropout": 0.0,
    "batch_size": 4,
    "lr": 0.01,
    "tensorboard": False,
}
# Volumes, three modes, two folds.
VOLUMES = COMMON | {
    "dataset_name": "npy",
    "data_dim": [8, 8, 12],
    "num_classes": 2,
    "class_names": ["smooth", "rough"],
    "prediction_architecture": "simple_multiclass",
    "do_cross_val": True,
    "repetitions": 2,
    "exp_splits": [100],
    "val_split": 0.25,
    "epochs_frozen": 1,
    "epochs_initialized": 1,
    "epochs_warmup": 0,
    "epochs_random": 1,
    "scores": ["roc_auc", "balanced_accuracy", "cat_accuracy"],
}
# Photographs, ordinal targets, classes made even, a test set that is split off.
PHOTOGRAPHS = COMMON | {
    "dataset_name": "images",
    "data_dim": [12, 16],
    "number_channels": 3,
    "num_classes": 3,
    "prediction_architecture": "softmax",
    "multilabel": True,
    "sample_classes_uniform": True,
    "augment": True,
    "exp_splits": [100],
    "repetitions": 1,
    "epochs_frozen": 0,
    "epochs_initialized": 0,
    "epochs_random": 12,
    "val_split": 0.25,
    "test_split": 0.25,
    "lr": 0.03,
    "scores": ["qw_kappa_kaggle", "bin_accuracy"],
}
JOBS = [f"100_{mode}_{fold}" for fold in range(2) for mode in MODES]


def write_table(path: Path, rows: list[tuple[str, int, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "grade", "patient"), *rows])


def write_volumes(folder: Path) -> None:
    """Two smooth or two rough volumes of each of eight patients."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for number in range(16):
        patient, label = number // 2, number // 2 % 2
        array = (
            rng.normal(size=(8, 8, 12)) if label else rng.normal(size=(2, 2, 3)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
        )
        np.save(folder / "images" / f"scan{number:02}.npy", array.astype(np.float32))
        rows.append((f"scan{number:02}.npy", label, f"patient{patient}"))
    write_table(folder / "labels.csv", rows)


def write_photographs(folder: Path) -> None:
    """Ten red photographs of grade 0, six green ones of grade 1, four blue ones of grade 2."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for number, grade in enumerate([0] * 10 + [1] * 6 + [2] * 4):
        pixels = rng.integers(0, 60, (12, 16, 3)) + 190 * np.eye(3, dtype=int)[grade]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"eye{number:02}.png")
        rows.append((f"eye{number:02}.png", grade, f"patient{number}"))
    write_table(folder / "labels.csv", rows)


def load(folder: Path, settings: dict, **keys):
    paths = {"data_dir_train": str(folder / "images"), "csv_file": str(folder / "labels.csv")}
    path = folder / "sweep.json"
    path.write_text(json.dumps(settings | paths | {"base_workspace": str(folder / "runs")} | keys))
    return load_experiment("finetune", path)


def sweep(folder: Path, settings: dict, **keys) -> SimpleNamespace:
    experiment = load(folder, settings, **keys)
    plan = finetune_sweep.plan(experiment)
    run = experiment_run.claim(experiment, resume=False)
    finetune_sweep.run(plan, run)
    return SimpleNamespace(experiment=experiment, plan=plan, folder=run)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A finished cross-validation in three modes."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder)
    keys = {"model_checkpoint": str(folder / "encoder.keras"), "run_name": "volumes"}
    encoder = build.make_encoder(load(folder, VOLUMES, **keys), (8, 8, 12, 1), seed=5)
    save_model(encoder, folder / "encoder.keras")
    return sweep(folder, VOLUMES, **keys)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A finished sweep on ordinal grades, from scratch only."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return sweep(folder, PHOTOGRAPHS, run_name="photographs")


def job(run: SimpleNamespace, name: str) -> Path:
    return run.folder.path / "jobs" / name


def predictions(run: SimpleNamespace, name: str) -> SimpleNamespace:
    """The predictions of a job, with the names and subjects of its test cases."""
    with open(job(run, name) / "predictions.csv", newline="", encoding="utf-8") as file:
        names, subjects = zip(*((row["case"], row["subject"]) for row in csv.DictReader(file)), strict=True)
    found = run.plan.task.predictions(RunFolder(job(run, name)))
    return SimpleNamespace(names=list(names), subjects=list(subjects), **vars(found))


def table_of(folder: Path) -> dict[str, tuple[int, str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        return {Path(row["file"]).stem: (int(row["grade"]), row["patient"]) for row in csv.DictReader(file)}


def test_each_fold_tests_its_own_patients(volumes):
    split = volumes.folder.read_json("split.json")
    table = table_of(Path(volumes.experiment.csv_file).parent)
    folds = [split["test"][f"repetition {fold}"] for fold in range(2)]
    assert sorted(folds[0] + folds[1]) == sorted(table)
    for fold in range(2):
        parts = [folds[fold], split["validation"][f"repetition {fold}"], split["train"][f"100%, repetition {fold}"]]
        patients = [{table[name][1] for name in part} for part in parts]
        assert sorted(name for part in parts for name in part) == sorted(table)
        assert sum(map(len, patients)) == len(set.union(*patients)) == 8
        assert {table[name][0] for name in folds[fold]} == {0, 1}  # stratified
    assert len(volumes.plan.test) == 16


def test_predictions_of_every_test_case_are_kept(volumes):
    table = table_of(Path(volumes.experiment.csv_file).parent)
    split = volumes.folder.read_json("split.json")
    for name in JOBS:
        found = predictions(volumes, name)
        assert found.names == split["test"][f"repetition {name[-1]}"]
        assert [(int(truth), subject) for truth, subject in zip(found.truth, found.subjects, strict=True)] == [
            table[case] for case in found.names
        ]
        np.testing.assert_array_equal(found.prediction, found.probabilities.argmax(axis=1))
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)


def test_scores_are_those_of_the_predictions(volumes):
    rows = read_long(volumes.folder.path / "results_long.csv")
    assert {row.case for row in rows} == {WHOLE_SET}
    scores = {(row.mode, row.repetition, row.metric): row.value for row in rows}
    assert len(scores) == len(rows) == 6 * 3
    for name in JOBS:
        _, mode, fold = name.split("_")
        found = predictions(volumes, name)
        expected = {
            "roc_auc": roc_auc_score(found.truth, found.probabilities[:, 1]),
            "balanced_accuracy": balanced_accuracy_score(found.truth, found.prediction),
            "cat_accuracy": accuracy_score(found.truth, found.prediction),
        }
        for metric, value in expected.items():
            assert scores[mode, int(fold), metric] == pytest.approx(value)


def test_predictions_are_those_of_the_kept_model(volumes):
    found = predictions(volumes, "100_initialized_1")
    model = load_model(job(volumes, "100_initialized_1") / "model.keras")
    for name, probabilities in zip(found.names, found.probabilities, strict=True):
        array = np.load(Path(volumes.experiment.data_dir_train) / f"{name}.npy")
        low, high = np.percentile(array[array > array.min()], (0.5, 99.5))
        image = np.clip((array - low) / (high - low), 0, 1)
        logits = np.asarray(model.predict_on_batch(image[None, ..., None]), np.float64)[0]
        np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(), rtol=1e-3, atol=1e-6)


def test_the_frozen_encoder_is_the_pretrained_one(volumes):
    pretrained = load_model(Path(volumes.experiment.model_checkpoint))
    kernels = {layer.name: layer.kernel for layer in pretrained.layers if isinstance(layer, keras.layers.Conv3D)}
    assert kernels
    for mode in MODES:
        model = load_model(job(volumes, f"100_{mode}_0") / "model.keras")
        same = [np.array_equal(model.get_layer(name).kernel, kernel) for name, kernel in kernels.items()]
        assert all(same) if mode == "frozen" else not any(same), mode
        assert model.output_shape == (None, 2)


def test_tables_and_pictures(volumes):
    header = (volumes.folder.path / "results.csv").read_text().splitlines()[0]
    columns = [
        f"Weights_{mode}_{score}_{statistic}"
        for mode in MODES
        for score in ("roc_auc", "balanced_accuracy", "cat_accuracy")
        for statistic in ("min", "avg", "max")
    ]
    assert header == ",".join(["Train Split", *columns])
    statistics = (volumes.folder.path / "statistics.csv").read_text().splitlines()
    assert statistics[0] == ("split,metric,mode,num_subjects,num_repetitions,difference,low,high,sd,p_value,p_holm")
    assert all(line.endswith(",,") for line in statistics[1:])  # no p-value
    pictures = {path.name for path in (volumes.folder.path / "plots").iterdir()}
    assert pictures >= {f"confusion_{mode}_100_percent.png" for mode in MODES}
    assert pictures >= {"roc_auc_over_fraction.png", "val_accuracy_100_percent.png"}


def test_a_finished_job_is_not_computed_again(volumes, tmp_path, monkeypatch):
    copied = RunFolder(shutil.copytree(volumes.folder.path, tmp_path / "run"))
    (copied.path / "jobs" / "100_random_1" / "scores.json").unlink()
    run_job, names = execution.run_job, []

    def watched(experiment, job, *arguments):
        names.append(job.name)
        return run_job(experiment, job, *arguments)

    monkeypatch.setattr(execution, "run_job", watched)
    finetune_sweep.run(volumes.plan, copied)
    assert names == ["100_random_1"]
    for table in ("results.csv", "results_long.csv", "statistics.csv", "split.json"):
        assert (copied.path / table).read_text() == (volumes.folder.path / table).read_text()


def test_a_fold_that_is_gone_from_the_folder_stops_the_resumption(volumes, tmp_path):
    copied = RunFolder(shutil.copytree(volumes.folder.path, tmp_path / "run"))
    split = copied.read_json("split.json")
    split["test"]["repetition 1"].pop()
    copied.write_json("split.json", split)
    with pytest.raises(UserError, match="split.json: the run was started with other scans"):
        finetune_sweep.run(volumes.plan, copied)


@pytest.fixture
def untrained(monkeypatch):
    """Replace training by nothing; returns for each job the usable cases of its test set."""
    seen = {}

    def run_job(experiment, job, store, folder):
        seen[job.name] = [case.name for case in store.subset(job.split.test).cases]

    monkeypatch.setattr(execution, "run_job", run_job)
    return seen


FROM_SCRATCH = {"epochs_frozen": 0, "epochs_initialized": 0}


def relabel(path: Path, change) -> None:
    """Write a table again with other grades."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row["file"], change(int(row["grade"])), row["patient"]) for row in csv.DictReader(file)]
    write_table(path, rows)


def test_labels_that_change_stop_the_resumption_and_the_baseline(tmp_path, untrained):
    write_volumes(tmp_path)
    run = sweep(tmp_path, VOLUMES, **FROM_SCRATCH)
    table = table_of(tmp_path)
    assert run.folder.read_json("split.json")["labels"] == {name: label for name, (label, _) in table.items()}
    finetune_sweep.run(run.plan, run.folder)
    check_baseline(run.plan, run.folder)
    relabel(tmp_path / "labels.csv", lambda label: 1 - label)
    plan = finetune_sweep.plan(run.experiment)
    changed = "the labels of 16 scans have changed since, first that of 'scan00' from 0 to 1; restore csv_file, or "
    with pytest.raises(UserError, match=rf"split\.json: {changed}start a new run without --resume"):
        finetune_sweep.run(plan, run.folder)
    with pytest.raises(UserError, match=f"random_from: .*: {changed}remove random_from"):
        check_baseline(plan, run.folder)


def test_labels_of_a_test_folder_with_the_same_names_are_pinned_too(tmp_path, untrained):
    for part, step in (("train", lambda label: label), ("test", lambda label: 1 - label)):
        (tmp_path / part).mkdir()
        write_volumes(tmp_path / part)
        relabel(tmp_path / part / "labels.csv", step)
    keys = {"csv_file": str(tmp_path / "train" / "labels.csv"), "csv_file_test": str(tmp_path / "test" / "labels.csv")}
    keys |= {"data_dir_train": str(tmp_path / "train" / "images"), "data_dir_test": str(tmp_path / "test" / "images")}
    keys |= {"do_cross_val": False, "subject_column": None} | FROM_SCRATCH
    run = sweep(tmp_path, VOLUMES, **keys)
    split = run.folder.read_json("split.json")
    assert split["labels"].keys() == split["test_labels"].keys() == table_of(tmp_path / "test").keys()
    assert all(split["labels"][name] == 1 - label for name, label in split["test_labels"].items())
    relabel(tmp_path / "test" / "labels.csv", lambda label: 1 - label)
    with pytest.raises(UserError, match="16 scans .* 'scan00' from 1 to 0; restore csv_file_test"):
        finetune_sweep.run(finetune_sweep.plan(run.experiment), run.folder)


@pytest.mark.parametrize("keys", [{}, {"label_map": {"0": 1}}])
def test_a_table_of_one_class_is_refused(tmp_path, keys):
    write_volumes(tmp_path)
    if not keys:
        relabel(tmp_path / "labels.csv", lambda label: 1)
    with pytest.raises(UserError, match=r"csv_file, label_map: .*labels\.csv gives class 1 to all of the 16 scans"):
        finetune_sweep.plan(load(tmp_path, VOLUMES, **FROM_SCRATCH, **keys))


def test_a_fold_without_a_usable_test_case_is_found_before_training(tmp_path, untrained):
    write_photographs(tmp_path)
    keys = {"do_cross_val": True, "repetitions": 4, "on_bad_file": "skip"}
    experiment = load(tmp_path, PHOTOGRAPHS, **keys)
    for case in finetune_sweep.plan(experiment).jobs[2].split.test:
        case.image.write_bytes(b"no photograph")
    with pytest.raises(UserError, match="100%, repetition 2: none of its 5 test scans can be used"):
        sweep(tmp_path, PHOTOGRAPHS, **keys)
    assert not untrained


def test_the_plan_tells_the_folds_and_the_head(volumes):
    text = volumes.plan.describe()
    assert "test             16 scans, in 2 folds" in text
    assert "with simple_multiclass head" in text


def test_grades_are_learned_and_scored_as_decoded(photographs):
    """The colour is the grade: a few steps suffice, unless targets, logits and decoding do not fit each other."""
    found = predictions(photographs, "100_random_0")
    scores = {
        metric: value for _, metric, value in read_json(job(photographs, "100_random_0") / "scores.json")["scores"]
    }
    kappa = cohen_kappa_score(found.truth, found.prediction, weights="quadratic", labels=range(3))
    assert scores["qw_kappa_kaggle"] == pytest.approx(kappa)
    assert scores["bin_accuracy"] == pytest.approx(np.mean((found.truth > 0) == (found.prediction > 0)))
    assert kappa > 0.6
    history = training.read_history(RunFolder(job(photographs, "100_random_0")))
    assert max(row["val_accuracy"] for row in history) > 0.6


def test_training_classes_are_even_and_each_part_keeps_its_cases(photographs):
    split, table = photographs.folder.read_json("split.json"), table_of(Path(photographs.experiment.csv_file).parent)
    (name,) = split["train"]
    grades = [table[case][0] for case in split["train"][name]]
    assert len(split["train"][name]) == len(set(split["train"][name]))  # repeated while training, not in the record
    even = 3 * max(grades.count(grade) for grade in range(3))
    assert even > len(grades)
    (only,) = photographs.plan.jobs
    assert steps_per_epoch(photographs.experiment, only) == -(-even // 4)
    parts = [*split["test"], *split["validation"], *split["train"][name]]
    assert sorted(parts) == sorted(table)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scores": ["dice"]}, "scores: 'dice' is no score of classification with 3 classes; known: qw_kappa"),
        (
            {"metrics": ["brats_metrics"]},
            "metrics: 'brats_metrics' is no metric of classification with 3 classes; known: accuracy",
        ),
        ({"loss": "weighted_dice_loss"}, "loss, multilabel: "),
        ({"volume_fitting": "crop"}, "volume_fitting: "),
        ({"class_weights": [1, 2, 3]}, "class_weights: binary_crossentropy takes none"),
    ],
)
def test_a_key_that_does_not_fit_is_named_before_training(photographs, keys, message):
    folder = Path(photographs.experiment.csv_file).parent
    with pytest.raises(UserError, match=message):
        finetune_sweep.plan(load(folder, PHOTOGRAPHS, **keys))


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [({}, "remove them"), ({"multilabel": False}, "remove them, or use weighted_categorical_crossentropy")],
)
def test_class_weights_recommend_only_what_a_classification_can_use(photographs, keys, remedy):
    folder = Path(photographs.experiment.csv_file).parent
    with pytest.raises(UserError, match=f"^class_weights: [a-z_]+ takes none; {remedy}$"):
        finetune_sweep.plan(load(folder, PHOTOGRAPHS, class_weights=[1, 2, 3], **keys))


def test_a_bad_photograph_is_skipped_whatever_its_part(tmp_path, untrained):
    write_photographs(tmp_path)
    (tmp_path / "images" / "eye03.png").write_bytes(b"no photograph")
    with pytest.raises(UserError, match=r"eye03\.png: cannot be read"):
        sweep(tmp_path, PHOTOGRAPHS, do_cross_val=True, repetitions=4)
    run = sweep(tmp_path, PHOTOGRAPHS, do_cross_val=True, repetitions=4, on_bad_file="skip")
    assert [item["case"] for item in run.folder.read_json("split.json")["skipped"]] == ["eye03"]
    assert sorted(name for fold in untrained.values() for name in fold) == [
        f"eye{number:02}" for number in range(20) if number != 3
    ]


def test_a_test_set_with_a_table_of_its_own(photographs, tmp_path):
    folder = Path(photographs.experiment.csv_file).parent
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    for name, chosen in {"train.csv": lines[::2], "test.csv": lines[1::2]}.items():
        (tmp_path / name).write_text("\n".join([header, *chosen]))
    keys = {"csv_file": str(tmp_path / "train.csv"), "csv_file_test": str(tmp_path / "test.csv")}
    plan = finetune_sweep.plan(load(folder, PHOTOGRAPHS, **keys))
    assert [case.name for case in plan.test] == [f"eye{number:02}" for number in range(1, 20, 2)]
    trained = {case.name for case in (*plan.jobs[0].split.train, *plan.jobs[0].split.validation)}
    assert trained == {f"eye{number:02}" for number in range(0, 20, 2)}


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_new_photographs_become_a_table(photographs, tmp_path):
    predictor = load_predictor(photographs.folder.path)
    source, target = Path(photographs.experiment.data_dir_train), tmp_path / "deep" / "classes.csv"
    assert [case.name for case, _ in predictor.plan(source, target).jobs] == [f"eye{number:02}" for number in range(20)]
    assert list(predictor.predict_path(source, target)) == [target]
    rows = {Path(row["image"]).stem: row for row in read_rows(target)}
    assert len(rows) == 20
    found = predictions(photographs, "100_random_0")
    for name, label, probabilities in zip(found.names, found.prediction, found.probabilities, strict=True):
        assert rows[name]["class"] == str(label)
        received = [float(rows[name][f"probability_{label}"]) for label in range(3)]
        np.testing.assert_allclose(received, probabilities, atol=1e-4)
        assert rows[name]["name"] == ""


def test_a_table_is_not_overwritten_and_resume_adds_to_it(photographs, tmp_path):
    predictor = load_predictor(photographs.folder.path)
    source, target = Path(photographs.experiment.data_dir_train), tmp_path / "classes.csv"
    list(predictor.predict_path(source / "eye03.png", target))
    (first,) = target.read_text().splitlines()[1:]
    with pytest.raises(UserError, match=r"classes\.csv: exists already; .*--resume"):
        list(predictor.predict_path(source, target))
    assert len(predictor.plan(source, target, resume=True).jobs) == 19
    list(predictor.predict_path(source, target, resume=True))
    lines = target.read_text().splitlines()[1:]
    assert lines[0] == first
    assert len({line.split(",")[0] for line in lines}) == len(lines) == 20
    list(predictor.predict_path(source, target, resume=True))
    assert target.read_text().splitlines()[1:] == lines


def test_what_a_table_of_classes_cannot_be(photographs, tmp_path):
    predictor = load_predictor(photographs.folder.path)
    source = Path(photographs.experiment.data_dir_train)
    with pytest.raises(UserError, match="--overlay: this model gives one class per scan"):
        list(predictor.predict_path(source, tmp_path / "classes.csv", overlay=True))
    with pytest.raises(UserError, match=r"OUTPUT must be a file that ends in \.csv"):
        list(predictor.predict_path(source, tmp_path))
    with pytest.raises(UserError, match="nothing.png: no such file or folder"):
        list(predictor.predict_path(source / "nothing.png", tmp_path / "classes.csv"))
    (tmp_path / "scan.nii").touch()
    with pytest.raises(UserError, match=r"scan\.nii: expected an image like those"):
        list(predictor.predict_path(tmp_path / "scan.nii", tmp_path / "classes.csv"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"other\.csv: expected a table with the columns image,class,name,"):
        list(predictor.predict_path(source, tmp_path / "other.csv", resume=True))
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"


def test_volumes_are_predicted_with_the_names_of_their_classes(volumes, tmp_path):
    predictor = load_predictor(volumes.folder.path, job="100_random_0")
    list(predictor.predict_path(Path(volumes.experiment.data_dir_train), tmp_path / "classes.csv"))
    rows = read_rows(tmp_path / "classes.csv")
    assert [row["image"] for row in rows] == [f"scan{number:02}.npy" for number in range(16)]
    assert {(row["class"], row["name"]) for row in rows} <= {("0", "smooth"), ("1", "rough")}


def decode(outputs, *, multilabel=False):
    return ClassificationTask(SimpleNamespace(multilabel=multilabel)).decode(outputs)


def test_decode_of_each_kind_of_output():
    classes, probabilities = decode(np.array([[0.2, 0.6], [0.9, 0.3]]))
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(probabilities, [[0.25, 0.75], [0.75, 0.25]])
    classes, probabilities = decode(np.array([[0.2, 0.6], [0.9, 0.3]]), multilabel=True)
    assert classes.tolist() == [0, 0]
    np.testing.assert_allclose(probabilities, [[0.8, 0.2], [0.7, 0.3]])
    assert np.isfinite(decode(np.zeros((1, 3)))[1]).all()


def test_the_decoded_grade_is_not_always_the_most_probable_class():
    prediction, probabilities = decode(np.array([[0.9, 0.7, 0.4]]), multilabel=True)
    np.testing.assert_allclose(probabilities, [[0.3, 0.3, 0.4]])
    assert prediction.tolist() == [1]
