"""The downstream sweep on tiny volumes: what is trained, kept, written, and never computed twice."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks import losses, training
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.downstream.base import CaseScore
from self_supervised_3d_tasks.errors import JobsFailed, TrainingDiverged, UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.checksums import verify_checksum
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.finetuning import execution
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep
from self_supervised_3d_tasks.finetuning.baseline import check_baseline
from self_supervised_3d_tasks.finetuning.job import write_scores
from self_supervised_3d_tasks.scores.report import read_long

MODES = ("frozen", "initialized", "random")
JOBS = [f"050_{mode}_0" for mode in MODES]
SETTINGS = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dim": 16,
    "num_classes": 2,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "exp_splits": [50],
    "repetitions": 1,
    "epochs_frozen": 1,
    "epochs_initialized": 2,
    "epochs_warmup": 1,
    "epochs_random": 2,
    "steps_per_epoch": 2,
    "lr": 0.01,
    "val_split": 0.2,
    "test_split": 0.25,
    "scores": ["dice", "jaccard"],
    "tensorboard": False,
}


def load(workspace: Path, **keys):
    """Return the experiment, its plan and the run folder that finetune.py would make for it."""
    path = workspace / "sweep.json"
    paths = {"data_dir_train": str(workspace / "scans"), "model_checkpoint": str(workspace / "pretrained")}
    path.write_text(json.dumps(SETTINGS | paths | {"base_workspace": str(workspace / "runs")} | keys))
    experiment = load_experiment("finetune", path)
    return finetune_sweep.plan(experiment), experiment_run.claim(experiment, resume=False)


def tensors(model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight).copy()
        for layer in model.layers
        for weight in layer.weights
    }


def save_pretrained(experiment, path: Path) -> dict[str, np.ndarray]:
    """Save an encoder as after a pretraining: with moving statistics that are not zeros and ones."""
    encoder = build.make_encoder(experiment, experiment.input_shape, seed=123)
    rng = np.random.default_rng(0)
    for layer in encoder.layers:
        for weight in layer.non_trainable_weights:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    save_model(encoder, path)
    return tensors(encoder)


@pytest.fixture
def spy(monkeypatch):
    """Record the weights before and after every training, by job; name a job to make it diverge."""
    return watch_training(monkeypatch)


def watch_training(monkeypatch):
    fit, seen = training.fit, SimpleNamespace(before={}, after={}, diverge=None)

    def watched(model, *, folder, **options):
        seen.before[folder.path.name] = tensors(model)
        if folder.path.name == seen.diverge:
            raise TrainingDiverged("the loss became nan in epoch 1, step 1 of 2")
        history = fit(model, folder=folder, **options)
        seen.after[folder.path.name] = tensors(model)
        # What the last epoch left in the model must not matter: the best weights are on the disk.
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        return history

    monkeypatch.setattr(training, "fit", watched)
    return seen


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, write_scans):
    """A finished sweep, and what was seen of its trainings."""
    workspace = tmp_path_factory.mktemp("sweep")
    write_scans(workspace / "scans", 8)
    experiment = load_experiment(
        "finetune", _file(workspace / "first.json", SETTINGS | {"data_dir_train": "-", "model_checkpoint": "-"})
    )
    pretrained = save_pretrained(experiment, workspace / "pretrained" / "encoder.keras")
    plan, folder = load(workspace, run_name="sweep")
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = watch_training(monkeypatch)
        finetune_sweep.run(plan, folder)
    return SimpleNamespace(workspace=workspace, plan=plan, folder=folder, pretrained=pretrained, seen=seen)


def _file(path: Path, values: dict) -> Path:
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def copied(sweep, tmp_path):
    """The finished sweep in another place, to be tampered with."""
    return RunFolder(shutil.copytree(sweep.folder.path, tmp_path / "sweep"))


def model_of(folder: RunFolder, job: str):
    return load_model(folder.path / "jobs" / job / "model.keras")


def identity(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Change time and inode of every model: both are new after a file was written."""
    files = {job: (folder.path / "jobs" / job / "model.keras").stat() for job in JOBS}
    return {job: (stat.st_mtime_ns, stat.st_ino) for job, stat in files.items()}


