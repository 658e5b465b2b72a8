"""Test cases that the encoder was pretrained on are found, told and, on request, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.content import hash_channels
from self_supervised_3d_tasks.data.formats import read_channels
from self_supervised_3d_tasks.downstream.base import CaseScore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.finetuning import execution, leakage, sweep
from self_supervised_3d_tasks.finetuning.job import write_scores
from tests.experiment.experiment_files import finetune

NETWORK = {"enc_filters": 2, "num_layers": 1, "pooling": "none", "tensorboard": False, "data_dim": 16}
SWEEP = {"repetitions": 1, "exp_splits": [100], "epochs_initialized": 1, "epochs_warmup": 0, "epochs_random": 0}
NUM_TESTED = 4


def hashes_of(path: Path) -> list[str]:
    return hash_channels(read_channels([path], 3))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, write_scans):
    """Eight labelled scans for training, four for testing, and a pretrained encoder without a list of its scans."""
    folder = tmp_path_factory.mktemp("leakage")
    write_scans(folder / "scans", 8)
    write_scans(folder / "tests", NUM_TESTED, prefix="test", shape=(16, 15, 16))
    (folder / "pretrained").mkdir()
    experiment = experiment_of(folder, folder / "pretrained", check=False)
    save_model(build.make_encoder(experiment, (16, 16, 16, 1), seed=0), folder / "pretrained" / "encoder.keras")
    return folder


@pytest.fixture
def pretrained(workspace, tmp_path):
    """The pretrained encoder in a folder of its own."""
    return Path(shutil.copytree(workspace / "pretrained", tmp_path / "pretrained"))


def experiment_of(workspace, pretrained, *, check=True, **keys):
    values = (
        {"algorithm": "rotation", "dataset_name": "nifti", "num_classes": 2, "steps_per_epoch": 1} | NETWORK | SWEEP
    )
    values |= {"data_dir_train": str(workspace / "scans"), "data_dir_test": str(workspace / "tests")}
    values |= {"model_checkpoint": str(pretrained) if check else "-", "base_workspace": str(pretrained.parent / "runs")}
    path = workspace / "sweep.json"
    path.write_text(json.dumps(values | keys))
    return load_experiment("finetune", path)


def write_seen(pretrained: Path, workspace: Path, files: dict[str, str]) -> None:
    """Write what a pretraining on some test scans keeps: for each name of a file its subject there."""
    scans = [
        {"part": "train", "case": name, "subject": subject, "channels": hashes_of(workspace / "tests" / name)}
        for name, subject in files.items()
    ]
    write_json(pretrained / "seen.json", {"scans": scans})


def run(workspace, pretrained, **keys):
    experiment = experiment_of(workspace, pretrained, **keys)
    plan, folder = sweep.plan(experiment), experiment_run.claim(experiment, resume=False)
    sweep.run(plan, folder)
    return folder


def test_a_sweep_counts_them_below_its_tables(workspace, pretrained, monkeypatch, caplog):
    """Two were seen under other names, one has the name of another scan that was seen."""
    write_seen(pretrained, workspace, {"test0.nii.gz": "anna", "test1.nii.gz": "bob"})
    seen = read_json(pretrained / "seen.json")
    seen["scans"].append({"part": "validation", "case": "x", "subject": "test3", "channels": ["00" * 16]})
    write_json(pretrained / "seen.json", seen)
    caplog.set_level("INFO", "absl")  # whatever commands of other tests have set
    score = [CaseScore("test0", "dice", 0.5)]
    monkeypatch.setattr(execution, "run_job", lambda *arguments: write_scores(arguments[-1], 0.0, score))
    folder = run(workspace, pretrained)
    said = (
        "2 of 4 test cases were among the scans of the pretraining; 1 more are of it by subject name, with other voxels"
    )
    (warning,) = [record for record in caplog.records if record.getMessage() == said]
    assert warning.levelname == "WARNING"
    assert caplog.records[-1].getMessage().endswith(f"\n{said}")  # the table
    assert read_json(folder.leakage) == {
        **{"summary": said, "num_cases": 4, "unknown": "", "by_voxels": ["test0", "test1"], "by_subject": ["test3"]}
    }


@pytest.mark.parametrize(
    ("seen", "keys", "message"),
    [
        # By the voxels alone: found when they are read.
        ({"test2.nii.gz": "anna"}, {}, "1 of 4 test cases were among the scans of the pretraining: test2. Pretrain"),
        # Of a subject's name: found before.
        (
            {"test2.nii.gz": "test2", "test0.nii.gz": "case0"},
            {"subject_pattern": "(.*)"},
            "1 of 4 test cases are of the pretraining by subject name; .*: test2 by subject name. Pretrain .*pattern",
        ),
        (None, {}, r"unknown: .*pretrained/seen\.json does not exist, .*pretrain again"),
    ],
)
def test_forbidden_leakage_stops_before_training(workspace, pretrained, monkeypatch, seen, keys, message):
    monkeypatch.setattr(execution, "run_job", lambda *arguments: pytest.fail("trained"))
    if seen is not None:
        write_seen(pretrained, workspace, seen)
    with pytest.raises(UserError, match=f"^forbid_leakage: .*{message}"):
        run(workspace, pretrained, forbid_leakage=True, **keys)


def test_a_test_set_that_was_not_seen_is_not_forbidden(workspace, pretrained, monkeypatch, caplog):
    monkeypatch.setattr(execution, "run_job", lambda *arguments: [])
    write_json(pretrained / "seen.json", {"scans": [{"subject": "x", "channels": ["00" * 16]}]})
    caplog.set_level("INFO", "absl")  # whatever commands of other tests have set
    run(workspace, pretrained, forbid_leakage=True)
    said = "0 of 4 test cases were among the scans of the pretraining"
    assert [record.levelname for record in caplog.records if record.getMessage() == said] == ["INFO"]
    # Nothing that is trained from scratch has seen anything.
    (pretrained / "seen.json").unlink()
    folder = run(workspace, pretrained, forbid_leakage=True, epochs_initialized=0, epochs_random=1)
    assert not folder.leakage.exists()


def test_the_plan_compares_names_only(workspace, pretrained, monkeypatch):
    monkeypatch.setattr("self_supervised_3d_tasks.downstream.segmentation.formats.read_channels", pytest.fail)
    write_seen(pretrained, workspace, {"test0.nii.gz": "test1", "test2.nii.gz": "test2", "test3.nii.gz": "case0"})
    *_, line = sweep.plan(experiment_of(workspace, pretrained)).describe().splitlines()
    assert line == (
        "leakage          2 of 4 test cases are of the pretraining by subject name; voxels are compared when the scans "
        "are read"
    )
    (pretrained / "seen.json").unlink()
    *_, line = sweep.plan(experiment_of(workspace, pretrained)).describe().splitlines()
    assert "were among the scans of the pretraining is unknown: " in line and "seen.json does not exist" in line


def test_a_scan_is_known_by_one_of_its_channels(tmp_path, pretrained):
    """Pretrained on one modality of 4, under another name and in another format."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(4, 4, 4, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "scan.nii.gz")
    np.save(tmp_path / "flair.npy", array[..., 2])
    channels = {"subject": "x", "channels": hashes_of(tmp_path / "flair.npy")}
    write_json(pretrained / "seen.json", {"scans": [channels]})
    experiment = finetune(tmp_path, model_checkpoint=str(pretrained), number_channels=4)
    cases = [Case(name, tmp_path / "scan.nii.gz", None, name) for name in ("scan", "broken")]
    found = leakage.look_for(experiment, cases, {cases[0]: hashes_of(cases[0].image)})
    assert (found.by_voxels, found.by_subject, found.num_cases) == (["scan"], [], 2)


def test_many_names_are_cut_short():
    found = leakage.Leakage(40, by_voxels=[f"case{number}" for number in range(12)])
    with pytest.raises(UserError, match=r"12 of 40 test cases .*: case0, .*, case9, …\. Pretrain") as error:
        found.forbid()
    assert "case10" not in str(error.value)