def read_csv(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_scan(sweep, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return image, scaled to [0, 1], and mask of a case as a batch of one."""
    image, mask = (
        nib.load(sweep.workspace / kind / f"{name}.nii.gz").get_fdata() for kind in ("scans", "scans_labels")
    )
    low, high = np.percentile(image[image > image.min()], (0.5, 99.5))
    image = np.clip((image - low) / (high - low), 0, 1)
    return image[None, ..., None].astype(np.float32), mask[None].astype(np.int32)


def test_scores_are_those_of_the_kept_models(sweep):
    test = sweep.folder.read_json("split.json")["test"]
    scores = {
        (row.mode, row.case): row.value
        for row in read_long(sweep.folder.path / "results_long.csv")
        if (row.split, row.repetition, row.metric) == (50, 0, "dice")
    }
    assert scores.keys() == {(mode, case) for mode in MODES for case in test}
    for mode in MODES:
        model = model_of(sweep.folder, f"050_{mode}_0")
        for case in test:
            image, mask = read_scan(sweep, case)
            predicted = np.argmax(model.predict_on_batch(image), axis=-1) == 1
            dice = 2 * np.sum(predicted & (mask == 1)) / (predicted.sum() + mask.sum())
            assert scores[mode, case] == pytest.approx(dice)


def test_the_best_weights_are_kept_with_a_checksum(sweep):
    (name,) = sweep.folder.read_json("split.json")["validation"]
    image, mask = read_scan(sweep, name)
    loss = losses.get("dice_crossentropy", class_weights=None)
    for job in JOBS:
        folder = sweep.folder.path / "jobs" / job
        verify_checksum(folder / "model.keras")
        best = min(row["val_loss"] for row in training.read_history(RunFolder(folder)))
        assert read_json(folder / "scores.json")["best_val_loss"] == pytest.approx(best)
        received = float(loss(mask, model_of(sweep.folder, job).predict_on_batch(image))[0])
        assert received == pytest.approx(best, rel=1e-3)


def test_modes_differ_in_where_the_encoder_starts_and_whether_it_moves(sweep):
    """All modes of a repetition start from the same decoder, so that only the encoder makes the difference."""
    pretrained = sweep.pretrained
    before, after = sweep.seen.before, sweep.seen.after
    frozen, initialized, random = JOBS
    kept = tensors(model_of(sweep.folder, frozen))
    for name, value in pretrained.items():
        for weights in (before[frozen], after[frozen], kept, before[initialized]):
            np.testing.assert_array_equal(weights[name], value, err_msg=name)
        if name.endswith("/kernel"):
            assert np.any(after[initialized][name] != value)
            assert np.any(before[random][name] != value)
    decoder = [name for name in kept if name not in pretrained]
    assert decoder
    for name in decoder:
        np.testing.assert_array_equal(before[frozen][name], before[random][name])
        np.testing.assert_array_equal(before[initialized][name], before[random][name])
    assert any(np.any(kept[name] != before[frozen][name]) for name in decoder)


def test_only_the_unfinished_job_runs_again(sweep, copied, spy):
    before = identity(copied)
    (copied.path / "jobs" / "050_initialized_0" / "scores.json").unlink()
    for table in copied.path.glob("*.csv"):
        table.unlink()
    finetune_sweep.run(sweep.plan, copied)
    assert list(spy.before) == ["050_initialized_0"]
    after = identity(copied)
    assert [job for job in JOBS if after[job] != before[job]] == ["050_initialized_0"]
    for table in ("results.csv", "results_long.csv", "statistics.csv"):
        assert (copied.path / table).read_text() == (sweep.folder.path / table).read_text()


def test_a_job_that_diverges_does_not_discard_the_others(sweep, copied, spy):
    spy.diverge = "050_frozen_0"
    shutil.rmtree(copied.path / "jobs" / spy.diverge)
    (copied.path / "jobs" / "050_random_0" / "scores.json").unlink()
    with pytest.raises(
        JobsFailed, match="\\n  050_frozen_0: training diverged: the loss became nan in epoch 1, step 1 of 2$"
    ):
        finetune_sweep.run(sweep.plan, copied)
    assert list(spy.before) == [spy.diverge, "050_random_0"]
    whole, rest = (read_long(folder.path / "results_long.csv") for folder in (sweep.folder, copied))
    assert rest == [row for row in whole if row.mode != "frozen"]
    header, row = read_csv(copied.path / "results.csv")
    empty = [name for name, cell in zip(header, row, strict=True) if not cell]
    assert empty == [name for name in header if "_frozen_" in name]


@pytest.fixture
def untrained(monkeypatch):
    """Replace training by scores that tell the job and the case; returns the names of the jobs that were run."""
    names = []

    def run_job(experiment, job, store, folder):
        names.append(job.name)
        value = job.percent / 1000 + job.repetition / 100 + MODES.index(job.mode) / 10
        cases = [CaseScore(case.name, score, value) for case in job.split.test for score in experiment.scores]
        write_scores(folder, 0.0, cases)

    monkeypatch.setattr(execution, "run_job", run_job)
    return names


@pytest.fixture
def repeated(sweep, untrained):
    """A sweep over two fractions and two repetitions, with scores that are known."""
    plan, folder = load(sweep.workspace, exp_splits=[100, 50], repetitions=2, run_name="repeated")
    finetune_sweep.run(plan, folder)
    return folder


def test_jobs_and_tables_are_upstreams(repeated, untrained):
    assert untrained == [
        f"{percent}_{mode}_{repetition}" for percent in ("100", "050") for repetition in range(2) for mode in MODES
    ]
    header, *rows = read_csv(repeated.path / "results.csv")
    columns = [f"{score}_{name}" for score in ("dice", "jaccard") for name in ("min", "avg", "max")]
    assert header == ["Train Split", *(f"Weights_{mode}_{name}" for mode in MODES for name in columns)]
    assert [row[0] for row in rows] == ["100%", "50%"]
    start = header.index("Weights_random_dice_min")
    assert [float(cell) for cell in rows[1][start : start + 3]] == pytest.approx([0.25, 0.255, 0.26])
    long = read_long(repeated.path / "results_long.csv")
    num_cases, num_scores = 2, 2
    assert len(long) == len(set(long)) == len(MODES) * 2 * 2 * num_cases * num_scores
    pretrained_modes = 2
    assert len(read_csv(repeated.path / "statistics.csv")) == 1 + 2 * num_scores * pretrained_modes


def test_label_fractions_are_nested_and_apart_from_test_and_validation(repeated):
    split = repeated.read_json("split.json")
    assert list(split) == ["test", "validation", "train", "skipped"]  # labels are those of tables, not masks
    assert (len(split["validation"]), len(split["test"])) == (1, 2)
    for repetition in range(2):
        whole, half = (set(split["train"][f"{percent}%, repetition {repetition}"]) for percent in (100, 50))
        assert half < whole
        assert (len(half), len(whole)) == (3, 5)
        everything = [*whole, *split["validation"], *split["test"]]
        assert len(set(everything)) == len(everything) == 8


def test_cross_validation_tests_every_scan_once(sweep, untrained):
    plan, folder = load(sweep.workspace, do_cross_val=True, repetitions=4, exp_splits=[100, 50], run_name="folds")
    finetune_sweep.run(plan, folder)
    split = folder.read_json("split.json")
    assert split["test"].keys() == split["validation"].keys() == {f"repetition {fold}" for fold in range(4)}
    assert sorted(name for fold in split["test"].values() for name in fold) == [case.name for case in plan.test]
    assert len(plan.test) == len(plan.cases) == 8
    for fold in range(4):
        parts = [split[part][f"repetition {fold}"] for part in ("test", "validation")]
        everything = [*parts[0], *parts[1], *split["train"][f"100%, repetition {fold}"]]
        assert len(set(everything)) == len(everything) == 8
    rows = {(row.split, row.mode, row.metric, row.case) for row in read_long(folder.path / "results_long.csv")}
    assert len(rows) == 2 * 3 * 2 * 8


def test_when_every_job_diverges_that_is_what_is_said(sweep, monkeypatch):
    def run_job(experiment, job, *arguments):
        raise TrainingDiverged("the loss became inf")

    monkeypatch.setattr(execution, "run_job", run_job)
    plan, folder = load(sweep.workspace, run_name="diverged")
    with pytest.raises(JobsFailed) as error:
        finetune_sweep.run(plan, folder)
    assert all(job in str(error.value) for job in JOBS)
    assert read_long(folder.path / "results_long.csv") == []


@pytest.mark.parametrize("finished", [True, False])
def test_finished_jobs_from_scratch_are_taken_over_from_another_sweep(sweep, copied, untrained, finished):
    """Another pretext task, other epochs from pretrained weights: training from scratch is the same."""
    job = "050_random_0"
    if not finished:
        (copied.path / "jobs" / job / "scores.json").unlink()
    plan, folder = load(
        sweep.workspace, algorithm="cpc", random_from=str(copied.path), epochs_frozen=2, run_name="other"
    )
    finetune_sweep.run(plan, folder)
    assert untrained == [name for name in JOBS if not (finished and name == job)]
    if finished:
        for name in ("model.keras", "scores.json", "history.csv"):
            theirs, mine = (run.path / "jobs" / job / name for run in (copied, folder))
            assert mine.read_bytes() == theirs.read_bytes()
        taken, original = (
            [row for row in read_long(run.path / "results_long.csv") if row.mode == "random"]
            for run in (folder, sweep.folder)
        )
        assert taken == original


@pytest.mark.parametrize("keys", [{"epochs_random": 3}, {"lr": 0.02}, {"seed": 1, "enc_filters": 4}])
def test_a_baseline_with_other_settings_is_refused(sweep, keys):
    plan, _ = load(sweep.workspace, random_from=str(sweep.folder.path), run_name="refused", **keys)
    with pytest.raises(UserError, match=f"random_from: .* other values of {', '.join(sorted(keys))}$"):
        check_baseline(plan, sweep.folder)


def test_a_baseline_older_than_the_keys_of_the_optimizer_is_accepted(sweep, copied):
    keys = {"optimizer", "momentum", "lr_schedule", "weight_decay", "weight_decay_form"}
    recorded = copied.read_json("config.json")
    assert keys <= recorded.keys()
    write_json(copied.path / "config.json", {key: value for key, value in recorded.items() if key not in keys})
    plan, _ = load(sweep.workspace, random_from=str(copied.path), run_name="newer")
    check_baseline(plan, copied)


def test_every_phase_has_a_schedule_of_its_own(sweep, monkeypatch):
    rates = []

    def compile_only(model, *, phases, folder, **options):
        for phase in phases:
            phase.prepare(model)
            optimizer = model.optimizer
            assert (optimizer.momentum, optimizer.clipnorm) == (0.5, 2.0)
            for step in (0, 2, 4):
                optimizer.iterations.assign(step)
                rates.append((folder.path.name, phase.epochs, step, round(float(optimizer.learning_rate), 6)))
        raise TrainingDiverged("enough")

    monkeypatch.setattr(training, "fit", compile_only)
    keys = {"optimizer": "sgd", "momentum": 0.5, "lr_schedule": "cosine", "clipnorm": 2.0, "epochs_initialized": 3}
    plan, folder = load(sweep.workspace, run_name="schedules", **keys)
    with pytest.raises(JobsFailed):
        finetune_sweep.run(plan, folder)
    one_epoch, two_epochs = [(0, 0.01), (2, 0.0), (4, 0.0)], [(0, 0.01), (2, 0.005), (4, 0.0)]
    phases = {("frozen", 1): one_epoch, ("initialized", 1): one_epoch}
    phases |= {("initialized", 2): two_epochs, ("random", 2): two_epochs}
    assert rates == [(f"050_{mode}_0", epochs, *point) for (mode, epochs), points in phases.items() for point in points]


def test_a_baseline_on_another_split_is_refused(sweep, copied):
    split = copied.read_json("split.json")
    write_json(copied.path / "split.json", split | {"test": split["test"][:1]})
    plan, _ = load(sweep.workspace, random_from=str(copied.path), run_name="refused")
    with pytest.raises(UserError, match="random_from: .* has another split"):
        check_baseline(plan, copied)
